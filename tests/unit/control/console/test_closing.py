"""The last lines of a run: hosts alike together, values before and after, figures, pages, and the way back."""

from __future__ import annotations

from typing import Any

from analysis.console.closing import Closing, figures

THP = {
    "changes": [
        {"knob": "thp.enabled", "before": "always", "after": "madvise"},
        {"knob": "/etc/x", "before": "", "after": ""},
    ]
}


def sample(kind: str, first_token_s: float | None) -> dict[str, Any]:
    return {"kind": kind, "time_to_first_token_s": first_token_s}


def told(closing: Closing) -> list[str]:
    return closing.lines()


def test_hosts_that_were_changed_alike_share_a_line_and_can_be_undone() -> None:
    closing = Closing()
    for host in ("gpu-1", "gpu-2"):
        closing.note(host, "memory_info", {"rows": [{"verdict": "drift"}]})
        closing.note(host, "thp", THP)
    closing.note("gpu-3", "memory_info", {"rows": [{"verdict": "clean"}]})
    # Drifted, and only measured: nobody says that all is well.
    closing.note("gpu-4", "memory_info", {"rows": [{"verdict": "clean"}, {"verdict": "drift"}]})
    assert told(closing) == [
        "gpu-1, gpu-2: changed thp.enabled always -> madvise",
        "gpu-3: every setting is as wanted, nothing was changed",
        "to undo: ansible-playbook rollback.yml -l gpu-1,gpu-2",
    ]


def test_a_dry_run_has_changed_nothing() -> None:
    closing = Closing(check_mode=True)
    closing.note("a", "thp", THP)
    assert told(closing) == ["a: would change thp.enabled always -> madvise"]


def test_a_measurement_is_told_in_medians_with_its_page() -> None:
    closing = Closing()
    blocks = [
        {"samples": [sample("cold", 9.0), sample("warm", 4.0)]},
        {"samples": [sample("cold", 10.0), sample("failed", None)]},
    ]
    closing.note("a", "slm_benchmark", {"results": blocks})
    closing.note("a", "report_page", {"page": "/r/a/README.md"})
    assert told(closing)[:2] == [
        "a: first token 9.50 s cold (median of 2), 4.00 s warm (median of 1)",
        "a: page /r/a/README.md",
    ]
    assert figures({"samples": [sample("lukewarm", 5.0)]}) == ""


def test_a_rollback_says_what_it_restored_what_it_left_and_when_there_was_nothing() -> None:
    closing = Closing()
    restored = {"status": "restored", "changes": [{"knob": "hugepages.2M", "before": "8", "after": "0"}]}
    closing.note("a", "memory_snapshot", {**restored, "left": [{"knob": "thp.defrag"}]})
    closing.note("b", "memory_snapshot", {"status": "nothing", "note": "nothing to restore: never tuned"})
    assert told(closing) == [
        "a: changed hugepages.2M 8 -> 0",
        "a: left, since others changed it: thp.defrag",
        "b: nothing to restore: never tuned",
    ]


def test_a_host_that_failed_says_why_on_one_line() -> None:
    closing = Closing()
    closing.note("a", "memory_info", {"rows": [{"verdict": "clean"}]})
    closing.note_failure("a", {"msg": "hugepages.2M: wanted 8;\nfound 3"})
    closing.note_failure("b", {"msg": "no route to host"}, unreachable=True)
    assert told(closing) == ["a: failed: hugepages.2M: wanted 8; found 3", "b: unreachable: no route to host"]


def test_a_fleet_is_told_in_few_lines() -> None:
    closing = Closing()
    for number in range(1000):
        closing.note(f"gpu-{number}", "thp", THP)
    assert told(closing) == [
        "gpu-0, gpu-1, gpu-2, gpu-3, gpu-4 and 995 more: changed thp.enabled always -> madvise",
        "to undo: ansible-playbook rollback.yml -l gpu-hosts",
    ]


