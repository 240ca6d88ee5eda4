#!/usr/bin/python
"""Record what a start reads, and replay it before the next start."""

from __future__ import annotations

DOCUMENTATION = r"""
module: first_token
short_description: Shorten the cold start of a systemd unit, a container or a command
description:
  - Starts the target once with an empty page cache and records with fanotify what it opens and which pages of it are
    read, until it is ready. The plan lies in C(/var/lib/slm-baseline/first-token), which only root can write.
  - Where modules that it imports have no bytecode, the target is started once more with a cache folder of its own user,
    in which its own interpreter keeps what it compiles. Later starts get the cache only while it fits.
  - A systemd unit gets a drop-in and a unit beside it that replays the plan. A container is made anew between recording
    and replay, so its plan has files of its image's layers, bind mounts and named volumes, which each boot reads ahead.
    A command is started with C(/var/lib/slm-baseline/first-token/bin/slm-start NAME -- command).
  - A target that is set up already, with no file of its plan changed, is not started and not changed.
author: slm-baseline maintainers
extends_documentation_fragment: [slm_baseline, slm_baseline.run]
options:
  name:
    description: The target's name. It names a folder and a unit. Left out with O(state=absent), every target is meant.
    type: str
  state:
    description:
      - C(absent) removes plan, bytecode and units. What somebody else changed since is left and listed.
    type: str
    choices: [present, absent]
    default: present
  unit:
    description:
      - The systemd service to start sooner. It is stopped and started once or twice, and so are the units that ran and
        are stopped with it. What ran runs again at the end, and that is looked at.
    type: str
  container:
    description:
      - In place of a unit, the container to start by its name, which docker or podman of root has. It is stopped and
        started once or twice, and runs or not at the end as before.
      - Beside a unit, the container that it runs, where the unit's command (C(docker run --name), C(podman start), a
        Quadlet's) does not name it.
    type: str
  runtime:
    description: The runtime that has the container. Where it is not given, the one that knows the container.
    type: str
    choices: [docker, podman]
  command:
    description: In place of a unit, the program with its arguments; the program's path is absolute.
    type: list
    elements: str
  user:
    description: The unprivileged user that the command runs as.
    type: str
  environment:
    description:
      - Environment variables of the command. Their values are in no result, log or diff; the host keeps digests.
    type: dict
  ready:
    description: How to tell that the target is ready, and how long it may take.
    type: dict
    suboptions:
      type:
        description: C(notify) asks systemd (the default for a unit), C(port) and C(url) ask the service, C(health) asks
          the container's own health check (the default for a container), C(exit) waits for the end (the default for a
          command).
        type: str
        choices: [notify, port, url, exit, health]
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
  kernels:
    description:
      - Whether to keep compiled GPU kernels (of the driver, Triton, Inductor, torch, vLLM, FlashInfer, Numba)
        in a folder of the target's own user, where its own place for them does not last.
      - A container is given such folders by a drop-in for its Quadlet. For another container the result says what to
        add, as an override file for compose or as options; nothing that the user wrote is changed.
    type: bool
    default: true
  force:
    description: With O(state=absent), remove files of ours that somebody else changed since, too.
    type: bool
    default: false
  programs:
    description:
      - C(slm_replay.py), C(slm_fit.py) and C(slm_restart.py) of the control node's copy of this project, as texts by
        file name.
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

- name: Shorten the start of an engine in a container
  first_token:
    name: vllm
    container: vllm
    ready: {type: url, url: "http://127.0.0.1:8000/health"}
    programs: "{{ __first_token_programs }}"
"""

