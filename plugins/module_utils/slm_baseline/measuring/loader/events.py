"""The observer's side of the loader's event protocol: lines of JSON in, checked events and phases out.

The loader runs a model's code and is not trusted: whatever it writes becomes checked events or one ProtocolError.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

PHASES = (
    "interpreter",
    "import_torch",
    "import_transformers",
    "device_ready",
    "tokenizer",
    "weights",
    "first_token",
    "second_token",
)
_ORDER = (*PHASES[:-1], "held", "resumed", PHASES[-1], "done")
FORKED_ORDER = _ORDER[_ORDER.index("tokenizer") :]
"""Phases of a template's child: it begins where the tokenizer is ready, and earlier time is not counted."""
_COUNTERS = ("read_bytes", "minor_faults", "major_faults", "cpu_user_s", "cpu_system_s")
_LONGEST_WORDS = 200
_LONGEST_PATH = 4096
_MOST_FILES = 10_000
_MOST_NAMES = 8
_MOST_TOKENS = 100_000
_LATE_NS = 1_000_000_000
"""How late the observer may learn that a program was executed, on a host whose CPUs are all busy."""
MAX_LINE_BYTES = 1 << 20


class ProtocolError(Exception):
    """The loader's output breaks the protocol; the message says where in plain words."""


@dataclass(frozen=True)
class Mark:
    """The end of one phase: monotonic instant, and counters since process start.

    `read_bytes` is None where the kernel does not report it.
    """

    t_ns: int
    read_bytes: int | None = 0
    minor_faults: int = 0
    major_faults: int = 0
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0


@dataclass(frozen=True)
class Phase:
    """One phase with its own seconds and counters. `read_bytes` is None where the kernel does not report it."""

    name: str
    seconds: float
    read_bytes: int | None
    minor_faults: int
    major_faults: int
    cpu_s: float


@dataclass(frozen=True)
class LoaderMemory:
    """The loader's memory in bytes as psutil reports it."""

    rss_bytes: int
    vsz_bytes: int
    uss_bytes: int
    pss_bytes: int


@dataclass(frozen=True)
class LoaderGpu:
    """A CUDA device as torch sees it; bytes are those of torch's allocator, None where torch does not report them."""

    index: int
    name: str
    uuid: str | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    peak_allocated_bytes: int | None = None


@dataclass(frozen=True)
class Names:
    """Some names of tensors: how many there are, and the first few."""

    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Loaded:
    """What a loader holds of which file, elements of tensors.

    `class_name` is the model's class. `stored_elements` counts all that the opened files hold, `parameters` what the
    model holds, each tied name once, `buffer_elements` its persistent buffers. `tied` are further names of parameters,
    `stored_twice` those of them that the files hold as well, `unplaced` stored names for which the class has no place.
    `quantization` is the quantiser's name. `is_cached` says whether decoding keeps a cache between tokens.
    """

    class_name: str
    stored_elements: int
    parameters: int
    buffer_elements: int
    tied: Names
    stored_twice: Names
    unplaced: Names
    unplaced_elements: int
    quantization: str | None
    is_cached: bool


@dataclass(frozen=True)
class LoaderReport:
    """What the loader reports of itself while it holds the model. `software` has versions by package.

    `files` are the real paths of the weight files that it has opened.
    """

    memory: LoaderMemory
    device: str
    dtype: str
    parameters: int
    software: dict[str, str]
    gpus: tuple[LoaderGpu, ...]
    files: tuple[str, ...] = ()
    loaded: Loaded | None = None


