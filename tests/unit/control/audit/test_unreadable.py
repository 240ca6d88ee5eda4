"""What an audit could not read: a host without drift is not called clean, and a drifted one says it too."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from analysis.audit.answer import judge_host
from analysis.audit.fleet import audit
from analysis.audit.junit import junit
from analysis.audit.summary import markdown

ROW = {
    "knob": "thp.enabled",
    "desired": "madvise",
    "runtime": "madvise",
    "persisted": "madvise",
    "boot": None,
    "source": None,
    "verdict": "clean",
    "detail": None,
}
CRON = {"path": "/etc/cron.d/thp", "reason": "Permission denied"}
START, END = "2026-03-14T09:20:00Z", "2026-03-14T09:21:00Z"


def answer(*unreadable: dict[str, str], **row: str) -> dict[str, Any]:
    return {"rows": [{**ROW, **row}], "competitors": [], "unreadable": list(unreadable)}


def test_a_host_that_was_not_wholly_read_is_not_called_clean() -> None:
    host = judge_host(answer(CRON))
    assert host.status == "error"
    assert str(host) == (
        "not known to be clean: could not read /etc/cron.d/thp (Permission denied). "
        "Next: connect as root, or give become a way to it"
    )
    assert judge_host(answer()).status == "clean"
    assert judge_host({key: value for key, value in answer().items() if key != "unreadable"}).status == "clean"


def test_drift_stays_drift_and_says_what_was_not_seen() -> None:
    host = judge_host(answer(CRON, verdict="drift", detail="thp.enabled is always"))
    assert host.status == "drift"
    assert str(host).startswith("thp.enabled is always; could not read /etc/cron.d/thp (Permission denied).")


def test_many_places_are_counted() -> None:
    told = str(judge_host(answer(*({"path": f"/etc/{number}", "reason": "no"} for number in range(7)))))
    assert "/etc/4 (no) and 2 more." in told


@pytest.mark.parametrize("place", [{}, {"path": "/x"}, {"path": 7, "reason": "no"}, {"path": "", "reason": "no"}])
def test_a_place_of_another_form_makes_an_error(place: Any) -> None:
    assert "does not have the documented form" in str(judge_host(answer(place)))


def test_every_file_of_the_audit_tells_it() -> None:
    whole = audit({"a": answer(CRON), "b": answer(CRON, verdict="drift", detail="drifted"), "c": answer()}, START, END)
    hosts = whole.document()["hosts"]
    assert [hosts[name].get("unreadable") for name in "abc"] == [[CRON], [CRON], None]
    page = markdown(whole)
    assert "## Not read" in page
    assert "`/etc/cron.d/thp`" in page
    assert "Hosts without an answer" not in page
    summary = "\n".join(whole.summary())
    assert "1 host (a): error: not known to be clean" in summary
    assert "1 host (b): could not read /etc/cron.d/thp (Permission denied)" in summary
    suites = {suite.get("name"): suite for suite in ElementTree.fromstring(junit(whole).encode())}
    assert [suites[name].get("errors") for name in "abc"] == ["1", "0", "0"]


def test_hosts_that_are_still_to_be_asked_are_counted_and_not_judged() -> None:
    whole = audit({"a": answer()}, START, END, waiting=3)
    assert whole.summary()[:2] == [
        "1 host: 1 clean, 0 drift, 0 unreachable, 0 error",
        "3 hosts still to be asked: this is no verdict on them",
    ]
