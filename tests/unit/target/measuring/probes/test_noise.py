"""When a sample is noisy: golden texts of /proc, thresholds, and PSI that is not there."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.probes.noise import (
    Activity,
    busiest,
    has_psi,
    judge_noise,
    parse_cpu_times,
    parse_process_times,
    parse_stalled_us,
    read_activity,
    read_process_times,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import put

STAT = "cpu  1000 10 200 5000 300 5 15 40 7 0\ncpu0 500 5 100 2500 150 2 8 20 3 0\nintr 12345 0 9\n"
PRESSURE = "some avg10=1.10 avg60=0.77 avg300=0.78 total=8507828\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
BEFORE = Activity(0.0, 0.0, 0.0, 0.5, 100.0, {"cpu": 0, "io": 0, "memory": 0})
AFTER = Activity(11.0, 0.1, 20.0, 1.5, 110.0, {"cpu": 500_000, "io": 1_000_000, "memory": 0})


def test_cpu_times_count_a_guest_once() -> None:
    busy, steal, total = parse_cpu_times(STAT, 100)
    assert (busy, steal, total) == pytest.approx((12.3, 0.4, 65.7))


def test_pressure_totals() -> None:
    assert parse_stalled_us(PRESSURE) == 8507828
    with pytest.raises(ParseError):
        parse_stalled_us("full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")


@given(st.text())
def test_any_text_is_a_value_or_a_parse_error(text: str) -> None:
    for parse in (parse_stalled_us, lambda text: parse_cpu_times(text, 100)):
        try:
            parse(text)
        except ParseError:
            continue


def test_a_quiet_host_is_not_noisy_and_tells_its_figures() -> None:
    noise = judge_noise(BEFORE, AFTER, own_cpu_s=10.0)
    assert noise.reasons == ()
    assert not noise.noisy
    assert noise.others_cpu_share == pytest.approx(0.05)
    assert noise.psi == {"cpu_share": 0.05, "io_share": 0.1, "memory_share": 0.0}


@pytest.mark.parametrize(
    ("after", "own", "foreign", "word"),
    [
        (AFTER, 8.0, 0, "other processes used 15% of the CPUs"),
        (replace(AFTER, steal_s=1.0), 10.0, 0, "the hypervisor took 5%"),
        (replace(AFTER, stalled_us={"cpu": 0, "io": 0, "memory": 400_000}), 10.0, 0, "waited for memory 4%"),
        (AFTER, 10.0, 2, "2 other process(es) on the GPU"),
    ],
)
def test_each_disturbance_has_its_reason(after: Activity, own: float, foreign: int, word: str) -> None:
    noise = judge_noise(BEFORE, after, own, foreign)
    assert noise.noisy
    assert [word in reason for reason in noise.reasons] == [True]


def test_missing_psi_is_unknown_and_never_zero(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for path, text in {"stat": STAT, "loadavg": "0.34 0.28 0.14 1/91 213\n", "uptime": "55.5 99.0\n"}.items():
        host.path("/proc").mkdir(exist_ok=True)
        host.path(f"/proc/{path}").write_text(text)
    activity = read_activity(host)
    assert activity.stalled_us is None
    assert not has_psi(host)
    assert judge_noise(activity, activity, 0.0).psi is None


def test_psi_that_cannot_be_read_counts_as_missing(tmp_path: Path) -> None:
    host = Host(tmp_path)
    # With psi=0 the files exist and reading them fails (EOPNOTSUPP); a folder fails alike.
    host.path("/proc/pressure/cpu").mkdir(parents=True)
    assert not has_psi(host)


PROCESS = "{pid} ({name}) S 1 7 7 0 -1 4194560 9 0 0 0 {user} 20 30 40 20 0 1 0 {start} 900 5\n"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("chromium", "chromium"), ("a) S (b", "a) S (b"), ("kworker/0:1", "kworker"), ("\x1b[2J", "[2J")],
)
def test_a_process_is_read_whatever_it_calls_itself(name: str, shown: str) -> None:
    assert parse_process_times(PROCESS.format(pid=7, name=name, user=10, start=5), 100) == (shown, 5, 1.0)


@given(st.text())
def test_any_text_is_a_process_or_a_parse_error(text: str) -> None:
    with contextlib.suppress(ParseError):
        parse_process_times(text, 100)


def test_the_busiest_others_are_named_once_each_and_most_first() -> None:
    before = {(1, 0): ("chromium", 5.0), (2, 0): ("sshd", 1.0), (3, 0): ("old", 9.0)}
    after = {
        **{(1, 0): ("chromium", 6.0), (2, 0): ("sshd", 1.0), (3, 7): ("pytest", 2.5)},
        **{(8, 0): ("chromium", 2.0), (9, 0): ("cron", 0.01)},
    }
    assert busiest(before, after, 20.0) == ["chromium", "pytest"]
    noise = judge_noise(replace(BEFORE, processes=before), replace(AFTER, processes=after), own_cpu_s=8.0)
    assert noise.reasons == ("other processes used 15% of the CPUs: chromium, pytest",)


def test_this_process_is_none_of_the_others(fake_host: Host) -> None:
    for pid, name in ((os.getpid(), "us"), (4242, "them")):
        put(fake_host.root, f"/proc/{pid}/stat", PROCESS.format(pid=pid, name=name, user=10, start=5))
    assert [name for name, _ in read_process_times(fake_host).values()] == ["them"]
