"""Which container a process is in, by its control group: each runtime puts the container's id into the path.

`docker-ID.scope`, `libpod-ID.scope`, `cri-containerd-ID.scope` with systemd's driver; `/docker/ID`, `libpod-payload-ID`
(`--cgroups=split`) and others without. `libpod-conmon-ID.scope` has Podman's watcher of the container, which runs on
the host.
"""

from __future__ import annotations

import re

_ID = re.compile(r"(?:^|/)(?!libpod-conmon-)(?:[A-Za-z][A-Za-z-]*-)?([0-9a-f]{64})(?:\.scope)?(?=/|$)")


def container_of(text: str) -> str:
    """Return the id of the innermost container in the text of /proc/PID/cgroup; empty for a process of the host."""
    for line in text.splitlines():
        found = _ID.findall(line.split(":", 2)[-1])
        if found:
            return str(found[-1])
    return ""
