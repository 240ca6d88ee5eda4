"""The loader's event protocol as the observer reads it: lines of JSON in, checked events and phases out.

The loader runs a model's code and is not trusted: whatever it writes becomes checked events or one ProtocolError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
_FAULTS = ("minor_faults", "major_faults")
_MEMORY = ("rss_bytes", "vsz_bytes", "uss_bytes", "pss_bytes")
_GPU_MEMORY = ("allocated_bytes", "reserved_bytes", "peak_allocated_bytes")
MAX_LINE_BYTES = 1 << 20


class ProtocolError(Exception):
    """What the loader wrote is not the protocol; the message says in plain words where."""


@dataclass(frozen=True)
class Mark:
    """The end of one phase: monotonic instant, and counters since process start.

    `read_bytes` is None where the kernel does not tell it.
    """

    t_ns: int
    read_bytes: int | None = 0
    minor_faults: int = 0
    major_faults: int = 0
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0


@dataclass
class Events:
    """The events of one loader run so far, in the protocol's order.

    `spawn_ns` is when the observer started the process; no event can be earlier.
    """

    spawn_ns: int
    marks: dict[str, Mark] = field(default_factory=dict)
    held: dict[str, Any] | None = None
    _rest: bytes = b""

    def feed(self, data: bytes) -> list[str]:
        """Take bytes from the pipe; names of the events that they completed, unknown ones left out."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ProtocolError("a line on the events pipe is longer than 1 MiB")
        return [name for line in lines if (name := self._take(line))]

    def missing(self, until: str = "done") -> list[str]:
        """Events that the protocol wants, up to and with `until`, and that have not come."""
        wanted = _ORDER[: _ORDER.index(until) + 1]
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
        due = next((known for known in _ORDER if known not in self.marks), None)
        if name != due:
            raise ProtocolError(f"event {name} came where {due or 'nothing more'} was due")
        self.marks[name] = self._mark(name, event)
        if name == "held":
            self.held = _checked_held(event)
        return name

    def _mark(self, name: str, event: Mapping[str, Any]) -> Mark:
        t_ns = _whole(name, event, "t_ns")
        earliest = max([self.spawn_ns, *(mark.t_ns for mark in self.marks.values())])
        if t_ns < earliest:
            raise ProtocolError(f"event {name} is {earliest - t_ns} ns earlier than what came before it")
        if name not in PHASES:
            return Mark(t_ns)
        return Mark(
            t_ns,
            read_bytes=None if event.get("read_bytes") is None else _whole(name, event, "read_bytes"),
            minor_faults=_whole(name, event, "minor_faults"),
            major_faults=_whole(name, event, "major_faults"),
            cpu_user_s=_seconds(name, event, "cpu_user_s"),
            cpu_system_s=_seconds(name, event, "cpu_system_s"),
        )


def phases(events: Events) -> list[dict[str, Any]]:
    """The phases that ended, each with its own seconds and counters; what lies between held and resumed in none."""
    rows = []
    before = Mark(events.spawn_ns)
    for name in PHASES:
        mark = events.marks.get(name)
        if mark is None:
            break
        # The second token starts when the observer lets go; counters go on from the first token.
        start_ns = events.marks["resumed"].t_ns if name == "second_token" else before.t_ns
        cpu_s = mark.cpu_user_s + mark.cpu_system_s - before.cpu_user_s - before.cpu_system_s
        rows.append(
            {
                "name": name,
                "seconds": (mark.t_ns - start_ns) / 1e9,
                "read_bytes": read_between(before, mark),
                **{counter: getattr(mark, counter) - getattr(before, counter) for counter in _FAULTS},
                "cpu_s": cpu_s,
            }
        )
        before = mark
    return rows


def read_between(before: Mark, after: Mark) -> int | None:
    """Bytes read from storage between two marks; None where either does not know."""
    if before.read_bytes is None or after.read_bytes is None:
        return None
    return after.read_bytes - before.read_bytes


def _checked_held(event: Mapping[str, Any]) -> dict[str, Any]:
    """What the loader says of itself while it holds the model: memory, device, dtype, GPUs, software."""
    memory = event.get("memory")
    if not isinstance(memory, dict):
        raise ProtocolError("event held carries no memory reading")
    held: dict[str, Any] = {"memory": {name: _whole("held", memory, name) for name in _MEMORY}}
    for name, kinds in (("device", str), ("dtype", str), ("parameters", int), ("software", dict)):
        if not isinstance(event.get(name), kinds):
            raise ProtocolError(f"event held has no {name}")
        held[name] = event[name]
    gpu = event.get("gpu")
    if gpu is not None and not isinstance(gpu, list):
        raise ProtocolError("event held has a gpu that is neither null nor a list")
    held["gpu"] = None if gpu is None else [_checked_gpu(device) for device in gpu]
    return held


def _checked_gpu(device: object) -> dict[str, Any]:
    """A device as torch tells it; its memory may be unknown."""
    if not isinstance(device, dict) or not isinstance(device.get("name"), str):
        raise ProtocolError(f"event held has a gpu {_shown(device)}, not one with a name")
    _whole("held", device, "index")
    for name in _GPU_MEMORY:
        if device.get(name) is not None:
            _whole("held", device, name)
    return device


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
