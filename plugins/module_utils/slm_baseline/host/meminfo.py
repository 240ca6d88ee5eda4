"""/proc/meminfo, of the host and of a NUMA node."""

from __future__ import annotations

import re

from .errors import ParseError
from .files import Host

_LINE = re.compile(r"(?P<name>[^:\s][^:]*):\s+(?P<number>[0-9]{1,19})(?P<unit> kB)?")


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the fields of /proc/meminfo: bytes where the kernel prints kB (in fact KiB), counts where it has none."""
    fields = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if not match:
            raise ParseError("/proc/meminfo", "`Name: number kB`", line)
        fields[match["name"]] = int(match["number"]) * (1024 if match["unit"] else 1)
    return fields


def read_meminfo(host: Host) -> dict[str, int]:
    """Return the host's memory now."""
    return parse_meminfo(host.read("/proc/meminfo"))


def read_node_meminfo(host: Host, node: int) -> dict[str, int]:
    """Return a NUMA node's memory now, from nodeN/meminfo; empty where there is no such node."""
    text = host.read_or_none(f"/sys/devices/system/node/node{node}/meminfo") or ""
    return parse_meminfo("\n".join(line.partition(f"Node {node} ")[2] for line in text.splitlines()))
