#!/usr/bin/python
"""Measure how a model loads, cold and warm: one verified block a call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slm_benchmark
short_description: Measure how a small language model loads, cold and warm
description:
  - Runs one block, a cold and a warm load of the model, each as a fresh unprivileged process that is watched from
    outside, with the state of the page cache verified before and after. C(docs/measuring.md) tells the protocol.
  - Every sample is appended durably to C(/var/lib/slm-baseline/runs/RUN/samples.jsonl) before the next one starts. A
    block that the same run has finished, of the same subject under the same settings, is not measured again.
  - A loader that crashes, hangs or is killed makes a sample of kind C(failed), not a failed task.
  - With O(state=checked) nothing is measured or changed; the task fails if a measurement could not work.
author: slm-baseline maintainers
extends_documentation_fragment:
  - slm_baseline
  - slm_baseline.loader
  - slm_baseline.model
  - slm_baseline.trial
  - slm_baseline.run
options:
  state:
    description: >-
      Whether to measure a block, only to check that measuring would work, or to fetch what a run before measured, as it
      was kept on the host.
    type: str
    choices: [measured, checked, fetched]
    default: measured
  block:
    description: Which block, from 1.
    type: raw
    default: 1
  blocks:
    description: How many blocks the run has. The result of the last one holds the whole run.
    type: raw
    default: 1
  scope:
    description: What a cold load evicts. C(host) drops all caches, C(app) interpreter, libraries and model, C(weights)
      the model.
    type: raw
    default: host
  dtype:
    description: The dtype to load in. C(auto) is the one that the model's config names, or else the stored one; where
      that differs from the stored one, the loader copies the weights.
    type: raw
    default: auto
  timeout_s:
    description: Seconds after which a loader is killed.
    type: raw
    default: 600
  base_python:
    description: For O(state=checked), the Python that an environment would be made from.
    type: str
    default: ""
  requirements:
    description: For O(state=checked), the lock that an environment would be made from.
    type: str
    default: ""
  pip_options:
    description: For O(state=checked), the options of C(pip install) that an environment would be made with.
    type: list
    elements: str
    default: []
  keep:
    description: What the host keeps beside the samples of a whole run, and gives back with O(state=fetched).
    type: dict
    default: {}
  fetch:
    description: For O(state=fetched), the run's id; empty for the latest.
    type: str
    default: ""
  trial:
    description: For O(state=checked), the text of a program that tries whether a model can be loaded, without its
      weights, where the loader's Python is there already. It runs in that Python as O(user). Empty tries nothing.
  allow_busy_gpu:
    description: Whether to measure where other processes use a GPU.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Checks and measures nothing.}
  diff_mode: {support: none, description: Measuring leaves samples and nothing else.}
"""

EXAMPLES = r"""
- name: Measure three blocks
  slm_benchmark:
    model: qwen2.5-0.5b
    block: "{{ item }}"
    blocks: 3
    run: "{{ slm_run }}"
  loop: [1, 2, 3]
  register: measured
  loop_control:
    label: "{{ measured.msg }}"
"""

RETURN = r"""
msg:
  description: The block in one line, with the time left.
  returned: success
  type: str
  sample: "block 2 of 3: cold 8.31 s, warm 4.02 s, about 14 s left"
samples:
  description: The block's samples, as C(plugins/schemas/result.schema.json) describes them.
  returned: success, not in check mode
  type: list
  elements: dict
undone:
  description: Changes of an interrupted sweep that were undone before the block.
  returned: success, not in check mode
  type: list
  elements: dict
tried:
  description: The model, as O(model) names it, where its trial ran; empty where none did.
  returned: success, when state is checked or in check mode
  type: str
benchmark:
  description: The whole run (host, model, software, protocol, ceiling, imports, samples), as the result document wants.
  returned: success, last block, not in check mode
  type: dict
kept:
  description: The run as it was kept (C(benchmark), C(run), C(finished_at), and what O(keep) had).
  returned: when state is fetched
  type: dict
problem:
  description: The error in parts (knob, wanted, found, why, next_step).
  returned: failure
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.host.clock import now
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.loader.process import ControllerGone
from ansible.module_utils.slm_baseline.measuring.run import (
    SettingsWatch,
    measure_block,
    parse_block,
    parse_request,
    require_measurable,
)
from ansible.module_utils.slm_baseline.measuring.store import keep_run, kept_run
from ansible.module_utils.slm_baseline.module import SETTER_ARGUMENTS, finish
from ansible.module_utils.slm_baseline.setter import leased_and_undone
from ansible.module_utils.slm_baseline.settings.kinds.effective_values import changed_settings, effective_settings

_ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["measured", "checked", "fetched"], "default": "measured"},
    "model": {"type": "str", "required": True},
    "revision": {"type": "str", "default": ""},
    "block": {"type": "raw", "default": 1},
    "blocks": {"type": "raw", "default": 1},
    "scope": {"type": "raw", "default": "host"},
    "dtype": {"type": "raw", "default": "auto"},
    "timeout_s": {"type": "raw", "default": 600},
    "user": {"type": "str", "default": "nobody"},
    "home": {"type": "str", "default": "/opt/slm-baseline"},
    "python": {"type": "str", "default": ""},
    "image": {"type": "str", "default": ""},
    "runtime": {"type": "str", "default": ""},
    "image_python": {"type": "str", "default": "python3"},
    "base_python": {"type": "str", "default": ""},
    "requirements": {"type": "str", "default": ""},
    "pip_options": {"type": "list", "elements": "str", "default": []},
    "trial": {"type": "str", "default": ""},
    "allow_busy_gpu": {"type": "bool", "default": False},
    "hf_home": {"type": "str", "default": ""},
    "offline": {"type": "bool", "default": True},
    "keep": {"type": "dict", "default": {}},
    "fetch": {"type": "str", "default": ""},
    **SETTER_ARGUMENTS,
}

WATCH = SettingsWatch(effective_settings, changed_settings)


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, supports_check_mode=True)

    def work(host: Host) -> dict[str, Any]:
        if module.params["state"] == "fetched":
            return {"changed": False, "kept": kept_run(host, module.params["fetch"])}
        request = parse_request(module.params)
        number = parse_block(module.params["block"], request.blocks)
        if module.check_mode or module.params["state"] == "checked":
            ready = require_measurable(host, request)
            told = f"block {number} of {request.blocks}: not measured in check mode"
            return {
                "changed": False,
                "msg": told if module.params["state"] == "measured" else "ready to measure",
                **ready,
            }
        # Otherwise settings left by an interrupted sweep would be measured as if the user had set them.
        with leased_and_undone(module, host) as (run_id, undone):
            measured = measure_block(host, request, run_id, number, WATCH)
            if "benchmark" in measured:
                started = (module.params["run"] or {}).get("started_at")
                about = {"run": {"id": run_id, "started_at": started}, "finished_at": now(), **module.params["keep"]}
                keep_run(host, run_id, {**about, "benchmark": measured["benchmark"]})
        return {**measured, "changed": measured["changed"] or bool(undone), "undone": undone}

    try:
        finish(module, work)
    except ControllerGone:
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