@dataclass
class Events:
    """The events of one loader run so far, in the protocol's order.

    `spawn_ns` is when the observer started the process, or let a template's child begin; no event can be earlier. Of a
    loader in a container, it is when its program was executed there (`begin`), and `container_start_s` is what that
    took. `report` comes with the event `held`. `tokens_s`, which comes with `done`, are the seconds of each token from
    the second on.
    """

    spawn_ns: int
    marks: dict[str, Mark] = field(default_factory=dict)
    report: LoaderReport | None = None
    order: tuple[str, ...] = _ORDER
    tokens_s: tuple[float, ...] = ()
    container_start_s: float | None = None
    _rest: bytes = b""

    def begin(self, t_ns: int) -> None:
        """Begin the clock anew at this instant, at which the loader's program was executed in its container."""
        self.container_start_s = (t_ns - self.spawn_ns) / 1e9
        self.spawn_ns = t_ns

    @property
    def is_executed(self) -> bool:
        """Return whether the clock was begun anew."""
        return self.container_start_s is not None

    @property
    def last(self) -> Mark:
        """Return the last mark with counters; the beginning where there is none."""
        return next((mark for mark in reversed(self.marks.values()) if mark.cpu_user_s), Mark(self.spawn_ns))

    @property
    def is_forked(self) -> bool:
        """Return whether a template's child writes them."""
        return self.order == FORKED_ORDER

    @property
    def beginning(self) -> Mark:
        """Return the mark from which a sample's counters count: the process's start, or that of a forked child."""
        return self.marks.get("tokenizer", Mark(self.spawn_ns)) if self.is_forked else Mark(self.spawn_ns)

    def feed(self, data: bytes) -> list[str]:
        """Parse bytes from the pipe; return the names of the events that they completed, without unknown ones."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ProtocolError("a line on the events pipe is longer than 1 MiB")
        return [name for line in lines if (name := self._take(line))]

    def missing(self, until: str = "done") -> list[str]:
        """Return the events that the protocol requires, up to and with `until`, and that are missing."""
        wanted = self.order[: self.order.index(until) + 1]
        return [name for name in wanted if name not in self.marks]

    def _take(self, line: bytes) -> str | None:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            raise ProtocolError(f"the events pipe carried {_shown(line)} where a JSON object was due") from None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise ProtocolError(f"the events pipe carried {_shown(line)}, which names no event")
        name: str = event["event"]
        if name not in _ORDER:
            return None
        due = next((known for known in self.order if known not in self.marks), None)
        if name != due:
            raise ProtocolError(f"event {name} came where {due or 'nothing more'} was due")
        self.marks[name] = self._mark(name, event)
        if name == "held":
            self.report = _report(event)
        if name == "done":
            self.tokens_s = self._tokens(event)
        return name

    def _tokens(self, event: Mapping[str, Any]) -> tuple[float, ...]:
        """Return each token's seconds from its instants, which lie between the end of the hold and that of the run."""
        instants = event.get("tokens_ns", [])
        if not isinstance(instants, list) or len(instants) > _MOST_TOKENS:
            raise ProtocolError(f"event done has tokens_ns {_shown(instants)}, not a list of instants")
        before, seconds = self.marks["resumed"].t_ns, []
        for instant in instants:
            at = _whole("done", {"tokens_ns": instant}, "tokens_ns")
            if not before <= at <= self.marks["done"].t_ns:
                raise ProtocolError(f"event done has a token at {at}, before the one before it or after the end")
            seconds.append((at - before) / 1e9)
            before = at
        return tuple(seconds)

    def _mark(self, name: str, event: Mapping[str, Any]) -> Mark:
        t_ns = _whole(name, event, "t_ns")
        if not self.marks and self.container_start_s is not None and 0 < self.spawn_ns - t_ns < _LATE_NS:
            # The observer was woken late, and the interpreter is quick: the loader's own instant is the closer one.
            self.container_start_s -= (self.spawn_ns - t_ns) / 1e9
            self.spawn_ns = t_ns
        earliest = max([self.spawn_ns, *(mark.t_ns for mark in self.marks.values())])
        if t_ns < earliest:
            raise ProtocolError(f"event {name} is {earliest - t_ns} ns earlier than what came before it")
        latest = time.monotonic_ns()
        if t_ns > latest:
            raise ProtocolError(f"event {name} has t_ns {t_ns}, {t_ns - latest} ns ahead of the clock")
        if name not in (*PHASES, "done"):
            return Mark(t_ns)
        mark = Mark(
            t_ns,
            read_bytes=None if event.get("read_bytes") is None else _whole(name, event, "read_bytes"),
            minor_faults=_whole(name, event, "minor_faults"),
            major_faults=_whole(name, event, "major_faults"),
            cpu_user_s=_seconds(name, event, "cpu_user_s"),
            cpu_system_s=_seconds(name, event, "cpu_system_s"),
        )
        before = next((self.marks[phase] for phase in reversed(PHASES) if phase in self.marks), Mark(self.spawn_ns))
        for counter in _COUNTERS:
            now, then = getattr(mark, counter), getattr(before, counter)
            if now is not None and then is not None and now < then:
                raise ProtocolError(f"event {name} has {counter} {now}, less than the {then} before it")
        return mark


