"""Changes: applied whole or undone last first, and operating-system errors in plain words."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError, os_problem
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.kernel.knobs import WriteKnob
from ansible.module_utils.slm_baseline.settings.kinds.thp import THP, thp_knobs
from ansible.module_utils.slm_baseline.settings.state.changes import apply_all, described, diff, outcome
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_kernel import FakeKernel


@dataclass(frozen=True)
class Step:
    """A change that only keeps a log; it fails where told to."""

    name: str
    log: list[str] = field(default_factory=list)
    fails: Exception | None = None
    sticks: bool = False
    sign: str = "+"
    before: str = "old"
    after: str = "new"

    def apply(self, host: Host) -> None:
        self.log.append(f"{self.sign}{self.name}")
        if self.fails:
            raise self.fails

    def reverse(self) -> Step:
        stuck = OSError(errno.EIO, "Input/output error") if self.sticks else None
        return replace(self, fails=stuck, sign="-", before=self.after, after=self.before)


PROBLEM = SettingError("b", "new", "old", "It did not take.", "look.")


@given(st.integers(1, 6), st.data())
def test_whatever_fails_all_that_was_begun_is_undone_last_first(count: int, data: st.DataObject) -> None:
    failing = data.draw(st.integers(0, count - 1))
    log: list[str] = []
    steps = [Step(str(n), log, PROBLEM if n == failing else None) for n in range(count)]
    with pytest.raises(SettingError):
        apply_all(Host(), steps)
    done = list(range(failing + 1))
    assert log == [f"+{n}" for n in done] + [f"-{n}" for n in reversed(done)]


def test_the_error_of_the_step_is_the_error_of_all() -> None:
    with pytest.raises(SettingError) as caught:
        apply_all(Host(), [Step("a"), Step("b", fails=PROBLEM)])
    assert caught.value.as_dict() == PROBLEM.as_dict()


def test_an_undo_that_fails_is_told_and_does_not_stop_the_others() -> None:
    log: list[str] = []
    steps = [Step("a", log), Step("b", log, sticks=True), Step("c", log, OSError(errno.ENOSPC, "No space left"))]
    with pytest.raises(SettingError) as caught:
        apply_all(Host(), steps)
    assert log[-3:] == ["-c", "-b", "-a"]
    assert "Undoing it failed too: b (" in caught.value.why
    assert caught.value.next_step.endswith("Then run the rollback.")


@pytest.mark.parametrize("number", [*errno.errorcode, None])
def test_every_operating_system_error_has_all_five_parts(number: int | None) -> None:
    error = OSError(number, "text", "/file") if number else OSError("bare")
    problem = os_problem("thp.enabled", "never", error)
    assert all(problem.as_dict().values())


def test_text_for_people_and_machines() -> None:
    steps = [Step("thp.enabled"), Step("/etc/file", before="absent", after="one\ntwo\n")]
    assert described(steps)[0] == {"knob": "thp.enabled", "before": "old", "after": "new"}
    assert diff(steps) == {
        "before": "thp.enabled: old\n/etc/file: absent\n",
        "after": "thp.enabled: new\n/etc/file: \n    one\n    two\n",
    }
    assert outcome([], verified=True) == {
        "changed": False,
        "changes": [],
        "dropped": [],
        "diff": {"before": "", "after": ""},
        "verified": True,
    }


def knob(kernel: FakeKernel, value: str) -> WriteKnob:
    found = thp_knobs(kernel)["thp.enabled"]
    return WriteKnob(found.name, found.path, found.value, value)


def test_a_selector_is_written_read_back_and_undone(fake_host: Host) -> None:
    kernel = FakeKernel(fake_host.root)
    change = knob(kernel, "never")
    apply_all(kernel, [change])
    assert thp_knobs(kernel)["thp.enabled"].value == "never"
    change.reverse().apply(kernel)
    assert thp_knobs(kernel)["thp.enabled"].value == "madvise"


def test_a_write_that_does_not_take_is_an_error(fake_host: Host) -> None:
    kernel = FakeKernel(fake_host.root, stuck={f"{THP}/enabled"})
    with pytest.raises(SettingError) as caught:
        apply_all(kernel, [knob(kernel, "never")])
    assert (caught.value.wanted, caught.value.found) == ("never", "madvise")


@pytest.mark.parametrize(
    ("number", "told"), [(errno.EROFS, "read-only"), (errno.EACCES, "root"), (errno.EINVAL, "no such value")]
)
def test_a_refused_write_is_one_error_and_undo_writes_nothing(fake_host: Host, number: int, told: str) -> None:
    kernel = FakeKernel(fake_host.root, failing={"/sys": number})
    with pytest.raises(SettingError, match=told) as caught:
        apply_all(kernel, [knob(kernel, "never")])
    assert "Undoing" not in caught.value.why
    assert len(kernel.writes) == 1
