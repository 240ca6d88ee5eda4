import enum
from contextlib import AbstractContextManager

from cosmic_ray.work_item import WorkItem

class WorkDB:
    class Mode(enum.Enum):
        create = 1
        open = 2

    @property
    def work_items(self) -> list[WorkItem]: ...

def use_db(path: str, mode: WorkDB.Mode) -> AbstractContextManager[WorkDB]: ...