def phases(events: Events) -> tuple[Phase, ...]:
    """Return the phases that ended, less the time between held and resumed. A forked child's begin with its weights."""
    found = []
    before = events.beginning
    for name in PHASES[PHASES.index("weights") :] if events.is_forked else PHASES:
        mark = events.marks.get(name)
        if mark is None:
            break
        # The second token starts when the observer resumes the loader; counters continue from the first token.
        start_ns = events.marks["resumed"].t_ns if name == "second_token" else before.t_ns
        found.append(
            Phase(
                name=name,
                seconds=(mark.t_ns - start_ns) / 1e9,
                read_bytes=read_between(before, mark),
                minor_faults=mark.minor_faults - before.minor_faults,
                major_faults=mark.major_faults - before.major_faults,
                cpu_s=mark.cpu_user_s + mark.cpu_system_s - before.cpu_user_s - before.cpu_system_s,
            )
        )
        before = mark
    return tuple(found)


def read_between(before: Mark, after: Mark) -> int | None:
    """Return bytes read from storage between two marks; None where either is unknown."""
    if before.read_bytes is None or after.read_bytes is None:
        return None
    return after.read_bytes - before.read_bytes


def _report(event: Mapping[str, Any]) -> LoaderReport:
    memory = event.get("memory")
    if not isinstance(memory, dict):
        raise ProtocolError("event held carries no memory reading")
    software = event.get("software")
    if not isinstance(software, dict):
        raise ProtocolError("event held has no software")
    gpus = event.get("gpu")
    if gpus is not None and not isinstance(gpus, list):
        raise ProtocolError("event held has a gpu that is neither null nor a list")
    return LoaderReport(
        memory=LoaderMemory(**{each.name: _whole("held", memory, each.name) for each in fields(LoaderMemory)}),
        device=_words("device", event.get("device")),
        dtype=_words("dtype", event.get("dtype")),
        parameters=_whole("held", event, "parameters"),
        software={_words("software", name): _words("software", version) for name, version in software.items()},
        gpus=tuple(_gpu(device) for device in gpus or ()),
        **_loaded(event),
    )


def _loaded(event: Mapping[str, Any]) -> dict[str, Any]:
    """Parse what the model holds of which file; return nothing for a loader that does not report it."""
    told = event.get("loaded")
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise ProtocolError(f"event held has loaded {_shown(told)}, not an object")
    files = told.get("files")
    if not isinstance(files, list) or len(files) > _MOST_FILES:
        raise ProtocolError(f"event held has files {_shown(files)}, not a list of paths")
    if not all(isinstance(path, str) and len(path) <= _LONGEST_PATH for path in files):
        raise ProtocolError("event held has a file that is no path")
    quantization = told.get("quantization")
    loaded = Loaded(
        class_name=_words("class", told.get("class")),
        stored_elements=_whole("held", told, "stored_elements"),
        parameters=_whole("held", event, "parameters"),
        buffer_elements=_whole("held", told, "buffer_elements"),
        tied=_names(told, "tied"),
        stored_twice=_names(told, "stored_twice"),
        unplaced=_names(told, "unplaced"),
        unplaced_elements=_whole("held", told, "unplaced_elements"),
        quantization=None if quantization is None else _words("quantization", quantization),
        is_cached=told.get("is_cached") is True,
    )
    return {"files": tuple(files), "loaded": loaded}


def _names(told: Mapping[str, Any], key: str) -> Names:
    names = told.get(key)
    if not isinstance(names, dict) or not isinstance(names.get("names"), list):
        raise ProtocolError(f"event held has {key} {_shown(names)}, not a count and names")
    return Names(_whole("held", names, "count"), tuple(_words(key, name) for name in names["names"][:_MOST_NAMES]))


def _gpu(device: object) -> LoaderGpu:
    if not isinstance(device, dict) or not isinstance(device.get("name"), str):
        raise ProtocolError(f"event held has a gpu {_shown(device)}, not one with a name")
    name = _words("gpu name", device["name"])
    uuid = device.get("uuid")
    memory = {
        each: None if device.get(each) is None else _whole("held", device, each)
        for each in ("allocated_bytes", "reserved_bytes", "peak_allocated_bytes")
    }
    return LoaderGpu(
        _whole("held", device, "index"), name, None if uuid is None else _words("gpu uuid", uuid), **memory
    )


def _words(name: str, value: object) -> str:
    """Return a short text that every document can hold, without lone surrogates and control characters."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > _LONGEST_WORDS:
        raise ProtocolError(f"event held has {name} {_shown(value)}, not a line of text")
    return value


def _whole(name: str, event: Mapping[str, Any], key: str) -> int:
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ProtocolError(f"event {name} has {key} {_shown(value)}, not a whole number")
    return value


def _seconds(name: str, event: Mapping[str, Any], key: str) -> float:
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        raise ProtocolError(f"event {name} has {key} {_shown(value)}, not a number of seconds")
    return float(value)


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
