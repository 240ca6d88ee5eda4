import enum
from pathlib import Path

class TestOutcome(enum.Enum):
    SURVIVED = "survived"
    KILLED = "killed"
    INCOMPETENT = "incompetent"

class WorkResult:
    test_outcome: TestOutcome | None
    diff: str | None

class MutationSpec:
    module_path: Path
    operator_name: str
    occurrence: int
    start_pos: tuple[int, int]
    end_pos: tuple[int, int]

class WorkItem:
    mutations: tuple[MutationSpec, ...]
