"""The event protocol: whatever comes down the pipe is checked events or one ProtocolError."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from ansible.module_utils.slm_baseline.measuring.loader import events as loader_events
from ansible.module_utils.slm_baseline.measuring.loader.events import PHASES, Events, LoaderGpu, ProtocolError, phases
from hypothesis import given
from hypothesis import strategies as st

NOW_NS = 10**12


def event(name: str, t_ns: int, /, **more: Any) -> bytes:
    counters = {"read_bytes": t_ns, "minor_faults": 2, "major_faults": 1, "cpu_user_s": 0.5, "cpu_system_s": 0.1}
    return json.dumps({**counters, "event": name, "t_ns": t_ns, **more}).encode() + b"\n"


def held(t_ns: int, **more: Any) -> bytes:
    memory = dict.fromkeys(("rss_bytes", "vsz_bytes", "uss_bytes", "pss_bytes"), 1)
    facts = {"device": "cpu", "dtype": "bfloat16", "parameters": 1, "gpu": None, "software": {}}
    return event("held", t_ns, **{"memory": memory, **facts, **more})


def stream() -> bytes:
    before = b"".join(event(name, 100 * (index + 1)) for index, name in enumerate(PHASES[:-1]))
    return before + held(710) + event("resumed", 900) + event("second_token", 950) + event("done", 960)


def test_phases_tile_the_time_but_for_the_hold() -> None:
    events = Events(spawn_ns=10)
    events.feed(stream())
    assert events.missing() == []
    found = phases(events)
    assert [phase.seconds * 1e9 for phase in found] == pytest.approx([90, 100, 100, 100, 100, 100, 100, 50])
    assert found[1].read_bytes == 100


@given(st.integers(1, 64))
def test_pieces_of_any_size_make_the_same_events(size: int) -> None:
    data, events = stream(), Events(0)
    names = [name for at in range(0, len(data), size) for name in events.feed(data[at : at + size])]
    assert names == [*PHASES[:-1], "held", "resumed", "second_token", "done"]


@given(st.binary(max_size=300))
def test_bytes_are_events_or_a_protocol_error(data: bytes) -> None:
    events = Events(0)
    try:
        names = events.feed(data + b"\n")
    except ProtocolError:
        return
    assert names == []


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_a_field_of_any_type_is_taken_or_refused(value: Any) -> None:
    for field in ("t_ns", "read_bytes", "minor_faults", "cpu_user_s"):
        line = event("interpreter", 5, **{field: value})
        is_ahead = field == "t_ns" and is_number(value) and value > NOW_NS
        with mock.patch.object(loader_events, "time", SimpleNamespace(monotonic_ns=lambda: NOW_NS)):
            if is_number(value) and (isinstance(value, int) or field == "cpu_user_s") and not is_ahead:
                assert Events(0).feed(line) == ["interpreter"]
            elif not (value is None and field == "read_bytes"):
                with pytest.raises(ProtocolError, match=field):
                    Events(0).feed(line)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**63


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"memory": None}, "memory"),
        ({"memory": {"rss_bytes": -1}}, "rss_bytes"),
        ({"device": 3}, "device"),
        ({"gpu": "none"}, "gpu"),
        ({"gpu": [1]}, "gpu 1, not one with a name"),
        ({"gpu": [{}]}, "gpu {}, not one with a name"),
        ({"gpu": [{"index": 0, "name": None}]}, "not one with a name"),
        ({"gpu": [{"name": "H100"}]}, "index None"),
        ({"gpu": [{"index": True, "name": "H100"}]}, "index True"),
        ({"gpu": [{"index": 0, "name": "H100", "reserved_bytes": "many"}]}, "reserved_bytes 'many'"),
        ({"software": []}, "software"),
        ({"software": {"torch": [2, 5]}}, r"software \[2, 5\], not a line of text"),
        ({"software": {"torch": "2\ud800"}}, "software '2.ud800', not a line of text"),
        ({"software": {"\udcff": "2"}}, "not a line of text"),
        ({"device": "cpu\ud800"}, "device"),
        ({"dtype": "x" * 201}, "dtype"),
        ({"gpu": [{"index": 0, "name": "H\ud800"}]}, "gpu name"),
        ({"gpu": [{"index": 0, "name": "H100", "uuid": 7}]}, "gpu uuid 7"),
        ({"parameters": -1}, "parameters"),
    ],
)
def test_a_held_event_that_lacks_something_names_it(more: dict[str, Any], word: str) -> None:
    events = Events(0)
    events.feed(b"".join(event(name, 1) for name in PHASES[:-1]))
    with pytest.raises(ProtocolError, match=word):
        events.feed(held(2, **more))


def test_gpus_are_taken_as_the_loader_tells_them() -> None:
    gpu = [{"index": 1, "name": "H100", "uuid": "GPU-1", "allocated_bytes": 5, "reserved_bytes": None, "new": 1}]
    events = Events(0)
    events.feed(b"".join(event(name, 1) for name in PHASES[:-1]) + held(2, gpu=gpu))
    assert events.report is not None
    assert events.report.gpus == (LoaderGpu(1, "H100", "GPU-1", 5),)


def test_unknown_bytes_read_stay_unknown() -> None:
    events = Events(0)
    events.feed(event("interpreter", 1, read_bytes=None) + event("import_torch", 2))
    assert [phase.read_bytes for phase in phases(events)] == [None, None]


def test_an_event_before_the_spawn_or_twice_is_refused() -> None:
    with pytest.raises(ProtocolError, match="earlier"):
        Events(100).feed(event("interpreter", 99))
    with pytest.raises(ProtocolError, match="import_torch was due"):
        Events(0).feed(event("interpreter", 1) * 2)


@pytest.mark.parametrize("counter", ["read_bytes", "minor_faults", "major_faults", "cpu_user_s", "cpu_system_s"])
def test_a_counter_that_goes_back_is_refused(counter: str) -> None:
    events = Events(0)
    events.feed(event("interpreter", 1, **{counter: 9}))
    with pytest.raises(ProtocolError, match=f"import_torch has {counter} 3.*, less than the 9"):
        events.feed(event("import_torch", 2, **{counter: 3}))


def test_a_time_ahead_of_the_clock_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"event interpreter has t_ns \d+, \d+ ns ahead of the clock"):
        Events(0).feed(event("interpreter", 2**63 - 1))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ProtocolError):
        Events(0).feed(b"[" * 100_000 + b"\n")
