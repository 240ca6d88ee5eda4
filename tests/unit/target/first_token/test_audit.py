"""How a target stands on a host: clean, stale, missing, or nobody's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token import audit
from ansible.module_utils.slm_baseline.first_token.audit import difference, is_linked, is_set_up, rows, rows_of
from ansible.module_utils.slm_baseline.first_token.fit import Fit, fit_text, parse_fit
from ansible.module_utils.slm_baseline.first_token.places import has_anything, target_names
from ansible.module_utils.slm_baseline.first_token.target import SWEEP_PREFIX, Ready, Target
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import STOPPED_NOTE, TARGETS

from tests.support.bytecode import command_lines
from tests.support.targets import TARGET, install_target

PLAN, BYTECODE, KERNELS = (f"first_token.vllm.{what}" for what in ("plan", "bytecode", "kernels"))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return install_target(tmp_path)


def states(host: Host) -> dict[str, str]:
    return {row["knob"]: row["runtime"] for row in rows(host)}


def test_a_target_that_is_set_up_is_clean_and_another_is_not_it(host: Host) -> None:
    assert states(host) == {PLAN: "clean", BYTECODE: "clean"}
    assert is_set_up(host, TARGET)
    assert not is_set_up(host, replace(TARGET, ready=Ready("port", "8001")))
    assert not is_set_up(host, Target("other", unit="vllm.service"))
    assert rows_of(host, "other") == []


def test_an_upgrade_makes_the_plan_stale_and_names_the_file(host: Host) -> None:
    host.path("/srv/lib.so").write_bytes(b"newer")
    assert states(host)[PLAN] == "stale"
    assert "/srv/lib.so changed" in rows(host)[0]["detail"]
    assert rows(host)[0]["verdict"] == "drift"
    assert not is_set_up(host, TARGET)


def test_a_newer_source_makes_its_bytecode_stale(host: Host) -> None:
    (host.path("/srv") / "mine.new").write_text("VALUE = 22\n")
    host.path("/srv/mine.new").rename(host.path("/srv/mine.py"))
    assert states(host) == {PLAN: "clean", BYTECODE: "stale"}
    assert "/srv/mine.py changed since it was compiled, so no start gets it" in rows(host)[1]["detail"]
    assert not is_set_up(host, TARGET)


@pytest.mark.parametrize("text", ["", "\n", "slm-baseline first-token fit 1\n"])
def test_a_cache_of_an_earlier_release_is_recorded_again(host: Host, text: str) -> None:
    """Its variable stands in the drop-in, for every command line of the unit."""
    host.path(TARGET.fit).write_text(text)
    assert states(host)[BYTECODE] == "stale"


@pytest.mark.parametrize("path", [TARGET.plan, TARGET.drop_in, TARGET.fit_unit])
def test_what_is_gone_is_missing(host: Host, path: str) -> None:
    host.path(path).unlink()
    assert states(host)[PLAN] == "missing"


def test_a_unit_of_ours_that_others_changed_is_drift(host: Host) -> None:
    with host.path(TARGET.drop_in).open("a") as file:
        file.write("Environment=OTHERS=1\n")
    row = rows(host)[0]
    assert (row["runtime"], row["persisted"], row["verdict"]) == ("stale", "stale", "drift")
    assert "was changed by others since" in row["detail"]


def test_what_no_boot_would_read_ahead_is_not_persisted(host: Host) -> None:
    host.path(TARGET.boot_link).unlink()
    row = rows(host)[0]
    assert (row["runtime"], row["persisted"], row["verdict"]) == ("clean", "missing", "drift")
    assert "no boot reads ahead" in row["detail"]
    assert not is_set_up(host, TARGET)


@pytest.mark.parametrize("other", ["/etc/systemd/system/a.service", "/etc/systemd/system/z.service"])
def test_a_link_to_another_unit_is_none_of_ours(host: Host, other: str) -> None:
    host.path(TARGET.boot_link).unlink()
    host.path(TARGET.boot_link).symlink_to(other)
    assert not is_linked(host, TARGET)
    assert rows(host)[0]["persisted"] == "missing"


def test_recordings_of_a_sweep_have_no_row_and_hide_no_other(host: Host) -> None:
    for name in (f"{SWEEP_PREFIX}1", "a", "zz"):
        host.path(f"{TARGETS}/{name}").mkdir()
    assert {row["knob"].split(".")[1] for row in rows(host)} == {"a", "vllm", "zz"}


def test_a_diff_says_what_is_missing_stale_or_asked_otherwise(host: Host) -> None:
    assert difference(host, Target("new", unit="new.service")) == {
        "before": "first_token.new.plan: missing\n",
        "after": "first_token.new.plan: clean\n",
    }
    host.path("/srv/lib.so").write_bytes(b"newer")
    told = difference(host, replace(TARGET, replay="together"))
    assert f"{PLAN} is stale: /srv/lib.so changed since" in told["before"]
    assert "first_token.vllm.replay: both\n" in told["before"]
    assert told["after"] == f"{PLAN}: clean\n{BYTECODE}: clean\nfirst_token.vllm.replay: together\n"


def test_a_diff_has_no_value_of_an_environment(host: Host) -> None:
    told = difference(host, replace(TARGET, environment=(("HF_TOKEN", "hf_secret"),)))
    assert "first_token.vllm.environment" in told["after"]
    assert "hf_secret" not in told["before"] + told["after"]


def test_a_damaged_record_or_plan_is_a_row_and_no_traceback(host: Host) -> None:
    host.path(TARGET.plan).write_bytes(b"\xff\xfe")
    assert states(host)[PLAN] == "missing"
    host.path(TARGET.record).write_text("[]")
    assert states(host) == {PLAN: "missing"}


def test_a_target_that_nobody_names_any_more_is_drift(host: Host) -> None:
    def orphans(wanted: list[str] | None) -> list[str]:
        return [row["knob"] for row in rows(host, wanted) if row["knob"] == "first_token.vllm"]

    assert orphans(None) == orphans(["vllm"]) == []
    assert orphans(["other"]) == orphans([]) == ["first_token.vllm"]
    row = rows(host, [])[-1]
    assert (row["verdict"], row["desired"]) == ("drift", "absent")
    assert "{name: vllm, state: absent}" in row["detail"]


def test_what_is_left_without_a_record_is_seen_by_its_mark(host: Host) -> None:
    """A late failure or a power loss left a drop-in that nothing found."""
    for path in (TARGET.replay_unit, TARGET.fit_unit, TARGET.boot_link):
        host.path(path).unlink()
    shutil.rmtree(host.path(TARGET.folder))
    assert target_names(host) == ["vllm"]
    assert states(host) == {PLAN: "missing"}
    host.path(TARGET.drop_in).write_text("[Service]\n# Target: vllm\n")
    assert target_names(host) == []


@pytest.mark.parametrize("path", [TARGET.replay_unit, TARGET.fit_unit])
def test_a_unit_of_ours_alone_names_its_target(tmp_path: Path, path: str) -> None:
    host = Host(tmp_path)
    assert not has_anything(host)
    host.path(path).parent.mkdir(parents=True)
    host.path(path).write_text("x")
    assert target_names(host) == ["vllm"]
    assert has_anything(host)


@pytest.mark.parametrize(
    ("note", "names"), [({"start": ["a.service", "b.service"]}, "a.service, b.service"), ([], "a service")]
)
def test_what_a_recording_left_stopped_is_drift(host: Host, note: object, names: str) -> None:
    host.path(STOPPED_NOTE).write_text(json.dumps(note))
    row = rows(host)[0]
    assert (row["knob"], row["verdict"], row["runtime"]) == ("first_token.stopped", "drift", names)


@pytest.fixture
def kernels(host: Host) -> Fit:
    """The target keeps kernels, too."""
    host.path(TARGET.kernel_folder).mkdir(mode=0o700)
    inode = host.path(TARGET.kernel_folder).stat().st_ino
    fit = replace(parse_fit(host.read(TARGET.fit)), kernels=(TARGET.kernel_folder, inode))
    host.path(TARGET.fit).write_text(fit_text(fit))
    return fit


def test_kept_kernels_have_a_row_of_their_own(host: Host, kernels: Fit) -> None:
    assert states(host) == {PLAN: "clean", BYTECODE: "clean", KERNELS: "clean"}
    host.path(TARGET.fit).write_text(fit_text(replace(kernels, prefix="", folder="", inode=0, folders=(), sources=())))
    assert states(host) == {PLAN: "clean", KERNELS: "clean"}


@pytest.mark.parametrize("what", ["gone", "open to all", "too large", "too many"])
def test_kernels_that_are_not_given_or_too_large_are_drift(
    host: Host, kernels: Fit, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder = host.path(TARGET.kernel_folder)
    (folder / "kernel").write_bytes(b"12345")
    if what == "gone":
        shutil.rmtree(folder)
    elif what == "open to all":
        folder.chmod(0o777)
    else:
        limit = "MAX_BYTES" if what == "too large" else "MAX_FILES"
        monkeypatch.setattr(f"ansible.module_utils.slm_baseline.host.kernel_caches.{limit}", 0)
    assert states(host) == {PLAN: "clean", BYTECODE: "clean", KERNELS: "stale"}
    words = {"gone": "No such file", "open to all": "others may write", "too large": "GB", "too many": "more than"}
    assert words[what] in rows(host)[-1]["detail"]
    assert not is_set_up(host, TARGET)


@pytest.mark.parametrize(
    ("facts", "stale"),
    [
        ({}, set()),
        ({"User": "other"}, {BYTECODE, KERNELS}),
        ({"ExecStartPreEx": command_lines("privileged")}, {BYTECODE, KERNELS}),
        ({"ProtectSystem": "strict"}, {KERNELS}),
    ],
)
def test_a_unit_that_changed_gets_no_cache_and_the_rows_say_so(
    host: Host, kernels: Fit, monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], stale: set[str]
) -> None:
    fit = replace(kernels, unit=("vllm.service", "app"), sandbox=(("ProtectSystem", "full"),))
    host.path(TARGET.fit).write_text(fit_text(fit))
    shown = {"ExecStartEx": command_lines(""), "User": "app", "ProtectSystem": "full", **facts}
    monkeypatch.setattr(audit, "systemd_runs", lambda host: True)
    monkeypatch.setattr(Host, "is_live", True)
    monkeypatch.setattr(audit, "show_unit", lambda name: shown if name == "vllm.service" else {})
    assert {knob for knob, state in states(host).items() if state != "clean"} == stale


def test_another_image_is_told_before_any_file_of_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible.module_utils.slm_baseline.containers import image

    asked: list[str] = []

    def change(host: Host, facts: Mapping[str, str]) -> str:
        asked.append(facts["image_id"])
        return "changed"

    monkeypatch.setattr(image, "find_image_change", change)
    assert states(host)[PLAN] == "clean"
    assert asked == []
    plan = host.path(TARGET.plan)
    plan.write_text(plan.read_text().replace("page_bytes", "image_id\tsha256:1\npage_bytes"))
    assert states(host)[PLAN] == "stale"
    assert asked == ["sha256:1"]
    assert "stale: changed; record it again" in rows(host)[0]["detail"]


def test_a_container_that_was_left_stopped_is_named(host: Host) -> None:
    host.path(STOPPED_NOTE).write_text(json.dumps({"start": [], "containers": [{"name": "llm", "ran": True}]}))
    assert rows(host)[0]["runtime"] == "container llm"