RETURN = r"""
plan:
  description: What the plan holds (files, folders, imports_bytes, weights_bytes), and as resident_bytes what of the
    imports was in memory, with what the kernel read around them.
  returned: when it was recorded
  type: dict
bytecode:
  description:
    - What the cache holds; null for no cache. C(compiled) modules that were compiled at every start, C(copied) ones
      that had bytecode elsewhere, and C(bytes). C(failed) is 0 and C(compile_s) null, since nobody compiles beside the
      start.
  returned: when it was recorded
  type: dict
kernels:
  description: The C(caches) of compiled kernels that are kept, and the C(files) and C(bytes) that the start left there;
    null where none are.
  returned: when it was recorded
  type: dict
  sample: {caches: [cuda, triton], files: 6, bytes: 602000}
given:
  description:
    - What a container is given so that it keeps what each new one made anew; null for nothing. C(how) is C(quadlet) (a
      drop-in beside the user's file), C(compose) (an override file), C(options) (of C(docker run)) or C(mounted) (it
      has them already). C(volumes) and C(environment) are what it gets, C(file) is ours that says so, and C(use) what
      the user does for it.
  returned: when it was recorded
  type: dict
  sample:
    how: options
    volumes: ["/var/lib/slm-baseline/first-token/targets/vllm/given/vllm:/root/.cache/vllm:Z"]
    environment: {}
    file: null
    use: "--volume /var/lib/slm-baseline/first-token/targets/vllm/given/vllm:/root/.cache/vllm:Z"
remade:
  description:
    - What a new container makes anew, as the recorded start shows it; null for a target of the host itself.
    - C(caches) has each known cache by its folder in the container, with the C(files) that the start wrote in there,
      and the seconds of the start between which they were written (C(first_written_s), C(last_written_s); null for no
      file). Other work lies between, so this says when, not how long.
    - C(bytecode) is null below 50 modules without bytecode. Else C(compiled) of the C(lacking) modules were compiled
      once after the start, in C(compile_s) CPU seconds, by the host's own C(python) of that version.
  returned: when it was recorded
  type: dict
  sample:
    caches: {/root/.cache/vllm: {files: 12, first_written_s: 12.1, last_written_s: 31.4}}
    bytecode: {lacking: 1735, compiled: 1735, compile_s: 5.8, python: 3.11.2}
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
stops:
  description:
    - What recording stops and starts again. C(unit), whether it C(runs) now, how often at most (C(times)), and the
      units that are stopped C(with) it. C(unit) is C(container NAME) for a container without a unit.
  returned: success, with state present
  type: list
  elements: dict
  sample: [{target: vllm, unit: vllm.service, runs: true, times: 2, with: [proxy.service]}]
service_down:
  description: Whether a service that was stopped does not run again. C(problem) names it.
  returned: where that is so
  type: bool
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

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.first_token.audit import difference, is_set_up, rows, rows_of
from ansible.module_utils.slm_baseline.first_token.install import find_subject, put_programs, set_up, stops_of
from ansible.module_utils.slm_baseline.first_token.places import target_names
from ansible.module_utils.slm_baseline.first_token.recorder.interruption import ServiceDown, make_good, read_note
from ansible.module_utils.slm_baseline.first_token.remove import remove_all
from ansible.module_utils.slm_baseline.first_token.target import Target, digest, parse_name, parse_target
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import PROGRAMS
from ansible.module_utils.slm_baseline.module import (
    COMMON_ARGUMENTS,
    RUN_ARGUMENT,
    fail,
    finish,
    leased,
    require_root,
    warn,
)

READY_ARGUMENT: dict[str, Any] = {
    "type": "dict",
    "options": {
        "type": {"type": "str", "choices": ["notify", "port", "url", "exit", "health"]},
        "port": {"type": "int"},
        "url": {"type": "str"},
        "timeout_s": {"type": "float", "default": 600},
    },
}
_LEAST_SECRET = 8
"""Shorter values (`1`, `false`) occur in too many results to be hidden there, and are no secrets."""


def keep_secret(module: AnsibleModule) -> dict[str, str]:
    """Return the environment's values, and replace them with digests in what the module reports.

    Ansible hides the values of a no_log option wherever they occur in a result, short ones and paths too, so only
    possible secrets are left to it.
    """
    environment = {str(name): str(value) for name, value in (module.params["environment"] or {}).items()}
    module.no_log_values -= {
        value for value in environment.values() if len(value) < _LEAST_SECRET or value.startswith("/")
    }
    if environment:
        module.params["environment"] = {name: digest(name, value) for name, value in environment.items()}
    return environment


def main() -> None:
    module = AnsibleModule(
        {
            "name": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "unit": {"type": "str"},
            "container": {"type": "str"},
            "runtime": {"type": "str", "choices": ["docker", "podman"]},
            "command": {"type": "list", "elements": "str"},
            "user": {"type": "str"},
            "environment": {"type": "dict", "no_log": True},
            "ready": READY_ARGUMENT,
            "replay": {"type": "str", "choices": ["together", "ahead", "both", "none"], "default": "both"},
            "bytecode": {"type": "bool", "default": True},
            "kernels": {"type": "bool", "default": True},
            "force": {"type": "bool", "default": False},
            "programs": {"type": "dict", "default": {}},
            "run": RUN_ARGUMENT,
            **COMMON_ARGUMENTS,
        },
        required_if=[("state", "present", ["name"])],
        supports_check_mode=True,
    )
    environment = keep_secret(module)
    given = {**module.params, "environment": environment}

    def work(host: Host) -> dict[str, Any]:
        require_root(host, "first_token")
        return absent(host) if given["state"] == "absent" else present(host)

    def present(host: Host) -> dict[str, Any]:
        target = parse_target(given)
        programs = {f"{PROGRAMS}/{name}": str(text).encode() for name, text in given["programs"].items()}
        if is_set_up(host, target) and read_note(host) is None:
            return {"rows": rows_of(host, target.name), "stops": [], **_kept(module, host, target, programs)}
        diff, stops = difference(host, target), stops_of(find_subject(host, target))
        told = {"diff": diff, "stops": stops}
        if module.check_mode:
            summary = f"{target.name}: would be recorded{_stopping(stops)}"
            return {"changed": True, "summary": summary, "rows": rows_of(host, target.name), **told}
        with leased(module, host):
            try:
                outcome = set_up(host, target, programs)
            except ServiceDown as error:
                fail(module, str(error), problem=error.as_dict(), service_down=True)
        return {
            **outcome.to_json(),
            "summary": outcome.summary(target),
            "rows": rows_of(host, target.name),
            **told,
        }

    def absent(host: Host) -> dict[str, Any]:
        found = target_names(host)
        names = [parse_name(given["name"])] if given["name"] else found
        names = [name for name in names if name in found]
        if module.check_mode:
            done = remove_all(host, names, given["force"], dry_run=True)
        elif names or read_note(host) is not None:
            with leased(module, host):
                done = remove_all(host, names, given["force"])
        else:
            make_good(host)
            done = remove_all(host, [], given["force"], dry_run=True)
        warn(module, done.warning)
        if done.problems:
            raise SettingError(
                "first_token",
                "every target taken away",
                "; ".join(done.problems),
                "Their units are gone; what lies in their folders is not.",
                "see who fills the folder, then run this again.",
            )
        told = {"removed": done.removed, "left": done.left, "diff": {"before": done.diff, "after": ""}}
        return {"changed": bool(done.removed or done.started), "rows": rows(host), **told}

    finish(module, work)


def _kept(module: AnsibleModule, host: Host, target: Target, programs: Mapping[str, bytes]) -> dict[str, Any]:
    """Update the programs of a target that is already set up; return the result."""
    changed = not module.check_mode and bool(programs) and put_programs(host, target, programs)
    return {"changed": changed, "summary": f"{target.name}: set up already"}


def _stopping(stops: list[dict[str, Any]]) -> str:
    """Return in words what is stopped."""
    if not stops:
        return ""
    also = [name for each in stops for name in each["with"]]
    return f"; {stops[0]['unit']} would be stopped and started up to twice" + (
        f", and with it {', '.join(also)}" if also else ""
    )


if __name__ == "__main__":
    main()
