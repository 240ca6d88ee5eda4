"""Dropping the page cache of the whole host."""

from __future__ import annotations

import os

from .errors import os_problem
from .files import Host

DROP_CACHES = "/proc/sys/vm/drop_caches"


def drop_host_caches(host: Host) -> None:
    """Run `sync`, then drop the host's page cache, dentries and inodes (Documentation/admin-guide/sysctl/vm.rst)."""
    os.sync()
    try:
        host.write_kernel(DROP_CACHES, "3")
    except OSError as error:
        raise os_problem("drop_caches", "3", error) from error
