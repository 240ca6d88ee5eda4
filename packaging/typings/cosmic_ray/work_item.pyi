from pathlib import Path

class MutationSpec:
    module_path: Path
    operator_name: str
    occurrence: int
    start_pos: tuple[int, int]
    end_pos: tuple[int, int]

class WorkItem:
    mutations: tuple[MutationSpec, ...]
