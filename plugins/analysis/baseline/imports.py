"""The imports of a start as a result has them; plugins/schemas/result.schema.json describes the fields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """One top-level package: seconds in its own modules."""

    name: str
    seconds: float
    modules: int


@dataclass(frozen=True)
class Bytecode:
    """Numbers of imported modules with and without bytecode, and what compiling the latter costs each start."""

    valid: int
    missing: int
    stale: int
    unreadable: int
    compiled: int
    saving_s: float

    @property
    def lacking(self) -> int:
        """Return the number of modules that every start compiles again."""
        return self.missing + self.stale + self.unreadable


@dataclass(frozen=True)
class NotRequired:
    """A distribution imported only because it is installed; `importer` is None if a function imports it at run time."""

    distribution: str
    importer: str | None
    seconds: float


@dataclass(frozen=True)
class Imports:
    """The imports of one warm run; `problem` says why there are no times, which are None or empty then."""

    problem: str | None
    seconds: float | None = None
    modules: int | None = None
    packages: tuple[Package, ...] = ()
    bytecode: Bytecode | None = None
    not_required: tuple[NotRequired, ...] = ()
