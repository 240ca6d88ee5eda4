"""The disk images of the test machines: a small Debian with its own kernel, and the loader's environment.

Images are built once and kept under `.cache/vm/` by a hash of their recipe, so a change of the recipe builds anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm.tools import Command, VmTestError, as_root, require_programs, run, search_path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "vm"
OPERATOR = "deploy"

SUITE = "bookworm"
PACKAGES = (
    "systemd-sysv,udev,libpam-systemd,openssh-server,python3,linux-image-cloud-amd64,procps,iproute2,kmod,sudo,tuned"
)
DISK_SIZE = "3G"

# Present before debootstrap runs, so that the kernel package builds a small initrd the first time.
FILES_BEFORE = {
    "etc/initramfs-tools/conf.d/small": "MODULES=list\nBUSYBOX=n\nKEYMAP=n\n",
    "usr/share/initramfs-tools/modules.d/small": "virtio_pci\nvirtio_blk\next4\n",
}
FILES_AFTER = {
    "etc/hostname": "host\n",
    "etc/hosts": "127.0.0.1 localhost host\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\nLABEL=slm-python /opt/slm-python ext4 ro,noload,nofail 0 0\n",
    "etc/systemd/network/eth0.network": (
        "[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    ),
    # Names are not looked up and no login session is registered: both only slow an emulated machine down.
    "etc/ssh/sshd_config.d/tests.conf": "UseDNS no\nUsePAM no\nMaxSessions 50\nMaxStartups 50\n",
    f"etc/sudoers.d/{OPERATOR}": f"{OPERATOR} ALL=(ALL) NOPASSWD: ALL\n",
}
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-logind.service",
    "systemd-pstore.service",
)


@dataclass(frozen=True)
class BaseImage:
    """What a machine boots from: a raw root disk, its kernel and initrd, and the key that may log in."""

    folder: Path

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


def base_image() -> BaseImage:
    """The Debian that the machines run, built where the cache lacks it; VmTestError where it cannot be."""
    require_programs()
    recipe = "\n".join(
        [inspect.getsource(_build_base), inspect.getsource(_configure), SUITE, PACKAGES, DISK_SIZE, OPERATOR]
    )
    recipe += repr((FILES_BEFORE, FILES_AFTER, MASKED_UNITS))
    return BaseImage(_cached("base", recipe, _build_base))


def python_disk(requirements: Path) -> Path:
    """A raw disk whose file system holds the loader's Python packages, installed from a locked requirements file.

    Machines mount it read-only at /opt/slm-python; its interpreter is /opt/slm-python/bin/python, the guest's own
    python3.11 seeing these packages.
    """
    require_programs()

    def build(folder: Path, log: Path) -> None:
        _build_python_disk(requirements, folder, log)

    recipe = inspect.getsource(_build_python_disk) + requirements.read_text()
    return _cached("python", recipe, build) / "disk.img"


def _cached(name: str, recipe: str, build: Callable[[Path, Path], None]) -> Path:
    """The folder of one image; built in a temporary folder that is renamed when whole, so that no half is ever used."""
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{digest}"
    with locked(CACHE / f"{name}.lock"):
        if not folder.exists():
            # The log stays in place when the build fails and its folder goes.
            log = CACHE / f"{name}.log"
            log.unlink(missing_ok=True)
            with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=CACHE, ignore_cleanup_errors=True) as temporary:
                whole = Path(temporary) / "whole"
                whole.mkdir()
                build(whole, log)
                whole.rename(folder)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_base(folder: Path, log: Path) -> None:
    root = folder.parent / "root"
    sudo = as_root()
    for name, text in FILES_BEFORE.items():
        _write(root / name, text)
    try:
        run([*sudo, "debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root, debian_mirror()], log)
        _configure(root, folder, sudo, log)
        run([*sudo, "mke2fs", "-q", "-t", "ext4", "-d", root, "-m", "0", folder / "disk.img", DISK_SIZE], log)
        for kind, name in (("vmlinuz-*", "vmlinuz"), ("initrd.img-*", "initrd.img")):
            (source,) = (root / "boot").glob(kind)
            run([*sudo, "cp", source, folder / name], log)
        run([*sudo, "chown", "-R", f"{os.getuid()}:{os.getgid()}", folder], log)
    finally:
        subprocess.run([*sudo, "rm", "-rf", "--one-file-system", str(root)], check=True)


def _configure(root: Path, folder: Path, sudo: list[str], log: Path) -> None:
    """Make a bare Debian tree the machine that the tests want: key, operator, network, quiet boot."""
    key = folder / "id_ed25519"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "slm-baseline-tests", "-f", key], log)
    chroot: Command = [*sudo, "chroot", root]
    # No password, yet not locked: without PAM sshd turns locked accounts away.
    run([*chroot, "useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", OPERATOR], log)
    for home, owner in (("root", "root"), (f"home/{OPERATOR}", OPERATOR)):
        run([*chroot, "install", "-d", "-m", "700", "-o", owner, "-g", owner, f"/{home}/.ssh"], log)
        run([*sudo, "cp", key.with_suffix(".pub"), root / home / ".ssh/authorized_keys"], log)
        run([*chroot, "chown", f"{owner}:{owner}", f"/{home}/.ssh/authorized_keys"], log)
    with tempfile.TemporaryDirectory() as staging:
        for name, text in FILES_AFTER.items():
            _write(Path(staging) / name, text)
            run([*sudo, "install", "-D", "-m", "644", Path(staging) / name, root / name], log)
    run([*sudo, "mkdir", root / "opt/slm-python"], log)
    run([*sudo, "rm", "-rf", root / "var/cache/apt", root / "var/lib/apt/lists", root / "usr/share/doc"], log)
    # An empty machine id would make every first boot run systemd's presets over the units.
    run([*chroot, "systemd-machine-id-setup"], log)
    run([*chroot, "systemctl", "mask", *MASKED_UNITS], log)
    run([*chroot, "systemctl", "disable", "tuned.service", "remote-fs.target"], log)
    run([*chroot, "systemctl", "enable", "systemd-networkd.service"], log)


def _build_python_disk(requirements: Path, folder: Path, log: Path) -> None:
    root = folder.parent / "python"
    packages = root / "lib/python3.11/site-packages"
    # For the guest's Python and glibc, whatever this machine has. Compiled, since no bytecode can be kept on the disk.
    platforms = [f"--platform=manylinux_{glibc}_x86_64" for glibc in ("2_28", "2_27", "2_24", "2_17", "2_12", "2_5")]
    wheels: Command = ["--only-binary=:all:", "--python-version=3.11", *platforms, "--target", packages]
    run([sys.executable, "-m", "pip", "install", "--quiet", "--compile", *wheels, "-r", requirements], log)
    _write(root / "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n")
    (root / "bin").mkdir()
    (root / "bin/python").symlink_to("/usr/bin/python3.11")
    run(["mke2fs", "-q", "-t", "ext4", "-L", "slm-python", "-d", root, "-m", "0", folder / "disk.img", "4G"], log)
    shutil.rmtree(root)


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
