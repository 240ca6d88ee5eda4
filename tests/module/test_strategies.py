"""Baseline and rollback in batches, in any order, with hosts that fail or are down: who is set, and who fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.module.test_own_plays import LOCAL
from tests.module.test_tags import ANSIBLE, Project

STUB = """
import json
from ansible.module_utils.basic import AnsibleModule, _load_params

given = _load_params()
module = AnsibleModule({{key: {{"type": "raw"}} for key in given if not key.startswith("_")}}, supports_check_mode=True)
word = module.params.get({option!r})
if word == "fails":
    module.fail_json(msg="the host said no")
with open({log!r}, "a") as log:
    log.write({done!r} + " " + str(word) + "\\n")
module.exit_json(**{answer!r})
"""
RESTORED = {"changed": True, "status": "restored", "changes": [], "left": [], "incomplete": [], "first_token": {}}
DOWN = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
HOSTS = {"a": "a", "b-fails": "fails", "c": "c", "d": "d"}
"""What each host is told to set; the stub notes it, or fails."""
TUNE = ("baseline.yml", "--tags", "tune")
ROLLBACK = ("rollback.yml",)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("checkout"))
    for name, option, answer in (("thp", "enabled", {"changed": True}), ("memory_snapshot", "margin", RESTORED)):
        stub = STUB.format(option=option, log=str(project.log), done=name, answer=answer)
        (project.folder / f"library/{name}.py").write_text(stub)
    hosts: dict[str, Any] = {host: {"thp_enabled": word, "hugepages_margin": word} for host, word in HOSTS.items()}
    fleet = {"gpu-hosts": {"vars": LOCAL, "hosts": {**hosts, "e-down": {**DOWN, "thp_enabled": "e"}}}}
    (project.folder / "hosts.json").write_text(json.dumps(fleet))
    return project


def play(
    project: Project, play: Sequence[str], limit: str, keywords: Mapping[str, Any], variables: Mapping[str, Any]
) -> tuple[int, list[str], dict[str, tuple[bool, bool]], str]:
    """Exit code, which hosts were set, for each host in the recap whether it was unreachable and failed; the output.

    Play keywords that no variable of ours sets are written into a copy of the play.
    """
    source = project.folder / "playbooks" / play[0]
    copy = source.with_name(f"own-{play[0]}")
    head = "  gather_facts: false\n"
    told = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in keywords.items())
    copy.write_text(source.read_text().replace(head, head + told, 1))
    project.log.write_text("")
    done = subprocess.run(
        [ANSIBLE, "-i", "hosts.json", copy, *play[1:], "-l", limit, "-e", json.dumps(variables)],
        cwd=project.folder,
        env={**os.environ, "ANSIBLE_CONFIG": "ansible.cfg", "ANSIBLE_HOME": f"{project.folder}/.ansible"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    shown = done.stdout + done.stderr
    recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=\d+\s+unreachable=(\d+)\s+failed=(\d+)", shown, re.MULTILINE)
    states = {host: (unreachable != "0", failed != "0") for host, unreachable, failed in recap}
    calls = re.findall(r"^(?:thp|memory_snapshot) (\S+)$", project.log.read_text(), re.MULTILINE)
    return done.returncode, sorted(calls), states, shown


FINE, FAILED, UNREACHABLE = (False, False), (False, True), (True, False)
A_TO_C = "a,b-fails,c"


@pytest.mark.parametrize("name", [TUNE, ROLLBACK], ids=["tune", "rollback"])
@pytest.mark.parametrize(
    ("keywords", "variables", "limit", "code", "done", "states"),
    [
        # The other host of a failed one's batch is finished, and so are later batches.
        ({}, {"serial": 2}, "a,b-fails,c,d", 2, ["a", "c", "d"], [FINE, FAILED, FINE, FINE]),
        # At most 20 % may fail: the batch after the failure is untouched.
        ({}, {"serial": 2, "max_fail_percentage": 20}, "a,b-fails,c,d", 2, ["a"], [FINE, FAILED]),
        ({"strategy": "free"}, {}, A_TO_C, 2, ["a", "c"], [FINE, FAILED, FINE]),
        # Hosts of the same batch are at the same task: both did it.
        ({"any_errors_fatal": True}, {"serial": 1}, A_TO_C, 2, ["a"], [FINE, FAILED]),
        ({}, {}, "a,e-down", 4, ["a"], [FINE, UNREACHABLE]),
        # Whoever ignores hosts that are down is told of them, and gets the others' verdict.
        ({"ignore_unreachable": True}, {}, "a,e-down", 0, ["a"], [FINE, FINE]),
        ({"ignore_unreachable": True, "strategy": "free"}, {}, "a,e-down", 0, ["a"], [FINE, FINE]),
    ],
    ids=["serial", "max_fail_percentage", "free", "any_errors_fatal", "down", "ignored", "free-ignored"],
)
def test_who_is_set_and_who_fails(
    project: Project,
    name: Sequence[str],
    keywords: Mapping[str, Any],
    variables: Mapping[str, Any],
    limit: str,
    code: int,
    done: Sequence[str],
    states: Sequence[tuple[bool, bool]],
) -> None:
    prefix = name[0].removesuffix(".yml")
    given = {f"{prefix}_{key}": value for key, value in variables.items()}
    found = play(project, name, limit, keywords, given)
    assert found[:3] == (code, list(done), dict(zip(limit.split(","), states, strict=False))), found[3]
    assert "Traceback" not in found[3]
    assert "undefined" not in found[3]
    if "e-down" in limit:
        assert "e-down" in found[3].rpartition("PLAY RECAP")[2]
        assert "nothing to restore" not in found[3]
