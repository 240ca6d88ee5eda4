"""Targets as a user gives them, and the files that each gets."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile
from ansible.module_utils.slm_baseline.first_token.target import Target, parse_target
from ansible.module_utils.slm_baseline.first_token.unit_files import MARK, mount_units, wanted_files
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
        assert Target.from_json(target.to_json()) == target


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


def test_a_unit_gets_a_drop_in_and_a_unit_beside_it_and_a_command_no_file() -> None:
    target = parse_target(UNIT)
    files = wanted_files(target, has_bytecode=True)
    assert list(files) == [
        "/etc/systemd/system/vllm.service.d/slm-first-token.conf",
        "/etc/systemd/system/slm-first-token-vllm.service",
    ]
    assert all(text.startswith(MARK) for text in files.values())
    assert "Wants=slm-first-token-vllm.service" in files[target.drop_in]
    assert f"Environment=PYTHONPYCACHEPREFIX={target.pycache}" in files[target.drop_in]
    assert "PYTHONPYCACHEPREFIX" not in wanted_files(target, has_bytecode=False)[target.drop_in]
    assert "Wants" not in wanted_files(parse_target(UNIT | {"replay": "ahead"}), True)[target.drop_in]
    assert wanted_files(parse_target(COMMAND), True) == {}


def test_a_replay_at_boot_comes_after_the_mounts_that_hold_what_it_reads() -> None:
    mounts = [MountEntry(number, path, "ext4", "none", "rw", "rw") for number, path in enumerate(("/", "/a", "/a/b-c"))]
    files = [PlanFile(path, False, 1, 2, 3) for path in ("/a/b-c/x", "/ab/y", "/usr/z")]
    units = mount_units(Plan({}, (), files), mounts)
    assert units == [r"a-b\x2dc.mount"]
    target = parse_target(UNIT)
    assert "After=local-fs.target a-b\\x2dc.mount\n" in wanted_files(target, True, units)[target.replay_unit]


def test_nothing_waits_for_a_replay() -> None:
    """A oneshot would be a job that a boot waits for; a unit that comes before others would hold them up."""
    target = parse_target(UNIT)
    text = wanted_files(target, True)[target.replay_unit]
    assert "Type=simple" in text
    assert "DefaultDependencies=no" in text
    assert re.findall("^Before=.*", text, re.MULTILINE) == ["Before=shutdown.target"]
