"""The host's facts for the result document: kernel, CPUs, memory, and the disk under the model."""

from __future__ import annotations

import os
import platform
import re
import shlex
from pathlib import PurePosixPath
from typing import Any

from ...host.errors import ParseError
from ...host.files import Host
from ...host.meminfo import read_meminfo
from ...host.mountinfo import MountEntry, read_mountinfo
from ...host.systemd import systemd_runs
from .noise import has_psi

VIRTIO_DEVICES = "/sys/bus/virtio/devices"
_BALLOON, _REPORTING_BIT = "0x0005", 5
"""Device id and feature bit VIRTIO_BALLOON_F_REPORTING (include/uapi/linux/virtio_{ids,balloon}.h)."""
_NODE = re.compile(r"node[0-9]+")
_CPUS = re.compile(r"(?P<first>[0-9]{1,6})(?:-(?P<last>[0-9]{1,6}))?")
_CPU_MODEL = re.compile(r"^(?:model name|Model|cpu model|Processor)\s*:\s*(.+)$", re.MULTILINE)


def parse_cpu_model(cpuinfo: str) -> str | None:
    """Parse the CPU's name from /proc/cpuinfo; None on the architectures that print none."""
    match = _CPU_MODEL.search(cpuinfo)
    return match[1].strip() if match else None


def parse_cpu_list(text: str) -> int:
    """Count the CPUs in a list such as `0-3,8` (Documentation/admin-guide/cputopology.rst)."""
    count = 0
    for part in text.strip().split(","):
        match = _CPUS.fullmatch(part)
        more = int(match["last"] or match["first"]) - int(match["first"]) if match else -1
        if more < 0:
            raise ParseError("/sys/devices/system/cpu/online", "a list such as 0-3,8", text)
        count += more + 1
    return count


def parse_distribution(os_release: str) -> str:
    """Return PRETTY_NAME of os-release(5), else NAME, else `unknown`."""
    fields = dict(line.partition("=")[::2] for line in os_release.splitlines() if not line.startswith("#"))
    for name in ("PRETTY_NAME", "NAME"):
        try:
            words = shlex.split(fields.get(name, ""))
        except ValueError:
            continue
        if words and words[0]:
            return words[0]
    return "unknown"


def host_facts(host: Host, model_path: str) -> dict[str, Any]:
    """Return the result document's `host` without the inventory's name and the GPUs."""
    mount = mount_of(read_mountinfo(host), os.path.realpath(host.path(model_path)) if host.is_live else model_path)
    nodes = [name for name in host.names("/sys/devices/system/node") if _NODE.fullmatch(name)]
    return {
        "kernel": platform.release(),
        "arch": platform.machine(),
        "distribution": parse_distribution(host.read_or_none("/etc/os-release") or ""),
        "cpu_model": parse_cpu_model(host.read_or_none("/proc/cpuinfo") or ""),
        "cpus": parse_cpu_list(host.read("/sys/devices/system/cpu/online")),
        "numa_nodes": max(1, len(nodes)),
        "memory_bytes": read_meminfo(host)["MemTotal"],
        "page_size_bytes": os.sysconf("SC_PAGE_SIZE"),
        "systemd": systemd_runs(host),
        "psi": has_psi(host),
        "free_page_reporting": has_free_page_reporting(host),
        "disk": disk_facts(host, mount),
        "filesystem": {"type": mount.fstype, "mount_point": mount.path} if mount else None,
    }


def has_free_page_reporting(host: Host) -> bool | None:
    """Return whether this guest returns freed memory to its hypervisor; None under Hyper-V, which does not report it.

    Then a load pays for the same memory again: its first touch faults in the hypervisor too, huge page or not
    (Documentation/mm/free_page_reporting.rst).
    """
    for name in host.names(VIRTIO_DEVICES):
        folder = f"{VIRTIO_DEVICES}/{name}"
        # `features` is one character a bit, the lowest first (drivers/virtio/virtio.c, features_show).
        features = (host.read_or_none(f"{folder}/features") or "").strip()
        is_balloon = (host.read_or_none(f"{folder}/device") or "").strip() == _BALLOON
        if is_balloon and features[_REPORTING_BIT : _REPORTING_BIT + 1] == "1":
            return True
    return None if host.exists("/sys/bus/vmbus/drivers/hv_balloon") else False


def mount_of(entries: list[MountEntry], path: str) -> MountEntry | None:
    """Return the mount that a path lies on: the deepest mount point above it, of stacked ones the last."""
    above = {str(parent) for parent in (PurePosixPath(path), *PurePosixPath(path).parents)}
    found = [entry for entry in entries if entry.path in above]
    return max(reversed(found), key=lambda entry: len(entry.path), default=None)


def disk_facts(host: Host, mount: MountEntry | None) -> dict[str, Any] | None:
    """Return the block device under a mount; None without a local disk (tmpfs, overlay, network)."""
    device = _device_under(host, mount) if mount else None
    if device is None:
        return None
    folder = f"/sys/class/block/{device}"
    if not host.exists(folder):
        return None
    # A partition has no queue of its own; its disk is the folder above it.
    disk = folder if host.exists(f"{folder}/queue") else f"{folder}/.."
    rotational = host.read_or_none(f"{disk}/queue/rotational")
    read_ahead = (host.read_or_none(f"{disk}/queue/read_ahead_kb") or "").strip()
    model = (host.read_or_none(f"{disk}/device/model") or "").strip()
    return {
        "device": device,
        "model": model or None,
        "rotational": None if rotational is None else rotational.strip() == "1",
        "read_ahead_bytes": int(read_ahead) * 1024 if read_ahead.isdecimal() else None,
    }


def _device_under(host: Host, mount: MountEntry) -> str | None:
    """Return the kernel's name of a mount's device, by its number: the source may not exist (`/dev/root`).

    By the source where the number is not a block device's, as on btrfs.
    """
    numbered = host.path(f"/sys/dev/block/{mount.device}")
    if numbered.exists():
        return PurePosixPath(os.path.realpath(numbered)).name
    if not mount.source.startswith("/dev/"):
        return None
    # /dev/mapper/NAME and /dev/disk/by-* are links to the kernel's own name.
    return PurePosixPath(os.path.realpath(host.path(mount.source)) if host.is_live else mount.source).name
