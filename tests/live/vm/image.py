"""The disk images of the test machines: a small Debian with its own kernel, and the loader's environment.

Images are built once and kept under `.cache/vm/` by a hash of their recipe, so a change of the recipe builds anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.live.vm import foreign
from tests.live.vm.emulator import EMULATORS
from tests.live.vm.tools import Command, VmTestError, as_root, require_programs, run, search_path

REPOSITORY = Path(__file__).resolve().parents[3]
CACHE = REPOSITORY / ".cache" / "vm"
OPERATOR = "deploy"

PACKAGES = ("systemd-sysv", "udev", "libpam-systemd", "openssh-server", "python3", "procps", "iproute2", "kmod", "sudo")
DISK_SIZE = "3G"

# Present before debootstrap runs, so that the kernel package builds a small initrd the first time.
FILES_BEFORE = {
    "etc/initramfs-tools/conf.d/small": "MODULES=list\nBUSYBOX=n\nKEYMAP=n\n",
    "usr/share/initramfs-tools/modules.d/small": "virtio_pci\nvirtio_blk\next4\n",
}
FILES_AFTER = {
    "etc/hostname": "host\n",
    "etc/hosts": "127.0.0.1 localhost host\n",
    "etc/systemd/network/eth0.network": (
        "[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    ),
    # Names are not looked up and no login session is registered: both only slow an emulated machine down.
    "etc/ssh/sshd_config.d/tests.conf": "UseDNS no\nUsePAM no\nMaxSessions 50\nMaxStartups 50\n",
    f"etc/sudoers.d/{OPERATOR}": f"{OPERATOR} ALL=(ALL) NOPASSWD: ALL\n",
}
FSTAB = "/dev/vda / ext4 defaults 0 1\n"
FSTAB_MEASURING = "LABEL=slm-python /opt/slm-python ext4 ro,noload,nofail 0 0\n"
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "serial-getty@ttyAMA0.service",
    "systemd-logind.service",
    "systemd-pstore.service",
)


@dataclass(frozen=True)
class Debian:
    """A release of Debian as the machines run it: its suite in the archive, its own Python, and what it has beside.

    One that measures mounts the loader's environment.
    """

    suite: str
    python: str
    measures: bool = True
    extra_packages: tuple[str, ...] = ()
    architecture: str = "amd64"
    other_packages: tuple[str, ...] = ("linux-image-cloud-amd64", "tuned")

    @property
    def name(self) -> str:
        """What its image is called."""
        kind = "podman" if "podman" in self.other_packages else "hardened" if self.extra_packages else ""
        words = [self.suite, kind, self.architecture.replace("amd64", "")]
        return "-".join(filter(None, words))

    @property
    def packages(self) -> tuple[str, ...]:
        return (*PACKAGES, *self.other_packages, *self.extra_packages)


# The loader's environment needs Python 3.11.
BULLSEYE = Debian("bullseye", "3.9", measures=False)
BOOKWORM = Debian("bookworm", "3.11")
TRIXIE = Debian("trixie", "3.13")
# Pages of 16 KiB: no size of a page, huge or not, is what it is on the others. Its processor is emulated, so it has
# little to configure.
ARM64 = replace(
    TRIXIE, measures=False, architecture="arm64", other_packages=("linux-image-arm64-16k", "busybox-static", "dbus")
)
# Host hardening that the plain images do without: both security modules, with a policy, and generated locales.
HARDENED = replace(
    BOOKWORM,
    measures=False,
    extra_packages=("apparmor", "apparmor-profiles", "locales", "selinux-policy-default", "policycoreutils"),
)
# Root's Podman with crun, and Quadlet; without networks of its own.
PODMAN = replace(TRIXIE, measures=False, other_packages=("linux-image-cloud-amd64", "dbus", "podman", "crun"))


@dataclass(frozen=True)
class BaseImage:
    """What a machine boots from: a raw root disk, its kernel and initrd, and the key that may log in."""

    folder: Path
    architecture: str = "amd64"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def key(self) -> Path:
        return self.folder / "id_ed25519"


def base_image(debian: Debian = BOOKWORM) -> BaseImage:
    """One Debian that the machines run, built where the cache lacks it; VmTestError where it cannot be."""
    require_programs()

    def build(folder: Path, log: Path) -> None:
        _build_base(debian, folder, log)

    recipe = "\n".join(
        [*(inspect.getsource(part) for part in (_build_base, _put_files, _commands)), repr(debian), repr(PACKAGES)]
    )
    recipe += repr((DISK_SIZE, OPERATOR, FILES_BEFORE, FILES_AFTER, FSTAB, FSTAB_MEASURING, MASKED_UNITS))
    if debian.architecture != "amd64":
        recipe += inspect.getsource(foreign)
    return BaseImage(_cached(debian.name, recipe, build), debian.architecture)


def python_disk(requirements: Path, debian: Debian = BOOKWORM) -> Path:
    """A raw disk whose file system holds the loader's Python packages, installed from a locked requirements file.

    Machines mount it read-only at /opt/slm-python; its interpreter is /opt/slm-python/bin/python, the guest's own
    Python seeing these packages.
    """
    base = base_image(debian)

    def build(folder: Path, log: Path) -> None:
        _build_python_disk(requirements, debian.python, base, folder, log)

    recipe = inspect.getsource(_build_python_disk) + debian.python + requirements.read_text()
    return _cached(f"python{debian.python}", recipe, build) / "disk.img"


def engine_disk(requirements: Path) -> Path:
    """A small raw disk with what a model server needs beside the loader's packages, for /opt/slm-engine."""
    require_programs()

    def build(folder: Path, log: Path) -> None:
        _build_engine_disk(requirements, folder, log)

    recipe = inspect.getsource(_build_engine_disk) + requirements.read_text()
    return _cached("engine", recipe, build) / "disk.img"


