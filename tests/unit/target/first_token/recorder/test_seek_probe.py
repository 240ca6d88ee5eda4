"""Whether a disk has to seek, by what its reads take."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.plan import PlanFile
from ansible.module_utils.slm_baseline.first_token.recorder import record
from ansible.module_utils.slm_baseline.first_token.recorder.fanotify import Opened, Seen
from ansible.module_utils.slm_baseline.first_token.recorder.seek_probe import (
    LEAST_BYTES,
    READS,
    disk_seeks,
    random_reads_s,
)
from ansible.module_utils.slm_baseline.host.deadline import Deadline


def plan_file(size_bytes: int, path: str = "/model") -> PlanFile:
    return PlanFile(path, True, 1, size_bytes, 1)


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [([8.0] * READS, True), ([0.1] * READS, False), ([0.1] * 10 + [20.0] * 5, False), ([8.0] * 10 + [0.1] * 5, True)],
)
def test_the_median_read_decides(milliseconds: list[float], expected: bool) -> None:
    times = [each / 1000 for each in milliseconds]
    assert disk_seeks([plan_file(1, "/small"), plan_file(LEAST_BYTES)], lambda file: times) is expected


def test_the_largest_file_is_asked() -> None:
    asked: list[str] = []

    def read_s(file: PlanFile) -> list[float]:
        asked.append(file.path)
        return [1.0]

    disk_seeks([plan_file(LEAST_BYTES, "/a"), plan_file(2 * LEAST_BYTES, "/b")], read_s)
    assert asked == ["/b"]


def test_what_cannot_be_told_is_no_seek(tmp_path: Path) -> None:
    assert disk_seeks([]) is False
    assert disk_seeks([plan_file(LEAST_BYTES - 1)], lambda file: [1.0]) is False
    assert disk_seeks([plan_file(LEAST_BYTES, str(tmp_path / "gone"))]) is False


def test_each_read_of_a_real_file_is_timed(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"x" * LEAST_BYTES)
    try:
        times = random_reads_s(plan_file(LEAST_BYTES, str(path)))
    except OSError:
        pytest.skip("this file system has no O_DIRECT")
    assert len(times) == READS
    assert all(0 < each < 60 for each in times)


def test_a_plan_says_what_its_disk_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen({str(tmp_path): Opened(str(tmp_path), True)})
    monkeypatch.setattr(record, "disk_seeks", lambda files: True)
    assert record.plan_of(seen, [], started_ns=2, deadline=Deadline.after(60)).plan.facts["spinning"] == "1"
    monkeypatch.setattr(record, "disk_seeks", lambda files: False)
    assert record.plan_of(seen, [], started_ns=2, deadline=Deadline.after(60)).plan.facts["spinning"] == "0"
