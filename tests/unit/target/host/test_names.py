"""One machine under two names of an inventory: the same tuning, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.names import refuse_second_tuning
from ansible.module_utils.slm_baseline.host.paths import NAMES, VOLATILE

from tests.support.fakes import put

WANTED = {"thp.enabled": "madvise", "hugepages.2M": "1024"}


def run(host: str, run_id: str = "r1") -> dict[str, Any]:
    return {"id": run_id, "host": host}


def test_two_names_that_want_the_same_are_one_machine(fake_host: Host) -> None:
    for _ in range(2):
        for name in ("gpu-1", "gpu-1.example.org"):
            refuse_second_tuning(fake_host, run(name), WANTED, whole=True)


@pytest.mark.parametrize(
    ("second", "found"),
    [
        ({**WANTED, "thp.enabled": "never"}, "thp.enabled madvise as gpu-1, never as alias"),
        ({"thp.enabled": "madvise"}, "hugepages.2M 1024 as gpu-1, unset as alias"),
        ({**WANTED, "vm.x": "1"}, "vm.x unset as gpu-1, 1 as alias"),
        ({}, r"hugepages.2M 1024 as gpu-1, unset as alias \(1 more differ\)"),
    ],
)
def test_the_second_name_is_refused_before_it_changes_anything(
    fake_host: Host, second: dict[str, str], found: str
) -> None:
    refuse_second_tuning(fake_host, run("gpu-1"), WANTED, whole=True)
    before = fake_host.read(NAMES)
    with pytest.raises(SettingError, match=f"^inventory: wanted one tuning for one machine; found {found}"):
        refuse_second_tuning(fake_host, run("alias"), second, whole=True)
    assert fake_host.read(NAMES) == before
    refuse_second_tuning(fake_host, run("gpu-1"), WANTED, whole=True)


def test_a_setter_alone_speaks_of_its_own_settings(fake_host: Host) -> None:
    refuse_second_tuning(fake_host, run("gpu-1"), {"thp.enabled": "madvise"})
    refuse_second_tuning(fake_host, run("alias"), {"hugepages.2M": "8"})
    with pytest.raises(SettingError, match=r"hugepages.2M 8 as alias, 9 as gpu-1"):
        refuse_second_tuning(fake_host, run("gpu-1"), {"hugepages.2M": "9"})
    # The same name may change its mind: that is a loop, not a second name.
    refuse_second_tuning(fake_host, run("alias"), {"hugepages.2M": "10"})


def test_another_run_begins_anew_and_a_run_without_a_name_is_not_asked(fake_host: Host) -> None:
    refuse_second_tuning(fake_host, run("gpu-1"), WANTED, whole=True)
    refuse_second_tuning(fake_host, run("alias", "r2"), {"thp.enabled": "never"}, whole=True)
    for nobody in (None, {"id": "r2"}, {"id": "r2", "host": ""}):
        refuse_second_tuning(fake_host, nobody, {"thp.enabled": "always"}, whole=True)
    assert list(json.loads(fake_host.read(NAMES))["names"]) == ["alias"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"run_id": "r1", "names": 7}', '{"run_id": "r1", "names": {"a": 1}}'])
def test_a_damaged_note_stops_nobody(fake_host: Host, text: str) -> None:
    put(fake_host.root, NAMES, text)
    refuse_second_tuning(fake_host, run("gpu-1"), WANTED, whole=True)


def test_a_folder_that_cannot_be_made_is_a_typed_error(fake_host: Host) -> None:
    Path(fake_host.path(VOLATILE)).parent.mkdir(parents=True, exist_ok=True)
    put(fake_host.root, VOLATILE, "a file")
    with pytest.raises(SettingError, match="run lock"):
        refuse_second_tuning(fake_host, run("gpu-1"), WANTED)
