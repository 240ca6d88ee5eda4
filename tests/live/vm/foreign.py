"""A Debian of another architecture: unpacked here, configured by its own programs in a machine that is emulated.

`debootstrap --foreign` downloads and unpacks what the second stage needs to run. A disk of that, the kernel of its
package and an initrd of ours, which has the modules for that disk and a static shell, boot far enough to run it.
"""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.live.vm.emulator import Emulator
from tests.live.vm.tools import PROGRAMS_OF_FOREIGN, Command, VmTestError, as_root, require_programs, run, search_path

MODULES = ("virtio_blk", "ext4")
TIMEOUT_S = 3600
"""Packages are unpacked and configured by an emulated processor."""
DONE = "the second stage is done"
SCRIPT = "second-stage"

INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
until [ -e /dev/vda ]; do sleep 0.2; done
mount -t ext4 /dev/vda /root
mount -o bind /dev /root/dev
chroot /root /bin/sh -e /{SCRIPT} && rm /root/{SCRIPT} && echo {DONE}
umount /root/proc /root/sys /root/dev
umount /root
poweroff -f
"""

# What a program of the tree must do itself; the rest is files.
STAGE = """\
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/quick
/debootstrap/debootstrap --second-stage
"""


def second_stage(emulator: Emulator, root: Path, commands: Sequence[str], disk: tuple[Path, str], log: Path) -> None:
    """Make `disk`, a path and a size, of an unpacked tree, and have it finish itself and run these commands of a shell.

    VmTestError where it does not get through.
    """
    require_programs(PROGRAMS_OF_FOREIGN)
    sudo = as_root()
    with tempfile.TemporaryDirectory(dir=root.parent) as name:
        work = Path(name)
        script = work / SCRIPT
        script.write_text(STAGE + "".join(f"{command}\n" for command in commands))
        run([*sudo, "cp", script, root / SCRIPT], log)
        kernel, initrd = _boot_files(root, work, log)
        _decompress(root, work, sudo, log)
        run([*sudo, "mke2fs", "-q", "-t", "ext4", "-d", root, "-m", "0", *disk], log)
        run([*sudo, "chown", f"{os.getuid()}", disk[0]], log)
        console = work / "console"
        shape = ["-smp", "2", "-m", "1024M", "-serial", f"file:{console}"]
        boot: Command = ["-kernel", kernel, "-initrd", initrd, "-append", f"quiet console={emulator.console}"]
        drive = f"file={disk[0]},if=virtio,format=raw,cache=unsafe"
        run(["timeout", f"{TIMEOUT_S}", *emulator.words(), *shape, *boot, "-drive", drive], log)
        said = console.read_text(errors="replace")
    with log.open("a") as stream:
        stream.write(said)
    if DONE not in said:
        raise VmTestError(f"{disk[0].name} could not be configured in its machine; see the end of {log}")


def _boot_files(root: Path, work: Path, log: Path) -> tuple[Path, Path]:
    """The kernel, out of its package, and an initrd with what mounts the disk."""
    archives = root / "var/cache/apt/archives"
    unpacked, tree = work / "unpacked", work / "initrd"
    (package,) = archives.glob("linux-image-[0-9]*.deb")
    (shell,) = archives.glob("busybox-static_*.deb")
    for each in (package, shell):
        run(["dpkg-deb", "--extract", each, unpacked], log)
    (kernel,) = (unpacked / "boot").glob("vmlinuz-*")
    version = kernel.name.removeprefix("vmlinuz-")
    if not (unpacked / "lib").exists():
        (unpacked / "lib").symlink_to("usr/lib")
    run(["depmod", "-b", unpacked, version], log)
    for folder in ("bin", "modules", "proc", "sys", "dev", "root"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(next(unpacked.glob("**/bin/busybox")), tree / "bin/busybox")
    for number, module in enumerate(_modules(unpacked, version)):
        with lzma.open(module) as packed:
            (tree / "modules" / f"{number:02}-{module.stem}").write_bytes(packed.read())
    init = tree / "init"
    init.write_text(INIT)
    init.chmod(0o755)
    initrd = work / "initrd.cpio"
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with initrd.open("wb") as stream:
        command = ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"]
        subprocess.run(command, input=names.encode(), stdout=stream, cwd=tree, check=True)
    return kernel, initrd


def _decompress(root: Path, work: Path, sudo: list[str], log: Path) -> None:
    """Packages without compression: an emulated processor takes minutes for what this one does at once."""
    tree = work / "package"
    for archive in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        run([*sudo, "dpkg-deb", "--raw-extract", archive, tree], log)
        run([*sudo, "dpkg-deb", "--build", "-Znone", tree, archive], log)
        run([*sudo, "rm", "-rf", tree], log)


def _modules(unpacked: Path, version: str) -> list[Path]:
    """The modules in the order in which they are loaded."""
    found: dict[Path, None] = {}
    for name in MODULES:
        command = ["modprobe", "-d", str(unpacked), "-S", version, "--show-depends", name]
        env = {**os.environ, "PATH": search_path()}
        told = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
        found.update({Path(line.split()[1]): None for line in told.splitlines() if line.startswith("insmod ")})
    return list(found)
