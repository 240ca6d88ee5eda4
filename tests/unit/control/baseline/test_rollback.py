"""The page of a rollback."""

from __future__ import annotations

from analysis.baseline.rollback import rollback_page

ANSWER = {
    "status": "restored",
    "changes": [{"knob": "thp.enabled", "before": "madvise", "after": "always"}],
    "left": [{"knob": "thp.shmem_enabled", "found": "<b>advise|\n", "before": "never"}],
}


def test_restored_and_left_are_told_apart_and_hostile_text_is_inert() -> None:
    page = rollback_page(ANSWER, "gpu|<x>", "20260101T000000Z-1")
    assert "| `thp.enabled` | `madvise` | `always` |" in page
    left = page.split("## Changed by others since, left")[1]
    assert "thp.shmem_enabled" in left
    assert "thp.enabled`" not in left
    assert "<b>" not in page
    assert "<x>" not in page
    assert "rollback_force=true" in left


def test_what_made_starts_sooner_is_listed_with_the_settings() -> None:
    starts = {"removed": ["/var/lib/slm|<b>"], "left": ["/etc/systemd/system/vllm.service.d/slm-first-token.conf"]}
    page = rollback_page(ANSWER, "a", "r", starts)
    restored, left = page.split("## Changed by others since, left")
    assert "/var/lib/slm" in restored
    assert "| `thp.enabled` | `madvise` | `always` |" in restored
    assert "`/etc/systemd/system/vllm.service.d/slm-first-token.conf` | `changed` | `absent`" in left
    assert "<b>" not in page
    alone = rollback_page({"status": "nothing"}, "a", "r", {"removed": ["/a"], "left": []})
    assert "Run `r`: restored." in alone


def test_a_rollback_that_left_nothing_says_so() -> None:
    page = rollback_page({"status": "restored", "changes": [], "left": []}, "a", "r")
    assert page.count("Nothing.") == 2
    assert "rollback_force" not in page


def test_an_incomplete_rollback_and_the_attempts_before_it_are_on_the_page() -> None:
    problem = {"knob": "hugepages.2M", "wanted": "0 pages", "found": "2 pages", "why": "Held.", "next_step": "stop it."}
    attempt = {
        "run_id": "run-1",
        "began_at": "2026-01-01T00:00:00Z",
        "changes": [{"knob": "thp.enabled", "before": "always", "after": "madvise"}],
        "left": [],
        "problems": ["hugepages.2M: held"],
    }
    answer = {"status": "incomplete", "changes": [], "left": [], "problems": [problem], "attempts": [attempt]}
    page = rollback_page(answer, "a", "run-2")
    assert "Run `run-2`: incomplete." in page
    assert "hugepages.2M: wanted 0 pages; found 2 pages. Held. Next: stop it." in page
    assert page.index("## Restored by an earlier, incomplete rollback") < page.index("`thp.enabled`")
    assert "Run `run-1`, begun 2026-01-01T00:00:00Z. hugepages.2M: held" in page


def test_of_a_file_the_page_has_the_number_of_lines_and_of_a_setting_the_value() -> None:
    drop_in = {"knob": "/etc/tmpfiles.d/x.conf", "before": "# ours\nw! /sys/a - - - - always\n", "after": "absent"}
    folder = {"knob": "/mnt/huge", "before": "folder", "after": "absent"}
    page = rollback_page({"status": "restored", "changes": [drop_in, folder]}, "a", "run")
    assert "| `/etc/tmpfiles.d/x.conf` | `2 lines` | `absent` |" in page
    assert "| `/mnt/huge` | `folder` | `absent` |" in page
