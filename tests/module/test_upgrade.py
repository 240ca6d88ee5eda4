"""A host tuned by the first release is audited, tuned again and rolled back by today's code.

The golden file has what that release's own modules left on the fake host: its snapshot, its drop-ins, kernel files.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.module.test_setters import RUN, Run, kernel, run, tree
from tests.support.fake_kernel import FakeKernel
from tests.support.fakes import put

__all__ = ["kernel", "run"]
OLD = json.loads((REPOSITORY / "tests/golden/upgrade/release-0.1.0.json").read_text())
TUNING: dict[str, dict[str, Any]] = OLD["tuning"]
OTHERWISE: dict[str, dict[str, Any]] = {
    "thp": {"enabled": "madvise", "defrag": "defer"},
    "hugepages": {"pools": [{"size": "2M", "count": 32}]},
}


def settings(kernel: FakeKernel) -> dict[str, str]:
    """Everything on the host but our own records of runs."""
    ours = ("run/slm-baseline/", "var/lib/slm-baseline/")
    return {path: text for path, text in tree(kernel).items() if not path.startswith(ours)}


@pytest.fixture
def pristine(kernel: FakeKernel) -> dict[str, str]:
    """The host as it was before the first release tuned it, which it has done by now."""
    before = settings(kernel)
    for path, text in OLD["files"].items():
        put(kernel.root, path, text)
        if path.startswith("/var/lib/slm-baseline"):
            kernel.path(path).chmod(0o600)
    assert settings(kernel) != before
    return before


def test_an_audit_finds_the_values_and_names_the_old_lines_alone(
    kernel: FakeKernel, run: Run, pristine: dict[str, str]
) -> None:
    wanted = {"thp": TUNING["thp"], **TUNING["hugepages"]}
    rows = run("memory_info", **wanted)["rows"]
    assert len(rows) >= 6
    assert [row for row in rows if not row["desired"] == row["runtime"] == row["persisted"]] == []
    # Lines without `!` are run at any time by an upgrade of a package: the next run writes them anew.
    assert {row["verdict"] for row in rows} == {"drift"}
    assert [row["detail"] for row in rows if "at each run of systemd-tmpfiles" not in row["detail"]] == []


def test_the_same_tuning_moves_no_value_and_an_audit_is_clean_then(
    kernel: FakeKernel, run: Run, pristine: dict[str, str]
) -> None:
    for name, arguments in TUNING.items():
        done = run(name, run=RUN, **arguments)
        assert all(change["knob"].startswith("/etc/tmpfiles.d/slm-baseline-") for change in done["changes"]), done
        assert not run(name, run=RUN, **arguments)["changed"]
    assert kernel.writes == []
    rows = run("memory_info", thp=TUNING["thp"], **TUNING["hugepages"])["rows"]
    assert {row["verdict"] for row in rows} == {"clean"}


@pytest.mark.parametrize(
    "tunings", [[], [TUNING], [OTHERWISE], [TUNING, OTHERWISE]], ids=["as left", "the same", "otherwise", "both"]
)
def test_a_rollback_restores_what_was_before_the_first_release(
    kernel: FakeKernel, run: Run, pristine: dict[str, str], tunings: list[dict[str, dict[str, Any]]]
) -> None:
    for tuning in tunings:
        for name, arguments in tuning.items():
            assert not run(name, run=RUN, **arguments).get("failed")
    done = run("memory_snapshot", state="restored", run=RUN)
    assert (done["status"], done["left"]) == ("restored", [])
    assert settings(kernel) == pristine
    assert run("memory_snapshot", state="restored", run=RUN)["status"] == "nothing"