def _cached(name: str, recipe: str, build: Callable[[Path, Path], None]) -> Path:
    """The folder of one image; built in a temporary folder that is renamed when whole, so that no half is ever used."""
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{digest}"
    with locked(CACHE / f"{name}.lock"):
        if not folder.exists():
            # The log stays in place when the build fails and its folder goes.
            log = CACHE / f"{name}.log"
            log.unlink(missing_ok=True)
            with scratch_folder(f"{name}-") as temporary:
                whole = temporary / "whole"
                whole.mkdir()
                build(whole, log)
                whole.rename(folder)
    return folder


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A folder for a build, which goes with all that is in it, but for what is mounted there."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=CACHE))
    try:
        yield folder
    finally:
        remove_tree(folder, as_root())


def remove_tree(folder: Path, sudo: list[str]) -> None:
    """Remove a folder in which programs such as debootstrap mount; VmTestError where something stays mounted.

    Such a program that fails leaves this machine's own /proc or /dev in there, and no removal may go into these.
    """
    for path in reversed(mounts_below(folder)):
        subprocess.run([*sudo, "umount", path], check=False, stderr=subprocess.DEVNULL)
    left = mounts_below(folder)
    if left:
        raise VmTestError(f"{', '.join(left)} cannot be unmounted. Next: umount it by hand, then remove {folder}.")
    subprocess.run([*sudo, "rm", "-rf", "--one-file-system", str(folder)], check=True)


def mounts_below(folder: Path) -> list[str]:
    """What is mounted in a folder, in the order in which it was; escapes of mountinfo are left as they are."""
    paths = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [path for path in paths if path.startswith(f"{folder}/")]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_base(debian: Debian, folder: Path, log: Path) -> None:
    root = folder.parent / "root"
    disk = folder / "disk.img"
    sudo = as_root()
    for name, text in FILES_BEFORE.items():
        _write(root / name, text)
    try:
        is_foreign = debian.architecture != "amd64"
        there = ["--foreign", f"--arch={debian.architecture}"] if is_foreign else []
        what: Command = ["--variant=minbase", f"--include={','.join(debian.packages)}", debian.suite]
        run([*sudo, "debootstrap", *there, *what, root, debian_mirror()], log)
        _put_files(debian, root, folder, sudo, log)
        if not is_foreign:
            for command in _commands(debian):
                run([*sudo, "chroot", root, *command], log)
            run([*sudo, "mke2fs", "-q", "-t", "ext4", "-d", root, "-m", "0", disk, DISK_SIZE], log)
        else:
            commands = [shlex.join(command) for command in _commands(debian)]
            foreign.second_stage(EMULATORS[debian.architecture], root, commands, (disk, DISK_SIZE), log)
        run([*sudo, "chown", "-R", f"{os.getuid()}:{os.getgid()}", folder], log)
        for name in ("vmlinuz", "initrd.img"):
            run(["debugfs", "-R", f"dump /boot/{name} {folder / name}", disk], log)
    finally:
        remove_tree(root, sudo)


def _put_files(debian: Debian, root: Path, folder: Path, sudo: list[str], log: Path) -> None:
    """What makes a bare Debian tree the machine that the tests want, as far as files do: key, network, quiet boot."""
    key = folder / "id_ed25519"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "slm-baseline-tests", "-f", key], log)
    run([*sudo, "cp", key.with_suffix(".pub"), root / "authorized_keys"], log)
    with tempfile.TemporaryDirectory() as staging:
        fstab = FSTAB + FSTAB_MEASURING if debian.measures else FSTAB
        for name, text in {**FILES_AFTER, "etc/fstab": fstab}.items():
            _write(Path(staging) / name, text)
            run([*sudo, "install", "-D", "-m", "644", Path(staging) / name, root / name], log)
    run([*sudo, "mkdir", "-p", root / "opt/slm-python"], log)


