"""A replay beside a sample: what it said is in its pipe when it has ended, whoever else holds that."""

from __future__ import annotations

import pytest
from ansible.module_utils.slm_baseline.measuring.loader.replay import AHEAD, Replay, replaying


@pytest.mark.parametrize("holds", ["", "setsid sleep 600 & "])
def test_a_pipe_that_another_process_holds_holds_nobody_up(holds: str) -> None:
    """Root waited for ever for a sweep's replay whose pipe another process of the loader's user held."""
    command = ("/bin/sh", "-c", f"{holds}echo first_request_s=0.1 imports_s=0.2 ended_s=0.3 stale=0")
    with replaying(Replay(command, AHEAD), None, 60) as run:
        run.run_ahead()
    assert run.record
    assert (run.record.first_request_s, run.record.ended_s, run.record.problem) == (0.1, 0.3, None)


def test_one_that_says_nothing_and_fails_is_told_by_its_status() -> None:
    with replaying(Replay(("/bin/sh", "-c", "exit 3"), AHEAD), None, 60) as run:
        run.run_ahead()
    assert run.record
    assert run.record.problem == "it ended with 3"
