"""The sequences that the matrix breaks: a snapshot alone, a first tuning, a changed one, and a rollback of both."""

from __future__ import annotations

from typing import Any

from tests.live.faults.matrix import ROLLBACK, Scenario
from tests.live.faults.modules import Step

PAGES = 8
"""Small, since the memory is the machine's own."""


def _tuning(thp: dict[str, Any], pages: int, surplus: int, mounts: list[dict[str, Any]]) -> list[Step]:
    return [
        Step("thp", thp),
        Step("hugepages", {"pools": [{"size": "2M", "count": pages}], "overcommit": {"2M": surplus}}),
        Step("hugetlbfs", {"mounts": mounts}),
    ]


FIRST = _tuning(
    {"enabled": "never", "defrag": "never"},
    PAGES,
    4,
    [{"path": "/mnt/models/huge", "page_size": "2M", "mode": "0770"}],
)
# One knob dropped, one added, one changed; fewer pages and surplus pages; a mount with other options, a second one.
CHANGED = _tuning(
    {"defrag": "defer", "khugepaged": {"scan_sleep_millisecs": 20000}},
    PAGES - 2,
    3,
    [
        {"path": "/mnt/models/huge", "page_size": "2M", "mode": "0750", "size": "8M"},
        {"path": "/mnt/scratch", "page_size": "2M"},
    ],
)
SNAPSHOT = Step("memory_snapshot", {"mounts": CHANGED[-1].arguments["mounts"]})
NO_MOUNTS = Step("hugetlbfs", {"mounts": []})

SCENARIOS = (
    Scenario("snapshot", [], [SNAPSHOT], [SNAPSHOT]),
    Scenario("longer snapshot", FIRST, [SNAPSHOT], [SNAPSHOT]),
    Scenario("first tuning", [], FIRST, FIRST),
    Scenario("changed tuning", FIRST, CHANGED, CHANGED),
    Scenario("mounts given up", CHANGED, [NO_MOUNTS], [NO_MOUNTS]),
    Scenario("rollback", [*FIRST, *CHANGED], [ROLLBACK], FIRST),
)
