"""The measuring modules through Ansible itself, and the role's loop: what a person sees while it measures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

FAKE_BENCHMARK = """
from ansible.module_utils.basic import AnsibleModule

keys = "state model revision block blocks scope dtype timeout_s user home python base_python requirements hf_home "
keys += "model revision image runtime image_python offline run pip_options trial allow_busy_gpu keep"
module = AnsibleModule({key: {"type": "raw"} for key in keys.split()})
assert "torch==" in module.params["requirements"]
assert module.params["pip_options"] == ["--pre"]
if module.params["state"] == "checked":
    module.exit_json(changed=False, tried=TRIED)
block, blocks = int(module.params["block"]), int(module.params["blocks"])
more = {"benchmark": {"samples": [1, 2]}} if block == blocks else {}
module.exit_json(changed=True, msg="block %d of %d: cold 8.31 s, warm 4.02 s" % (block, blocks), **more)
"""
FAKE_OTHER = """
from ansible.module_utils.basic import AnsibleModule

keys = "image runtime image_python home python base_python requirements pip_options scripts user run model revision "
keys += "hf_home offline trial"
module = AnsibleModule({key: {"type": "raw"} for key in keys.split()})
assert module.params["scripts"] is None or "def " in module.params["scripts"]["slm_load.py"]
module.exit_json(changed=False, given=(module.params["trial"] or "")[:200])
"""
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    slm_run: {id: test}
    slm_benchmark_runs: "2"
    slm_benchmark_pip_options: [--pre]
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  tasks:
    - import_role: {name: slm_benchmark, tasks_from: check}
    - import_role: {name: slm_benchmark}
    - assert: {that: "slm_benchmark_measured.results[-1].benchmark.samples == [1, 2]"}
"""


