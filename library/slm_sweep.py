#!/usr/bin/python
"""Plan a sweep of huge-page settings on a host, measure it block by block, and close it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slm_sweep
short_description: Measure what huge-page settings do to loading a model, a randomised block at a time
description:
  - O(state=planned) checks that the model can be loaded, with memory for it and GPUs that nobody else uses, and the
    arms against the kernel. It draws the seed and keeps the plan on the host, or takes up the plan of an unfinished
    sweep that asks the same.
  - O(state=block) measures the next block, every arm with every dtype in random order, cold and then warm. Each sample
    is durable before the next one starts. The host's state is stored before the first change and restored, verified, at
    the end of the block, also after an error or a signal; after SIGKILL the next run restores it.
  - O(state=finished) returns every sample; it changes nothing, so it may be asked again.
  - O(state=closed) ends the sweep, once its samples are stored on the control node. Until then the next run goes on
    with it.
author: slm-baseline maintainers
extends_documentation_fragment:
  - slm_baseline
  - slm_baseline.loader
  - slm_baseline.model
  - slm_baseline.trial
  - slm_baseline.run
options:
  state:
    description: What to do; see above.
    type: str
    choices: [planned, block, finished, closed]
    required: true
  arms:
    description:
      - The settings under test, each C({name, about, thp, pool, env, first_token}). C(stock) and
        C(stock-again) must be there and must set nothing.
      - For O(state=planned).
    type: raw
  dtypes:
    description: What the loader is asked to load the weights as; C(auto) is as stored. For O(state=planned).
    type: raw
  seed:
    description: A whole number that decides the order of every block; drawn from the run's id when left out.
    type: raw
  new:
    description: Start a new sweep even where an unfinished one could go on.
    type: bool
    default: false
  weights_pairs:
    description:
      - Pairs of cold and warm that a template's children measure in each cell of a block of weights. 0 has no such
        blocks, and so has a host that can have no template. For O(state=planned).
    type: raw
    default: 0
  measurement:
    description: Whether the next block measures whole loads by fresh processes, or the weights alone by templates.
    type: str
    choices: [full, weights]
    default: full
  cells:
    description:
      - What the next block measures, each C([arm, dtype]), both stocks among them; everything when left out. A block
        that was begun already keeps what it was to measure. For O(state=block), as is O(measurement).
    type: list
    elements: list
  margin:
    description: Memory that an arm's pool must leave available beside the model.
    type: raw
    default: 1G
  max_share:
    description: Largest share of RAM that an arm's pool may take.
    type: raw
    default: 0.5
  programs:
    description:
      - C(slm_replay.py), C(slm_fit.py) and C(slm_restart.py) as texts by file name, for arms with C(first_token).
      - For O(state=planned).
    type: dict
    default: {}
  share_bytecode:
    description:
      - Where modules that the loader imports lack bytecode, give all its starts, stock's too, one cache for them, so
        that no sample pays for compiling. Not in a sweep of arms with C(first_token), nor with O(scope=app).
      - For O(state=planned).
    type: bool
    default: true
  share_kernels:
    description:
      - Where each start compiles GPU kernels anew, give all starts one cache of them, within the same limits.
      - For O(state=planned).
    type: bool
    default: true
  home:
    type: path
  model:
    required: false
  trial:
    description: For O(state=planned), the text of a program that tries whether a model can be loaded, without its
      weights. It runs in the loader's Python as O(user). Empty tries nothing; nor is an embedded model tried.
  allow_busy_gpu:
    description: Whether to measure where other processes use a GPU. For O(state=planned).
    type: bool
    default: false
  scope:
    description: What is evicted before a cold run. C(host) drops the whole page cache.
    type: raw
    default: host
  timeout_s:
    description: Longest run of the loader, in seconds.
    type: raw
    default: 600
  run:
    required: true
attributes:
  check_mode:
    support: partial
    description: Says what a new sweep would measure.
    details: It keeps no plan and measures nothing.
  diff_mode: {support: none, description: A sweep leaves no difference behind.}
"""

