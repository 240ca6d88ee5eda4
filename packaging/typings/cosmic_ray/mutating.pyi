from contextlib import AbstractContextManager
from pathlib import Path

def use_mutation(
    module_path: Path, operator: object, occurrence: int
) -> AbstractContextManager[tuple[str, str | None]]: ...