def _commands(debian: Debian) -> list[list[str]]:
    """What the tree's own programs do to that end, in order: operator, machine id, units."""
    disabled = ["remote-fs.target", *(["tuned.service"] if "tuned" in debian.packages else [])]
    # No password, yet not locked: without PAM sshd turns locked accounts away.
    commands = [["useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", OPERATOR]]
    for home, owner in (("/root", "root"), (f"/home/{OPERATOR}", OPERATOR)):
        whose = ["-o", owner, "-g", owner]
        commands.append(["install", "-d", "-m", "700", *whose, f"{home}/.ssh"])
        commands.append(["install", "-m", "600", *whose, "/authorized_keys", f"{home}/.ssh/authorized_keys"])
    return [
        *commands,
        ["rm", "-rf", "/authorized_keys", "/var/cache/apt", "/var/lib/apt/lists", "/usr/share/doc"],
        # An empty machine id would make every first boot run systemd's presets over the units.
        ["systemd-machine-id-setup"],
        ["systemctl", "mask", *MASKED_UNITS],
        ["systemctl", "disable", *disabled],
        ["systemctl", "enable", "systemd-networkd.service"],
        # Under names without a version, to be taken from the disk.
        ["sh", "-c", "cp /boot/vmlinuz-* /boot/vmlinuz && cp /boot/initrd.img-* /boot/initrd.img"],
    ]


def _build_python_disk(requirements: Path, version: str, base: BaseImage, folder: Path, log: Path) -> None:
    root = folder.parent / "python"
    guest = folder.parent / "guest"
    sudo = as_root()
    packages = f"lib/python{version}/site-packages"
    # For the guest's Python and glibc, whatever this machine has.
    glibcs = [*(f"_2_{minor}" for minor in range(36, 4, -1)), "2014"]
    platforms = [f"--platform=manylinux{glibc}_x86_64" for glibc in glibcs]
    wheels: Command = ["--only-binary=:all:", f"--python-version={version}", *platforms, "--target", root / packages]
    try:
        run([sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", *wheels, "-r", requirements], log)
        _write(root / "pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n")
        (root / "bin").mkdir()
        (root / "bin/python").symlink_to(f"/usr/bin/python{version}")
        # Compiled by the guest's own Python under the path it will have: no bytecode can be kept on the disk later.
        guest.mkdir()
        run([*sudo, "debugfs", "-R", f"rdump /usr /lib /lib64 {guest}", base.disk], log)
        run([*sudo, "mkdir", "-p", guest / "opt"], log)
        run([*sudo, "mv", root, guest / "opt/slm-python"], log)
        # As pip does it: a package may hold modules in the grammar of a newer Python, which nobody imports here.
        compiling = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2)"
        interpreter = f"/usr/bin/python{version}"
        run([*sudo, "chroot", guest, interpreter, "-c", compiling, f"/opt/slm-python/{packages}"], log)
        disk: Command = ["-L", "slm-python", "-d", guest / "opt/slm-python", "-m", "0", folder / "disk.img", "12G"]
        run([*sudo, "mke2fs", "-q", "-t", "ext4", *disk], log)
        run([*sudo, "chown", f"{os.getuid()}:{os.getgid()}", folder / "disk.img"], log)
    finally:
        for tree in (root, guest):
            remove_tree(tree, sudo)


def _build_engine_disk(requirements: Path, folder: Path, log: Path) -> None:
    packages = folder.parent / "engine"
    wheels: Command = ["--only-binary=:all:", "--python-version=3.11", "--no-deps", "--require-hashes"]
    pip: Command = [sys.executable, "-m", "pip", "install", "--quiet", "--compile", *wheels, "--target", packages]
    run([*pip, "-r", requirements], log)
    run(["mke2fs", "-q", "-t", "ext4", "-L", "slm-engine", "-d", packages, "-m", "0", folder / "disk.img", "64M"], log)
    shutil.rmtree(packages)


def debian_mirror() -> str:
    """The Debian archive that this machine's own apt uses, or the one that SLM_VM_MIRROR names."""
    if mirror := os.environ.get("SLM_VM_MIRROR"):
        return mirror
    if shutil.which("apt-get", path=search_path()):
        fields = "$(ORIGIN)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)"
        command = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]
        listed = subprocess.run(command, capture_output=True, text=True).stdout
        for line in listed.splitlines():
            origin, component, release, address = line.split("|")
            if (origin, component) == ("Debian", "main") and "-" not in release:
                return address
    raise VmTestError(
        "apt on this machine has no Debian archive. Next: apt-get update, or set SLM_VM_MIRROR to a Debian mirror.",
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    # What `make test-vm` boots from, made ahead: a change's checks build it while they have a processor to spare.
    python_disk(REPOSITORY / "files/requirements-host.txt")