def ansible(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    (folder / "ansible.cfg").touch()
    settings = {
        "ANSIBLE_CONFIG": f"{folder}/ansible.cfg",
        "ANSIBLE_LIBRARY": f"{folder}/library",
        "ANSIBLE_LOCALHOST_WARNING": "0",
    }
    settings |= {"ANSIBLE_MODULE_UTILS": f"{ROOT}/plugins/module_utils", "ANSIBLE_ROLES_PATH": f"{folder}/roles"}
    settings |= {"ANSIBLE_INVENTORY_UNPARSED_WARNING": "0", "ANSIBLE_HOME": f"{folder}/.ansible"}
    program, *arguments = command
    return subprocess.run(
        [BIN / program, *arguments],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def play(tmp_path: Path, tried: str, *more: str) -> str:
    """Run the role with stand-ins for its modules, of which the check says that it tried that model."""
    (tmp_path / "library").mkdir()
    for name in ("roles", "files"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "library/slm_benchmark.py").write_text(FAKE_BENCHMARK.replace("TRIED", repr(tried)))
    for name in ("slm_environment", "slm_model"):
        (tmp_path / f"library/{name}.py").write_text(FAKE_OTHER)
    (tmp_path / "play.yml").write_text(PLAY)
    shown = ansible(tmp_path, "ansible-playbook", "play.yml", *more)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return shown.stdout


def test_every_block_tells_its_times_as_it_ends(tmp_path: Path) -> None:
    shown = play(tmp_path, tried="")
    for block in (1, 2):
        assert f"(item=block {block} of 2: cold 8.31 s, warm 4.02 s)" in shown


@pytest.mark.parametrize(("tried", "is_tried_again"), [("", True), ("/srv/other", True), ("/srv/m", False)])
def test_a_model_that_the_check_could_not_try_is_tried_once_the_environment_is_there(
    tmp_path: Path, tried: str, is_tried_again: bool
) -> None:
    shown = play(tmp_path, tried, "-v", "-e", "slm_benchmark_model=/srv/m")
    given = re.search(r"TASK \[slm_benchmark : Build the model\].*?\n(ok:[^\n]*)", shown, re.S)
    assert given
    assert ("Trial whether a model can be loaded" in given[1]) is is_tried_again


FAKE_SWEEP = """
from ansible.module_utils.basic import AnsibleModule

keys = "state arms dtypes programs seed new weights_pairs share_bytecode share_kernels margin max_share home python "
keys += "model revision image runtime image_python hf_home offline scope timeout_s user run trial allow_busy_gpu"
module = AnsibleModule({key: {"type": "raw"} for key in keys.split()})
params = module.params
module.fail_json(msg="%s, tried: %s, busy: %s" % (params["state"], bool(params["trial"]), params["allow_busy_gpu"]))
"""
SWEEP = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    slm_run: {id: test}
    slm_benchmark_model: /srv/m
    slm_benchmark_pip_options: [--pre]
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  tasks:
    - import_role: {name: slm_benchmark, tasks_from: check}
    - include_role: {name: sweep}
"""


@pytest.mark.parametrize(("tried", "is_tried_again"), [("", True), ("/srv/other", True), ("/srv/m", False)])
def test_a_sweep_tries_a_model_that_its_play_has_not_tried(tmp_path: Path, tried: str, is_tried_again: bool) -> None:
    (tmp_path / "library").mkdir()
    for name in ("roles", "files"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "library/slm_benchmark.py").write_text(FAKE_BENCHMARK.replace("TRIED", repr(tried)))
    (tmp_path / "library/slm_sweep.py").write_text(FAKE_SWEEP)
    for name in ("action", "filter"):
        (tmp_path / f"{name}_plugins").symlink_to(ROOT / "plugins" / name)
    (tmp_path / "play.yml").write_text(SWEEP)
    folders = [f"sweep_{name}_dir={tmp_path}/{name}" for name in ("results", "reports")]
    shown = ansible(tmp_path, "ansible-playbook", "play.yml", "-e", " ".join(folders))
    assert f"planned, tried: {is_tried_again}, busy: False" in shown.stdout + shown.stderr


def checked(tmp_path: Path, module: str, *options: str, **params: Any) -> dict[str, Any]:
    """The module's own answer on a tree that stands for the host."""
    (tmp_path / "library").symlink_to(ROOT / "library")
    host = tmp_path / "host"
    (host / "opt").mkdir(parents=True)
    arguments = json.dumps({"root": str(host), "python": sys.executable, **params})
    interpreter = f"ansible_python_interpreter={sys.executable}"
    command = ("-c", "local", "-e", interpreter, "--one-line", "-m", module, "-a", arguments, *options, "localhost")
    shown = ansible(tmp_path, "ansible", *command)
    found: dict[str, Any] = json.loads(shown.stdout.partition("=> ")[2])
    return found


def test_no_blocks_is_one_error_that_names_the_variable(tmp_path: Path) -> None:
    answer = checked(tmp_path, "slm_benchmark", state="checked", model="tiny", blocks=0)
    assert answer["problem"]["knob"] == "slm_benchmark_runs"
    assert answer["msg"].startswith("slm_benchmark_runs: wanted a whole number from 1")
    assert "exception" not in answer


def test_a_python_without_torch_is_refused_before_anything_else(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can ask a Python as the loader's user")
    with tempfile.TemporaryDirectory() as root:
        # The loader's user has to reach the home in it.
        Path(root).chmod(0o755)
        python = "/usr/bin/python3"
        answer = checked(tmp_path, "slm_benchmark", state="checked", model="tiny", python=python, root=root)
    assert answer["problem"]["knob"] == "slm_benchmark_python"
    assert "without torch" in answer["problem"]["found"]


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    answer = checked(tmp_path, "slm_model", model="/srv/missing")
    assert answer["problem"]["knob"] == "slm_benchmark_model"


def test_check_mode_names_the_scripts_and_writes_nothing(tmp_path: Path) -> None:
    scripts = {"slm_load.py": "print('here')\n"}
    dry = checked(tmp_path, "slm_environment", "--check", scripts=scripts)
    assert (dry["changed"], dry["scripts"]) == (True, ["slm_load.py"])
    assert not (tmp_path / "host/opt/slm-baseline").exists()
