"""Targets as a user gives them, and the files that each gets."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.first_token.cache import Cache
from ansible.module_utils.slm_baseline.first_token.places import MARK
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile
from ansible.module_utils.slm_baseline.first_token.target import Ready, Target, digest, parse_ready, parse_target
from ansible.module_utils.slm_baseline.first_token.unit_files import (
    drop_in,
    fit_unit,
    mount_units,
    recording_drop_in,
    wanted_files,
)
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.mountinfo import MountEntry

UNIT: dict[str, Any] = {"name": "vllm", "unit": "vllm.service", "ready": {"type": "port", "port": 8000}}
COMMAND: dict[str, Any] = {"name": "app", "command": ["/opt/app/run", "--x"], "user": "app"}
READY = "first_token.vllm.ready"
BAD_URLS = (
    "https://h/",
    "http:///x",
    "http://h:x/",
    "http://h:99999/",
    "http://h:0/",
    "http://[::1/",
    "h",
    "http://h/\n",
)
BAD_SECONDS = (math.nan, math.inf, -math.inf, -1, 0, "nan", "soon", 1e9)


def test_a_target_comes_back_from_its_record() -> None:
    for given in (UNIT, COMMAND | {"environment": {"B": 1, "A": "2"}}):
        target = parse_target(given)
        again = Target.from_json(target.to_json())
        assert again.is_same_as(target)
        assert again.ready == target.ready
        assert again.command == target.command


@pytest.mark.parametrize(
    ("given", "knob"),
    [
        (COMMAND | {"name": "../x"}, "first_token.name"),
        (COMMAND | {"name": ""}, "first_token.name"),
        (UNIT | {"unit": "vllm.socket"}, "first_token.vllm.unit"),
        (UNIT | {"unit": "../vllm.service"}, "first_token.vllm.unit"),
        (UNIT | {"command": ["/x"]}, "first_token.vllm"),
        ({"name": "x"}, "first_token.x"),
        (COMMAND | {"user": None}, "first_token.app.command"),
        (COMMAND | {"command": ["run"]}, "first_token.app.command"),
        (COMMAND | {"ready": {"type": "notify"}}, "first_token.app.ready"),
        (UNIT | {"ready": {"type": "port"}}, "first_token.vllm.ready"),
        (UNIT | {"ready": {"type": "url"}}, "first_token.vllm.ready"),
        *((UNIT | {"ready": {"type": "port", "port": port}}, f"{READY}.port") for port in (-1, 65536, "x", "²")),
        *((UNIT | {"ready": {"type": "url", "url": url}}, f"{READY}.url") for url in BAD_URLS),
        *((COMMAND | {"ready": {"timeout_s": seconds}}, "first_token.app.ready.timeout_s") for seconds in BAD_SECONDS),
    ],
)
def test_what_cannot_be_is_refused_by_its_knob(given: dict[str, Any], knob: str) -> None:
    with pytest.raises(SettingError) as refused:
        parse_target(given)
    assert refused.value.knob == knob
    assert refused.value.next_step


CACHE = Cache("/told", "/kept", ("ReadWritePaths=-/kept",))


def test_a_unit_gets_a_drop_in_and_units_beside_it_and_a_command_no_file() -> None:
    target = parse_target(UNIT)
    files = wanted_files(target, [CACHE])
    assert list(files) == [
        "/etc/systemd/system/vllm.service.d/slm-first-token.conf",
        "/etc/systemd/system/slm-first-token-vllm.service",
        "/etc/systemd/system/slm-bytecode-vllm.service",
    ]
    assert all(text.startswith(MARK) for text in files.values())
    assert files[target.drop_in].splitlines()[1:] == [
        "# Target: vllm",
        "[Unit]",
        "Wants=slm-first-token-vllm.service",
        "Wants=slm-bytecode-vllm.service",
        "After=slm-bytecode-vllm.service",
        "[Service]",
        "EnvironmentFile=-/run/slm-baseline/first-token/vllm.env",
        "ReadWritePaths=-/kept",
    ]
    assert wanted_files(parse_target(COMMAND), [CACHE]) == {}
    without = wanted_files(target, [])
    assert target.fit_unit not in without
    assert without[target.drop_in].splitlines()[2:] == ["[Unit]", "Wants=slm-first-token-vllm.service"]
    alone = wanted_files(parse_target(UNIT | {"replay": "none"}), [])
    assert list(alone) == [target.drop_in]
    assert alone[target.drop_in].splitlines()[1:] == ["# Target: vllm"]
    assert "Wants=slm-first" not in drop_in(parse_target(UNIT | {"replay": "ahead"}), [CACHE])


def test_no_start_of_a_unit_is_given_a_cache_without_a_look() -> None:
    """The variable in the drop-in held for every command line of the unit, root's too, whatever became of the unit."""
    target = parse_target(UNIT)
    for path, text in wanted_files(target, [CACHE]).items():
        assert "PYTHONPYCACHEPREFIX" not in text, path
    recorded = recording_drop_in({"PYTHONPYCACHEPREFIX": "/told", "PYTHONDONTWRITEBYTECODE": ""}, [CACHE])
    assert recorded.splitlines()[1:] == [
        "[Service]",
        "Environment=PYTHONPYCACHEPREFIX=/told PYTHONDONTWRITEBYTECODE=",
        "ReadWritePaths=-/kept",
    ]
    assert target.recording_drop_in.startswith("/run/")
    fit = fit_unit(target)
    assert f"slm_fit.py {target.fit} {target.fit_environment}" in fit
    assert "TimeoutStartSec=5" in fit
    assert "CapabilityBoundingSet=CAP_DAC_READ_SEARCH" in fit


