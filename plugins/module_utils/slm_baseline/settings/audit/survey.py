"""A wanted tuning against a host, read once.

What setters, snapshots and facts need besides is in other files: a host compiles all that an audit imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...host.files import Host
from ..kernel.hugetlb import default_page_bytes
from ..kinds.registry import Wanted, values_of
from .conflicts import Conflict, find_conflicts
from .drift import drift_rows


def competitors_of(host: Host, wanted: Wanted) -> list[Conflict]:
    """Other writers of the wanted knobs. Looks through every place that could hold one: once a module is enough."""
    return find_conflicts(host, values_of(wanted), default_page_bytes(host))


def judge(host: Host, wanted: Wanted, competitors: Sequence[Conflict], tolerate: bool = False) -> dict[str, Any]:
    """The wanted tuning against this host: `rows` and `competitors`, JSON-ready. Tolerated ones make no row drift."""
    return {
        "rows": [asdict(row) for row in drift_rows(host, wanted, () if tolerate else competitors)],
        "competitors": [writer.as_dict() for writer in competitors],
    }
