"""What an attack is, and how each list of attacks is made: by a decorator over what is done in its world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

World = TypeVar("World")


@dataclass(frozen=True)
class Attack(Generic[World]):
    """One attack: who does what, and what must hold beside what always must. `spares` is what it may leave down."""

    name: str
    who: str
    does: str
    holds: str
    run: Callable[[World], None]
    spares: bool = False


class Attacks(Generic[World]):
    """The decorator of one list of attacks, and the list."""

    def __init__(self) -> None:
        self.all: list[Attack[World]] = []

    def __call__(
        self, name: str, who: str, does: str, holds: str, spares: bool = False
    ) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
        def register(run: Callable[[World], None]) -> Callable[[World], None]:
            self.all.append(Attack(name, who, does, holds, run, spares))
            return run

        return register