def test_lines_that_two_caches_need_are_told_once() -> None:
    caches = [Cache("/a", "/b", (f"CacheDirectory={name}", "UnsetEnvironment=CACHE_DIRECTORY")) for name in "xy"]
    lines = ["CacheDirectory=x", "UnsetEnvironment=CACHE_DIRECTORY", "CacheDirectory=y"]
    assert drop_in(parse_target(UNIT), caches).splitlines()[-3:] == lines
    assert recording_drop_in({"A": "1"}, caches).splitlines()[1:] == ["[Service]", "Environment=A=1", *lines]


def test_a_record_of_before_kernels_were_kept_asks_for_them() -> None:
    """It is not recorded anew for that alone."""
    document = parse_target(UNIT).to_json()
    assert document.pop("kernels") is True
    assert Target.from_json(document) == parse_target(UNIT)
    assert not parse_target(UNIT | {"kernels": False}).is_same_as(Target.from_json(document))


def test_nothing_of_ours_takes_part_in_a_recorded_start() -> None:
    files = wanted_files(parse_target(UNIT), [CACHE])
    for path in (Target("vllm").replay_unit, Target("vllm").fit_unit):
        assert "ConditionPathExists=!/run/slm-baseline/first-token/recording" in files[path]


def test_of_an_environment_digests_alone_are_kept() -> None:
    """A value may be a secret; the record, a diff and a result have what stands for it."""
    target = parse_target(COMMAND | {"environment": {"HF_TOKEN": "hf_abcdefgh", "N": 1}})
    assert dict(target.environment) == {"HF_TOKEN": "hf_abcdefgh", "N": "1"}
    assert "hf_abcdefgh" not in json.dumps(target.to_json())
    assert "hf_abcdefgh" not in repr(target)
    assert target.to_json()["environment"]["N"] == digest("N", "1")
    other = parse_target(COMMAND | {"environment": {"HF_TOKEN": "hf_abcdefgi", "N": 1}})
    assert not target.is_same_as(other)
    assert not target.is_same_as(None)
    # A value is not told by its digest elsewhere, and a digest stands for itself.
    assert digest("A", "x") != digest("B", "x")
    assert digest("A", digest("A", "x")) == digest("A", "x")
    # A record of the first release has the values themselves.
    old = {**target.to_json(), "environment": {"HF_TOKEN": "hf_abcdefgh", "N": "1"}}
    assert Target.from_json(old).is_same_as(target)


@pytest.mark.parametrize(
    ("given", "is_unit", "ready"),
    [
        ({}, True, Ready("notify")),
        ({}, False, Ready("exit")),
        ({"type": "port", "port": 8000, "timeout_s": 5}, True, Ready("port", "8000", 5.0)),
        ({"type": "url", "url": "http://h/x"}, False, Ready("url", "http://h/x")),
        ({"type": "exit", "port": 8000, "timeout_s": None}, True, Ready("exit")),
    ],
)
def test_how_a_target_tells_that_it_is_ready(given: dict[str, Any], is_unit: bool, ready: Ready) -> None:
    assert parse_ready("knob", given, is_unit) == ready
    assert ready.is_asked == (ready.how in ("port", "url"))


