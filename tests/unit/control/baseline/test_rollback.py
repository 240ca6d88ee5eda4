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
