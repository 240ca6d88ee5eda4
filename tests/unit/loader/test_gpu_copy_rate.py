"""The copy-rate script with a stand-in for torch, whose clock says how long a copy takes."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import pytest

from files import gpu_copy_rate

MIB = 1 << 20


class Clock:
    ms = 0.0


class Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = Clock.ms

    def elapsed_time(self, end: Event) -> float:
        return end.at - self.at


class Tensor:
    def __init__(self, size: int, pinned: bool) -> None:
        self.size, self.pinned = size, pinned

    def fill_(self, value: int) -> Tensor:
        assert value
        return self

    def numel(self) -> int:
        return self.size

    def split(self, piece: int) -> list[Tensor]:
        return [Tensor(min(piece, self.size - at), self.pinned) for at in range(0, self.size, piece)]

    def __getitem__(self, part: slice) -> Tensor:
        assert part.stop <= self.size
        return Tensor(part.stop, self.pinned)

    def copy_(self, source: Tensor, non_blocking: bool) -> None:
        assert source.size == self.size
        Clock.ms += self.size / MIB / (50 if source.pinned else 10)


def fake_torch(devices: int, fails: tuple[int, ...] = ()) -> Any:
    current: list[int] = []

    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        def __enter__(self) -> None:
            current.append(self.index)

        def __exit__(self, *_: object) -> None:
            current.pop()

    def empty(size: int, dtype: str, device: object = None, pin_memory: bool = False) -> Tensor:
        if current[-1] in fails:
            raise RuntimeError("CUDA out of memory.\nmore text")
        return Tensor(size, pin_memory)

    cuda = types.SimpleNamespace(
        is_available=lambda: devices > 0,
        device_count=lambda: devices,
        device=Device,
        synchronize=lambda device: None,
        Event=Event,
    )
    return types.SimpleNamespace(cuda=cuda, empty=empty, uint8="uint8", device=lambda kind, index: (kind, index))


def output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], torch: Any, *args: str) -> Any:
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(sys, "argv", ["gpu_copy_rate.py", *args])
    gpu_copy_rate.main()
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    return json.loads(printed.out)["devices"], printed.err


def test_rates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    devices, errors = output(monkeypatch, capsys, fake_torch(2), "--mebibytes", "100", "--piece-mebibytes", "64")
    assert errors == ""
    assert [device["index"] for device in devices] == [0, 1]
    for device in devices:
        assert device["bytes"] == 100 * MIB
        assert device["pinned_bytes_per_s"] == pytest.approx(50_000 * MIB)
        assert device["pageable_bytes_per_s"] == pytest.approx(10_000 * MIB)


def test_no_device(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(monkeypatch, capsys, fake_torch(0)) == ([], "")


def test_a_full_device_has_null_rates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    devices, errors = output(monkeypatch, capsys, fake_torch(2, fails=(1,)), "--mebibytes", "1")
    assert devices[0]["pinned_bytes_per_s"] is not None
    assert (devices[1]["pinned_bytes_per_s"], devices[1]["pageable_bytes_per_s"]) == (None, None)
    assert errors == "device 1: CUDA out of memory.\n" * 2


def test_no_torch_and_bad_sizes_end_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        output(monkeypatch, capsys, None)
    assert ended.value.code == 1
    assert "run it with the Python that has torch" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        output(monkeypatch, capsys, fake_torch(1), "--repeats", "0")
    assert ended.value.code == 2