@pytest.mark.parametrize(
    "unit", ["-Hhost.service", "-.service", "a b.service", "x.service\n", ".service", "a/b.service"]
)
def test_a_unit_that_is_an_option_or_no_name_is_refused(unit: str) -> None:
    with pytest.raises(SettingError) as refused:
        parse_target(UNIT | {"unit": unit})
    assert refused.value.knob == "first_token.vllm.unit"


def test_a_replay_at_boot_comes_after_the_mounts_that_hold_what_it_reads() -> None:
    mounts = [MountEntry(number, path, "ext4", "none", "rw", "rw") for number, path in enumerate(("/", "/a", "/a/b-c"))]
    files = [PlanFile(path, False, 1, 2, 3) for path in ("/a/b-c/x", "/ab/y", "/usr/z")]
    units = mount_units(Plan({}, (), files), mounts)
    assert units == [r"a-b\x2dc.mount"]
    target = parse_target(UNIT)
    assert "After=local-fs.target a-b\\x2dc.mount\n" in wanted_files(target, [], units)[target.replay_unit]


def test_nothing_waits_for_a_replay() -> None:
    """A oneshot would be a job that a boot waits for; a unit that comes before others would hold them up."""
    target = parse_target(UNIT)
    text = wanted_files(target, [])[target.replay_unit]
    assert "Type=simple" in text
    assert "DefaultDependencies=no" in text
    assert re.findall("^Before=.*", text, re.MULTILINE) == ["Before=shutdown.target"]


CONTAINER: dict[str, Any] = {"name": "vllm", "container": "vllm_1.a-b"}


def test_a_container_is_ready_by_its_own_health_check_unless_told_otherwise() -> None:
    target = parse_target(CONTAINER | {"runtime": "podman"})
    assert (target.container, target.runtime, target.ready.how) == ("vllm_1.a-b", "podman", "health")
    assert Target.from_json(target.to_json()).is_same_as(target)
    assert parse_target(CONTAINER | {"ready": {"type": "port", "port": 1}}).ready == Ready("port", "1", 600)
    # A unit tells it as a unit does, whichever container it runs.
    assert parse_target(CONTAINER | {"unit": "vllm.service"}).ready.how == "notify"


def test_a_record_of_an_earlier_release_is_the_same_target() -> None:
    target = parse_target(UNIT)
    former = {key: value for key, value in target.to_json().items() if key not in ("container", "runtime", "kernels")}
    assert target.is_same_as(Target.from_json(former))


@pytest.mark.parametrize(
    ("given", "knob"),
    [
        *((CONTAINER | {"container": name}, "first_token.vllm.container") for name in ("x", "-rm", "a/b", "a b", "ä1")),
        (CONTAINER | {"container": "x" * 129}, "first_token.vllm.container"),
        (CONTAINER | {"runtime": "lxc"}, "first_token.vllm.runtime"),
        (COMMAND | {"runtime": "docker"}, "first_token.app.runtime"),
        (COMMAND | {"container": "app"}, "first_token.app"),
        (CONTAINER | {"ready": {"type": "notify"}}, "first_token.vllm.ready"),
        (UNIT | {"ready": {"type": "health"}}, "first_token.vllm.ready"),
        (COMMAND | {"ready": {"type": "health"}}, "first_token.app.ready"),
    ],
)
def test_a_container_that_cannot_be_is_refused_by_its_knob(given: dict[str, Any], knob: str) -> None:
    test_what_cannot_be_is_refused_by_its_knob(given, knob)


def test_a_container_gets_a_unit_for_the_boot_and_nothing_else() -> None:
    target = parse_target(CONTAINER)
    assert list(wanted_files(target, [])) == [target.replay_unit]
    assert "Description=Read what container vllm_1.a-b reads" in wanted_files(target, [])[target.replay_unit]
    assert target.has_boot_link
    for replay in ("together", "none"):
        assert wanted_files(parse_target(CONTAINER | {"replay": replay}), []) == {}
    # With a unit, that has the files of a unit.
    assert len(wanted_files(parse_target(CONTAINER | {"unit": "vllm.service"}), [])) == 2
