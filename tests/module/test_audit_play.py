"""audit.yml under the real ansible-playbook, with a memory_info that plays its part: exit codes, files, lost hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")

MEMORY_INFO = """
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({"thp": {"type": "dict"}, "pools": {"type": "list"}, "overcommit": {"type": "raw"},
                        "mounts": {"type": "list"}, "first_token": {"type": "bool"}, "accept_loss": {"type": "raw"},
                        "facts": {"type": "bool"}}, supports_check_mode=True)
thp = {"enabled": None, "defrag": None, "sizes": None, **module.params["thp"]}
if thp["enabled"] == "broken":
    module.fail_json(msg="thp.enabled: no such file")
if thp["enabled"] == "hung":
    __import__("time").sleep(60)
drifted = thp["enabled"] == "drifted"
row = {"knob": "thp.enabled", "desired": "madvise", "runtime": "always" if drifted else "madvise", "persisted": None,
       "boot": None, "source": None, "verdict": "drift" if drifted else "clean",
       "detail": "%s; asked for %s and %s" % (thp["enabled"], thp["defrag"], thp["sizes"])}
writer = {"path": "/etc/rc.local", "line": 1, "knob": "thp.enabled", "value": None, "kind": "a script", "detail": "rc"}
competitors = [writer] if thp["enabled"] == "contested" else []
module.exit_json(changed=False, rows=[row], competitors=competitors)
"""

INVENTORY = """
gpu-hosts:
  vars: {ansible_connection: local, ansible_become: false, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  hosts:
    clean: {thp_enabled: madvise}
    drifted: {thp_enabled: drifted, thp_defrag: never}
    broken: {thp_enabled: broken}
    contested: {thp_enabled: contested}
    tolerated: {thp_enabled: contested, tolerant: true, tuning_tolerate_competitors: "{{ tolerant }}"}
    hung: {thp_enabled: hung, audit_timeout_s: 1}
    down: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
    down-too: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
odd:
  vars: {ansible_connection: local, ansible_become: false, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  hosts:
    sound: {thp_enabled: madvise}
    contested-too: {thp_enabled: contested}
    undefined: {thp_enabled: madvise, tuning_tolerate_competitors: "{{ nowhere }}"}
    not-boolean: {thp_enabled: madvise, tuning_tolerate_competitors: ja}
    undefined-setting: {thp_enabled: madvise, thp_defrag: "{{ nowhere }}"}
    undefined-time: {thp_enabled: madvise, audit_timeout_s: "{{ nowhere }}"}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("roles", "plugins", "audit.yml"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("library", "playbooks"):
        (folder / name).mkdir()
    for name in ("audit.yml", "vars"):
        (folder / "playbooks" / name).symlink_to(ROOT / "playbooks" / name)
    (folder / "library" / "memory_info.py").write_text(MEMORY_INFO)
    (folder / "hosts.yml").write_text(INVENTORY)
    (folder / "ansible.cfg").write_text(
        "[defaults]\ninventory = hosts.yml\nroles_path = roles\n"
        "module_utils = plugins/module_utils\naction_plugins = plugins/action\n"
        "filter_plugins = plugins/filter\nlookup_plugins = plugins/lookup\n"
    )
    return folder


def run(project: Path, reports: Path, *arguments: str) -> tuple[int, dict[str, str], str]:
    """The exit code, each host's status in audit.json, and what was printed."""
    done = subprocess.run(
        [str(ANSIBLE), "audit.yml", "-e", json.dumps({"audit_reports_dir": str(reports)}), *arguments],
        cwd=project,
        env={**os.environ, "ANSIBLE_CONFIG": str(project / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    document = json.loads((reports / "audit.json").read_text())
    return done.returncode, {name: host["status"] for name, host in document["hosts"].items()}, done.stdout


@pytest.mark.parametrize(
    ("limit", "code", "statuses"),
    [
        ("clean,tolerated", 0, {"clean": "clean", "tolerated": "clean"}),
        ("clean,drifted", 2, {"clean": "clean", "drifted": "drift"}),
        ("broken,hung", 2, {"broken": "error", "hung": "error"}),
        ("down,down-too", 4, {"down": "unreachable", "down-too": "unreachable"}),
        ("all", 4, None),
    ],
)
def test_exit_codes(project: Path, tmp_path: Path, limit: str, code: int, statuses: dict[str, str] | None) -> None:
    found = run(project, tmp_path, "-l", limit)
    everything = {
        "broken": "error",
        "clean": "clean",
        "contested": "drift",
        "tolerated": "clean",
        "down": "unreachable",
        "down-too": "unreachable",
        "drifted": "drift",
        "hung": "error",
    }
    assert found[:2] == (code, statuses or everything), found[2]


def test_a_host_with_an_unusable_variable_is_an_error_and_the_rest_is_reported(project: Path, tmp_path: Path) -> None:
    code, statuses, printed = run(project, tmp_path, "-e", "audit_hosts=odd")
    errors = ("undefined", "not-boolean", "undefined-setting", "undefined-time")
    assert statuses == {"sound": "clean", "contested-too": "drift", **dict.fromkeys(errors, "error")}, printed
    assert code == 2
    assert "tuning_tolerate_competitors: wanted true or false; found 'ja'." in printed
    assert "tuning_tolerate_competitors: wanted true or false; found no value ('nowhere' is undefined)." in printed
    assert "Traceback" not in printed


def test_check_mode_reports_as_well(project: Path, tmp_path: Path) -> None:
    code, statuses, printed = run(project, tmp_path, "--check", "-l", "drifted")
    assert (code, statuses) == (2, {"drifted": "drift"})
    # Settings that the inventory leaves out are left out of the module's options.
    assert "drifted; asked for never and None" in printed
    assert "changed=0" in printed
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        "_fleet.prom",
        "audit.json",
        "audit.md",
        "audit.xml",
        "drifted.prom",
    ]


def test_a_folder_that_cannot_be_written_is_one_error(project: Path, tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text('{"hosts": {}}')
    (tmp_path / "metrics").write_text("a file where a folder should be")
    code, _, printed = run(project, tmp_path, "-l", "clean")
    assert code == 2
    assert f"the audit cannot be written to {tmp_path}" in printed
    assert "Traceback" not in printed
