# The root of an image, as a tar on the standard output: the machine's own Python, and /srv/engine/opt as /opt.
set -eu
python=$(readlink -f /usr/bin/python3)
library=/usr/lib/$(basename "$python")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/opt" "$root/bin" "$root/run" "$root/tmp" "$root/root"
cp -a /srv/engine/opt/. "$root/opt"
cp /bin/sh "$root/bin/sh"
for file in "$python" $(ldd "$python" /bin/sh "$library"/lib-dynload/*.so | grep -o '/[^ :]*\.so[^ :]*' | sort -u); do
    case $file in "$library"/*) continue ;; esac
    mkdir -p "$root$(dirname "$file")"
    cp -L --preserve=timestamps "$file" "$root$file"
done
mkdir -p "$root$library"
# With its bytecode, which has the times of its sources.
tar --create --dereference --directory "$library" --exclude test --exclude ensurepip --exclude 'config-*' . |
    tar --extract --directory "$root$library"
tar --create --directory "$root" .