EXAMPLES = r"""
- name: Plan a sweep of two arms
  slm_sweep:
    state: planned
    arms:
      - {name: stock}
      - {name: stock-again}
      - {name: always, thp: {enabled: always}}
    dtypes: [auto]
    model: tiny
    run: "{{ slm_run }}"
"""

RETURN = r"""
plan:
  description: What is measured and in which order (run_id, seed, arms, left_out, dtypes, stock, subject,
    weights_pairs, no_template, bytecode, kernels).
  returned: state is planned or finished
  type: dict
is_resumed:
  description: Whether an unfinished sweep goes on.
  returned: state is planned
  type: bool
restored:
  description: Whether settings that an interrupted block had left behind were restored.
  returned: state is planned
  type: bool
block:
  description: The block that was measured, from 1.
  returned: state is block
  type: int
progress:
  description:
    - Finished blocks (done, last_block, next_block, spent_s), the times of their valid samples (times), the arms with
      their dtypes that should be among these (cells), pairs of a block of weights (weights_pairs), mean seconds of a
      cell by measurement (cell_s), and what the canary says of all samples so far (noise).
  returned: success
  type: dict
samples:
  description: Every sample, those of blocks that were cut short included.
  returned: state is finished
  type: list
  elements: dict
finished_blocks:
  description: The attempt that finished each block, by block.
  returned: state is finished
  type: dict
host:
  description: The host's facts; beside it model, software, image, protocol and ceiling, as in the result document.
  returned: state is finished
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.module import COMMON_ARGUMENTS, RUN_ARGUMENT, finish, leased, require_root
from ansible.module_utils.slm_baseline.sweep.run import foresee_sweep, perform

BENCHMARK = {
    "home": {"type": "path", "default": "/opt/slm-baseline"},
    "python": {"type": "str", "default": ""},
    "image": {"type": "str", "default": ""},
    "runtime": {"type": "str", "default": ""},
    "image_python": {"type": "str", "default": "python3"},
    "model": {"type": "str"},
    "revision": {"type": "str", "default": ""},
    "hf_home": {"type": "str", "default": ""},
    "offline": {"type": "bool", "default": True},
    "scope": {"type": "raw", "default": "host"},
    "timeout_s": {"type": "raw", "default": 600},
    "user": {"type": "str", "default": "nobody"},
    "trial": {"type": "str", "default": ""},
    "allow_busy_gpu": {"type": "bool", "default": False},
}
SWEEP = {
    "state": {"type": "str", "choices": ["planned", "block", "finished", "closed"], "required": True},
    "arms": {"type": "raw"},
    "dtypes": {"type": "raw"},
    "seed": {"type": "raw"},
    "new": {"type": "bool", "default": False},
    "weights_pairs": {"type": "raw", "default": 0},
    "measurement": {"type": "str", "choices": ["full", "weights"], "default": "full"},
    "cells": {"type": "list", "elements": "list"},
    "margin": {"type": "raw", "default": "1G"},
    "max_share": {"type": "raw", "default": 0.5},
    "programs": {"type": "dict", "default": {}},
    "share_bytecode": {"type": "bool", "default": True},
    "share_kernels": {"type": "bool", "default": True},
    "run": {**RUN_ARGUMENT, "required": True},
}


def main() -> None:
    module = AnsibleModule({**COMMON_ARGUMENTS, **BENCHMARK, **SWEEP}, supports_check_mode=True)

    def work(host: Host) -> dict[str, Any]:
        require_root(host, "sweep")
        if module.check_mode:
            return foresee_sweep(host, module.params)
        with leased(module, host, last=module.params["state"] == "closed"):
            return perform(host, module.params)

    finish(module, work)


if __name__ == "__main__":
    main()
