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
from .conflicts.conflict import Conflict
from .conflicts.find import find_conflicts
from .drift import drift_rows


def conflicts_of(host: Host, wanted: Wanted) -> list[Conflict]:
    """Other writers of the wanted knobs. Looks through every place that could hold one: once a module is enough."""
    return find_conflicts(host, values_of(wanted), default_page_bytes(host))


def judge(host: Host, wanted: Wanted, conflicts: Sequence[Conflict], tolerate: bool = False) -> dict[str, Any]:
    """The wanted tuning against this host, JSON-ready: `rows`, `competitors`, and `possible_writers`.

    Only certain conflicts are competitors and make a row drift, unless they are tolerated; the others are notes.
    """
    certain = [conflict for conflict in conflicts if conflict.certain]
    return {
        "rows": [asdict(row) for row in drift_rows(host, wanted, () if tolerate else certain)],
        "competitors": [conflict.as_dict() for conflict in certain],
        "possible_writers": [conflict.as_dict() for conflict in conflicts if not conflict.certain],
    }