def test_what_a_host_says_cannot_draw_on_the_terminal() -> None:
    closing = Closing()
    closing.note("a", "thp", {"changes": [{"knob": "thp.\x1b[2Jx", "before": "a\nb", "after": "c"}]})
    assert all(line.isprintable() for line in told(closing))


def test_what_a_first_token_play_announced_is_told_once_and_not_as_done() -> None:
    announced = {"changed": True, "summary": "app: would be recorded", "stops": [{"unit": "app.service"}]}
    done = {"changed": True, "summary": "app: a start reads 23 MB", "plan": {"files": 1}}
    kept = {"changed": False, "summary": "other: set up already"}
    closing = Closing()
    closing.note("a", "first_token", {"results": [announced]})
    closing.note("a", "first_token", {"results": [done, kept]})
    closing.note("a", "first_token", {"results": [kept]})
    lines = told(closing)
    assert [line for line in lines if "app:" in line] == ["a: app: a start reads 23 MB"]
    assert len([line for line in lines if "other:" in line]) == 1
    dry = Closing(check_mode=True)
    dry.note("a", "first_token", {"results": [announced]})
    dry.note("a", "first_token", {"results": [announced]})
    assert [line for line in told(dry) if "app:" in line] == ["a: app: would be recorded"]


def test_figures_of_a_busy_host_say_so() -> None:
    samples = [{**sample("cold", 9.0), "noise": {"noisy": True}}, {**sample("warm", 4.0), "noise": {"noisy": False}}]
    failed = {**sample("failed", None), "noise": {"noisy": True}}
    assert figures({"samples": [*samples, failed]}) == (
        "first token 9.00 s cold (median of 1), 4.00 s warm (median of 1); other work disturbed 1 of 2 samples, trust "
        "them less"
    )


def test_an_audit_that_found_drift_names_its_page_and_what_sets_it_again() -> None:
    def audited(*knobs: str) -> list[str]:
        closing = Closing()
        rows = [{"knob": knob, "verdict": "drift"} for knob in knobs]
        closing.note("a", "memory_info", {"rows": [*rows, {"knob": "thp.defrag", "verdict": "clean"}]})
        closing.note("a", "audit_report", {"folder": "/r/audit"})
        if knobs:
            closing.note_failure("a", {"msg": "it differs", "status": "drift"})
        return told(closing)

    to_set = "to set what differs: ansible-playbook baseline.yml -l a --tags tune"
    assert audited("thp.enabled") == ["a: drift: it differs", "page /r/audit/audit.md", to_set]
    assert audited("first_token.x.plan", "thp.enabled")[-1] == to_set
    # Its own message says what to do.
    assert audited("first_token.x.plan") == ["a: drift: it differs", "page /r/audit/audit.md"]
    assert audited() == ["a: every setting is as wanted, nothing was changed"]


def test_a_failure_that_is_no_drift_is_not_set_again() -> None:
    closing = Closing()
    closing.note("a", "memory_info", {"rows": [{"knob": "thp.enabled", "verdict": "drift"}]})
    closing.note_failure("a", {"msg": "no room"})
    assert told(closing) == ["a: failed: no room"]


def test_a_rollback_names_the_recorded_starts_and_a_purge_what_it_removed() -> None:
    closing = Closing()
    gone = ["/var/lib/x/first-token/targets/vllm", "/etc/systemd/system/slm-first-token-vllm.service"]
    closing.note("a", "memory_snapshot", {"status": "restored", "first_token": {"removed": gone, "left": []}})
    closing.note("a", "slm_environment", {"removed": ["/opt/slm-baseline"]})
    assert told(closing) == ["a: removed the recorded start of vllm", "a: removed /opt/slm-baseline"]
    dry = Closing(check_mode=True)
    dry.note("a", "slm_environment", {"removed": ["/opt/slm-baseline"]})
    assert told(dry) == ["a: would remove /opt/slm-baseline"]
