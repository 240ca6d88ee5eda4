"""Targets as a user gives them, and the files that each gets."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.first_token.files import MARK, wanted_files
from ansible.module_utils.slm_baseline.first_token.target import Target, parse_target
from ansible.module_utils.slm_baseline.host.errors import SettingError

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
