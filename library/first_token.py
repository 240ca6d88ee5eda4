#!/usr/bin/python
"""Record what a start reads, and have it read before the next start asks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: first_token
short_description: Shorten the cold start of a systemd unit or a command
description:
  - Starts the target once with an empty page cache and records with fanotify what it opens and which pages of it are
    read, until it is ready. The plan lies in C(/var/lib/slm-baseline/first-token), which only root can write.
  - Where modules that it imports have no bytecode, the target's own interpreter compiles them as the target's own
    user, root stores the result in a cache folder, and the target is recorded once more with it.
  - A systemd unit gets a drop-in and a unit beside it that replays the plan. A command is started with
    C(/var/lib/slm-baseline/first-token/bin/slm-start NAME -- command).
  - A target that is set up already, with no file of its plan changed, is not started and not changed.
author: slm-baseline maintainers
extends_documentation_fragment: [slm_baseline, slm_baseline.run]
options:
  name:
    description: The target's name. It names a folder and a unit. Left out with O(state=absent), every target is meant.
    type: str
  state:
    description: C(absent) removes plan, bytecode and units. What somebody else changed since is left and listed.
    type: str
    choices: [present, absent]
    default: present
  unit:
    description: The systemd service to start sooner. It is restarted once or twice.
    type: str
  command:
    description: In place of a unit, the program with its arguments; the program's path is absolute.
    type: list
    elements: str
  user:
    description: The unprivileged user that the command runs as.
    type: str
  environment:
    description: Environment variables of the command.
    type: dict
  ready:
    description: How to tell that the target is ready, and how long it may take.
    type: dict
    suboptions:
      type:
        description: C(notify) asks systemd (the default for a unit), C(port) and C(url) ask the service, C(exit) waits
          for the command's end (the default for a command).
        type: str
        choices: [notify, port, url, exit]
      port:
        description: A TCP port on the host itself.
        type: int
      url:
        description: An HTTP address that answers with 2xx once the target is ready.
        type: str
      timeout_s:
        description: A start that takes longer is an error. In seconds.
        type: float
        default: 600
  replay:
    description: C(together) replays as the unit starts, C(ahead) at boot, C(both) does both, C(none) only records.
    type: str
    choices: [together, ahead, both, none]
    default: both
  bytecode:
    description: Whether to keep bytecode for modules that have none.
    type: bool
    default: true
  force:
    description: With O(state=absent), remove files of ours that somebody else changed since, too.
    type: bool
    default: false
  programs:
    description: The folder on the control node's copy of this project with C(slm_replay.py) and C(slm_compile.py), as
      texts by file name.
    type: dict
    default: {}
attributes:
  check_mode: {support: full, description: Says whether the target would be recorded; starts nothing.}
  diff_mode:
    support: full
    description: Before and after are the target's audit rows with their reasons, and the files that a removal takes; a
      plan itself has thousands of lines.
"""

EXAMPLES = r"""
- name: Shorten the start of a serving engine
  first_token:
    name: vllm
    unit: vllm.service
    ready: {type: url, url: "http://127.0.0.1:8000/health"}
    programs: "{{ __first_token_programs }}"
"""

RETURN = r"""
plan:
  description: What the plan holds (files, folders, imports_bytes, weights_bytes).
  returned: when it was recorded
  type: dict
bytecode:
  description: What the cache holds (compiled, copied, failed, compile_s in CPU seconds, bytes); null for no cache.
  returned: when it was recorded
  type: dict
starts:
  description: How often the target was started.
  returned: when it was recorded
  type: int
summary:
  description: One line on the target.
  returned: success, with state present
  type: str
notes:
  description: What is to be known of the recording, as sentences.
  returned: when it was recorded
  type: list
  elements: str
removed:
  description: What was removed.
  returned: state absent
  type: list
  elements: str
left:
  description: Files that somebody else changed since, and that are therefore left.
  returned: state absent
  type: list
  elements: str
rows:
  description: The target's audit rows.
  returned: success
  type: list
  elements: dict
problem:
  description: The error in parts (knob, wanted, found, why, next_step).
  returned: failure
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.first_token.setup import difference, is_set_up, remove_all, rows, rows_of, set_up
from ansible.module_utils.slm_baseline.first_token.target import parse_name, parse_target, recorded_targets
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import PROGRAMS
from ansible.module_utils.slm_baseline.module import COMMON_ARGUMENTS, RUN_ARGUMENT, finish, leased, require_root, warn


def main() -> None:
    ready = {
        "type": {"type": "str", "choices": ["notify", "port", "url", "exit"]},
        "port": {"type": "int"},
        "url": {"type": "str"},
        "timeout_s": {"type": "float", "default": 600},
    }
    module = AnsibleModule(
        {
            "name": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "unit": {"type": "str"},
            "command": {"type": "list", "elements": "str"},
            "user": {"type": "str"},
            "environment": {"type": "dict"},
            "ready": {"type": "dict", "options": ready},
            "replay": {"type": "str", "choices": ["together", "ahead", "both", "none"], "default": "both"},
            "bytecode": {"type": "bool", "default": True},
            "force": {"type": "bool", "default": False},
            "programs": {"type": "dict", "default": {}},
            "run": RUN_ARGUMENT,
            **COMMON_ARGUMENTS,
        },
        required_if=[("state", "present", ["name"])],
        supports_check_mode=True,
    )
    given = module.params

    def work(host: Host) -> dict[str, Any]:
        require_root(host, "first_token")
        return absent(host) if given["state"] == "absent" else present(host)

    def present(host: Host) -> dict[str, Any]:
        target = parse_target(given)
        if is_set_up(host, target):
            return {"changed": False, "rows": rows_of(host, target.name), "summary": f"{target.name}: set up already"}
        diff = difference(host, target)
        if module.check_mode:
            told = {"changed": True, "summary": f"{target.name}: would be recorded", "diff": diff}
            return {**told, "rows": rows_of(host, target.name)}
        with leased(module, host):
            programs = {f"{PROGRAMS}/{name}": str(text).encode() for name, text in given["programs"].items()}
            outcome = set_up(host, target, programs)
        told = {"summary": outcome.summary(target), "diff": diff}
        return {**outcome.to_json(), **told, "rows": rows_of(host, target.name)}

    def absent(host: Host) -> dict[str, Any]:
        names = [parse_name(given["name"])] if given["name"] else list(recorded_targets(host))
        names = [name for name in names if name in recorded_targets(host)]
        if module.check_mode or not names:
            done = remove_all(host, names, given["force"], dry_run=True)
        else:
            with leased(module, host):
                done = remove_all(host, names, given["force"])
        warn(module, done.warning)
        told = {"removed": done.removed, "left": done.left, "diff": {"before": done.diff, "after": ""}}
        return {"changed": bool(done.removed), "rows": rows(host), **told}

    finish(module, work)


if __name__ == "__main__":
    main()
