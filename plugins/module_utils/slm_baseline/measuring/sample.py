"""The sample, one loader run in a wanted state of the page cache, and its conversion to and from JSON.

Fields are described in plugins/schemas/result.schema.json; a test compares these types with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypeVar

from .loader.events import Loaded, Names, Phase
from .loader.replay import Replay, ReplayRecord
from .probes.gpu import GpuProcess, GpuUse
from .probes.noise import Noise

Document = TypeVar("Document")
_MOST = 2**63


class NotASample(Exception):
    """A stored document does not match its type; the message names the field."""


@dataclass(frozen=True)
class Trial:
    """The request for one sample: its place in a run, and what differs between arms.

    `order` is its position within the block, `dtype` the loader's. `settings` are those of the arm, already in force;
    `env` is added to the loader's environment; `replay` reads before or beside the loader.
    """

    block: int
    wanted: str
    order: int = 0
    dtype: str = "auto"
    arm: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    replay: Replay | None = None


@dataclass(frozen=True)
class Sample:
    """One loader run. None where nothing was measured; counters are those at the first token, memory while held."""

    block: int
    wanted: str
    kind: str
    reason: str | None
    started_at: str
    arm: str | None = None
    order: int | None = None
    dtype: str | None = None
    device: str | None = None
    settings: dict[str, str] | None = None
    env: dict[str, str] | None = None
    load_real_s: float | None = None
    time_to_first_token_s: float | None = None
    second_token_s: float | None = None
    steady_token_s: float | None = None
    tokens_s: tuple[float, ...] = ()
    container_start_s: float | None = None
    phases: tuple[Phase, ...] = ()
    resident_before: float | None = None
    resident_at_token: float | None = None
    resident_after: float | None = None
    needed_share: float | None = None
    residency_by: str | None = None
    read_bytes: int | None = None
    read_share: float | None = None
    model_bytes: int | None = None
    rss_bytes: int | None = None
    vsz_bytes: int | None = None
    pss_bytes: int | None = None
    uss_bytes: int | None = None
    anon_bytes: int | None = None
    anon_huge_bytes: int | None = None
    file_pmd_bytes: int | None = None
    shmem_pmd_bytes: int | None = None
    hugetlb_bytes: int | None = None
    swap_bytes: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    cpu_user_s: float | None = None
    cpu_system_s: float | None = None
    vmstat: dict[str, int] | None = None
    gpu: tuple[GpuUse, ...] | None = None
    ceiling_bytes_per_s: float | None = None
    ceiling_share: float | None = None
    noise: Noise | None = None
    exit_code: int | None = None
    signal: str | None = None
    stderr_tail: str | None = None
    replay: ReplayRecord | None = None

    @property
    def is_valid(self) -> bool:
        """Return whether the sample's kind is the wanted one."""
        return self.kind == self.wanted

    @property
    def canary(self) -> dict[str, float] | None:
        """Return the canary's times beside it."""
        return self.noise.canary if self.noise else None

    def to_json(self) -> dict[str, Any]:
        """Return the sample as documents have it."""
        return to_document(self)

    @staticmethod
    def from_json(document: object) -> Sample:
        """Parse what `to_json` returned; NotASample for anything else. Unknown fields are ignored."""
        return read_document(Sample, document)


@dataclass(frozen=True)
class CeilingTrial:
    """One way of reading the model's files: a rate, or the reason why it gave none."""

    how: str
    streams: int
    chunk_bytes: int
    bytes_per_s: float | None
    read_bytes: int
    reason: str | None


@dataclass(frozen=True)
class CeilingRecord:
    """The disk ceiling of one block, or of a run: a rate for each pass, none where it is unknown.

    `guest_cold` says whether a cache below this kernel shows; None where there was no second pass.
    """

    bytes_per_s: tuple[float, ...]
    streams: int | None
    guest_cold: bool | None
    trials: tuple[CeilingTrial, ...] = ()


@dataclass(frozen=True)
class Shared:
    """What a block's samples share; None where nothing was measured.

    `software` has versions by package, `loaded` what the loader held of the model's files. `settings` are those that
    the samples were to run under, by flat name; `fingerprint` identifies them, the subject and the request.
    """

    ceiling: CeilingRecord | None = None
    software: dict[str, str] | None = None
    settings: dict[str, str] | None = None
    fingerprint: str | None = None
    loaded: Loaded | None = None


def failed_sample(trial: Trial, reason: str, started_at: str) -> Sample:
    """Build a sample that measured nothing, and why."""
    return Sample(
        trial.block,
        trial.wanted,
        "failed",
        reason,
        started_at,
        arm=trial.arm,
        order=trial.order,
        settings=dict(trial.settings),
        env=dict(trial.env),
    )


def to_document(value: Any) -> dict[str, Any]:
    """Convert a dataclass of this module to a JSON object."""
    return {name: _plain(item) for name, item in asdict(value).items()}


def _plain(value: Any) -> Any:
    """Convert tuples to lists, as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_document(kind: type[Document], document: object) -> Document:
    """Build a dataclass of this module from a JSON object, each field parsed by its annotation.

    A field without a default is required. Raises NotASample.
    """
    if not isinstance(document, dict):
        raise NotASample(f"{kind.__name__} is {document!r:.60}, not an object")
    values = {}
    for each in fields(kind):  # type: ignore[arg-type]  # every kind that is read is a dataclass
        if each.name in document:
            try:
                values[each.name] = _read(str(each.type), document[each.name])
            except NotASample as error:
                raise NotASample(f"{kind.__name__}.{each.name}: {error}") from None
        elif each.default is MISSING and each.default_factory is MISSING:
            raise NotASample(f"{kind.__name__} has no {each.name}")
    return kind(**values)


def _read(annotation: str, value: object) -> Any:
    """Parse a value by the text of its annotation: Python 3.9 cannot evaluate `int | None`."""
    if annotation.endswith(" | None"):
        return None if value is None else _read(annotation[: -len(" | None")], value)
    if annotation.startswith("tuple["):
        return tuple(_read(annotation[len("tuple[") : -len(", ...]")], item) for item in _list(value))
    if annotation.startswith("dict[str, "):
        return {_text(name): _read(annotation[len("dict[str, ") : -1], item) for name, item in _object(value).items()}
    return _READERS[annotation](value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_MOST <= value < _MOST:
        raise NotASample(f"{value!r:.60} is no whole number")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _MOST or math.isnan(value):
        raise NotASample(f"{value!r:.60} is no number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise NotASample(f"{value!r:.60} is no text")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise NotASample(f"{value!r:.60} is neither true nor false")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise NotASample(f"{value!r:.60} is no list")
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotASample(f"{value!r:.60} is no object")
    return value


_READERS: Mapping[str, Callable[[object], Any]] = {
    "int": _whole,
    "float": _number,
    "str": _text,
    "bool": _flag,
    "Loaded": lambda value: read_document(Loaded, value),
    "Names": lambda value: read_document(Names, value),
    "Phase": lambda value: read_document(Phase, value),
    "Noise": lambda value: read_document(Noise, value),
    "GpuUse": lambda value: read_document(GpuUse, value),
    "GpuProcess": lambda value: read_document(GpuProcess, value),
    "ReplayRecord": lambda value: read_document(ReplayRecord, value),
    "CeilingTrial": lambda value: read_document(CeilingTrial, value),
    "CeilingRecord": lambda value: read_document(CeilingRecord, value),
}
