#!/usr/bin/python
"""Read everything about a host's huge-page memory, and compare it with a wanted tuning. Changes no setting."""

from __future__ import annotations

DOCUMENTATION = r"""
module: memory_info
short_description: Read a host's huge-page memory and judge a wanted tuning against it
description:
  - Gathers THP knobs, pools by size and node, hugetlbfs mounts, who uses pool pages, meminfo, NUMA nodes, what is
    persisted in which file, and the kernel command line, in one call.
  - Option a wanted tuning, compares each knob's wanted, runtime, persisted and boot values (C(rows)) and names other
    writers of the same knobs with file and line (C(competitors)).
  - Never changes a setting.
author: slm-baseline maintainers
extends_documentation_fragment: [slm_baseline, slm_baseline.run, slm_baseline.losses]
options:
  thp:
    description: The wanted THP settings, in the form of M(thp)'s options.
    type: raw
  pools:
    description: The wanted pools, in the form of M(hugepages)'s option.
    type: raw
  overcommit:
    description: The wanted limits of surplus pages, in the form of M(hugepages)'s option.
    type: raw
  mounts:
    description: The wanted mounts, in the form of M(hugetlbfs)'s option.
    type: raw
  preflight:
    description: Whether to fail, with the reason, when the wanted tuning cannot or must not be applied to this host.
    type: bool
    default: false
  model:
    description: The model that must fit beside the pools, for the memory guard.
    type: str
  revision:
    description: Branch, tag or commit of a hub id, for the memory guard.
    type: str
    default: ""
  hf_home:
    description: The cache of the hub on the host, where the memory guard looks up how large a hub id's model is.
    type: str
    default: /opt/slm-baseline/huggingface
  margin:
    description: Memory to keep available beside pools and model, for the memory guard.
    type: raw
    default: 1G
  max_share:
    description: The largest share of RAM that pools may take, for the memory guard.
    type: raw
    default: 0.5
  compact:
    description: The wanted M(hugepages) option of that name; only its form is checked, and only before a change.
    type: raw
    default: false
  facts:
    description: Whether C(memory) is returned.
    type: bool
    default: true
  first_token:
    description: Whether C(rows) also has those of the first-token targets on the host (plan and bytecode).
    type: bool
    default: false
  first_token_targets:
    description:
      - The names of the wanted targets. With them, O(first_token) also has a row for each target on the host that is
        not among them.
    type: list
    elements: str
  tolerate_competitors:
    description: Whether other writers of the same knobs are only reported.
    type: bool
    default: false
  release:
    description: Whether this is the last task of O(run) on the host, which is released by it, as by M(run_lease).
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Reads only; releases nothing.}
  diff_mode: {support: none, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Read the memory settings of a host
  memory_info:
  register: memory

- name: Check that a pool would be granted
  memory_info:
    pools: [{size: 2M, count: 1024}]
    preflight: true
"""

RETURN = r"""
memory:
  description: >-
    The facts. C(thp) (its C(lacking) names the settings that the host's kernel does not have), C(pools), C(pool_users),
    C(mounts), C(meminfo), C(numa), C(values), C(persisted), ...
  returned: unless O(facts) is false
  type: dict
rows:
  description: >-
    One row a wanted knob, one for each knob that a drop-in of ours still sets though nobody wants it, one for a sweep
    that was cut short, and one for each folder of ours that does not outlive a reboot.
  returned: always
  type: list
  elements: dict
  sample:
    - {knob: thp.enabled, desired: madvise, runtime: always, persisted: madvise, boot: null,
       source: "/etc/tmpfiles.d/slm-baseline-thp.conf:2", verdict: drift,
       detail: "thp.enabled is always, should be madvise"}
pending:
  description: Whether a setter would change anything, or finish what a run that was cut short began, or a row drifts.
  returned: always, null unless preflight is asked for
  type: bool
dropped:
  description: What an earlier run set and this one does not ask for, so that the setters will restore it.
  returned: always, empty unless preflight is asked for
  type: list
  elements: dict
  sample: [{knob: hugepages.2M, before: "1024", after: "0"}]
competitors:
  description: Other writers that want another value (C(path), C(line), C(knob), C(value), C(kind), C(detail)).
  returned: always
  type: list
  elements: dict
possible_writers:
  description: >-
    What a script or a tool may write, and what the next boot's command line will say, in the form of RV(competitors).
    Notes: they refuse nothing and are no drift.
  returned: always
  type: list
  elements: dict
unreadable:
  description: >-
    Places that could hold another writer and that could not be read (C(path), C(reason)), as without root.
  returned: always
  type: list
  elements: dict
problem:
  description: The error in parts (knob, wanted, found, why, next_step).
  returned: failure
  type: dict
"""

from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.first_token.places import has_anything
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.noting import NotingHost
from ansible.module_utils.slm_baseline.host.validate import Option
from ansible.module_utils.slm_baseline.module import SETTER_ARGUMENTS, finish, require_root, warn
from ansible.module_utils.slm_baseline.settings.audit.conflicts.conflict import Conflict
from ansible.module_utils.slm_baseline.settings.audit.survey import Judging, conflicts_of, judge, left_to_others
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import unreadable_mounts
from ansible.module_utils.slm_baseline.settings.kinds.registry import Wanted, parse_wanted, values_of
from ansible.module_utils.slm_baseline.settings.kinds.thp import unreadable_knobs
from ansible.module_utils.slm_baseline.settings.state.losses import parse_accept_loss


def _preflight(
    host: Host, given: dict[str, Any], wanted: Wanted, conflicts: Sequence[Conflict], accept: frozenset[str]
) -> bool:
    """Return whether anything must change; raise SettingError where it cannot or must not."""
    from ansible.module_utils.slm_baseline.settings.apply.preflight import limited, preflight
    from ansible.module_utils.slm_baseline.settings.kinds.memory_guard import Guard
    from ansible.module_utils.slm_baseline.settings.state.losses import Limits

    Option("hugepages_compact", given["compact"]).boolean()
    guard = Guard.parse(given["margin"], given["max_share"])
    if preflight(host, limited(wanted, Limits(accept)), (), accept):
        # The model must fit beside pools that grow; if none grows, its size does not matter.
        from ansible.module_utils.slm_baseline.measuring.model.files import ModelPlace, expected_bytes

        place = ModelPlace("", given["model"] or "", given["revision"], given["hf_home"], offline=True)
        guard = Guard.parse(given["margin"], given["max_share"], expected_bytes(host, place))
    return preflight(host, limited(wanted, Limits(accept, guard)), conflicts, accept)


def _announce_dropped(
    module: AnsibleModule, host: Host, wanted: Wanted, accept: frozenset[str]
) -> list[dict[str, str]]:
    """Announce settings of an earlier run that this one no longer wants, before a setter restores them; JSON-ready."""
    from ansible.module_utils.slm_baseline.settings.apply.preflight import find_dropped, limited
    from ansible.module_utils.slm_baseline.settings.state.changes import described, tell_restored
    from ansible.module_utils.slm_baseline.settings.state.losses import Limits

    dropped = find_dropped(host, limited(wanted, Limits(accept)))
    warn(module, tell_restored(dropped, "will be"))
    return described(dropped)


def main() -> None:
    module = AnsibleModule(
        {
            "thp": {"type": "raw"},
            "pools": {"type": "raw"},
            "overcommit": {"type": "raw"},
            "mounts": {"type": "raw"},
            "preflight": {"type": "bool", "default": False},
            "model": {"type": "str"},
            "revision": {"type": "str", "default": ""},
            "hf_home": {"type": "str", "default": "/opt/slm-baseline/huggingface"},
            "margin": {"type": "raw", "default": "1G"},
            "max_share": {"type": "raw", "default": 0.5},
            "compact": {"type": "raw", "default": False},
            "facts": {"type": "bool", "default": True},
            "first_token": {"type": "bool", "default": False},
            "first_token_targets": {"type": "list", "elements": "str"},
            "tolerate_competitors": {"type": "bool", "default": False},
            "release": {"type": "bool", "default": False},
            "accept_loss": {"type": "raw"},
            **SETTER_ARGUMENTS,
        },
        supports_check_mode=True,
    )

    def work(host: Host) -> dict[str, Any]:
        """Gather the module's result. Imports are late, since a host compiles every import at every task."""
        given, host = module.params, NotingHost(host.root)
        wanted, pending = parse_wanted(host, given), None
        dropped: list[dict[str, str]] = []
        accept = parse_accept_loss(given["accept_loss"])
        left = left_to_others(host, wanted, accept)
        conflicts, tolerate = conflicts_of(host, wanted, left), given["tolerate_competitors"]
        if given["preflight"]:
            require_root(host, "memory tuning")
            if not module.check_mode:
                from ansible.module_utils.slm_baseline.host.names import refuse_second_tuning

                refuse_second_tuning(host, given["run"], values_of(wanted), whole=True)
            pending = _preflight(host, given, wanted, [] if tolerate else conflicts, accept)
            dropped = _announce_dropped(module, host, wanted, accept) if pending else []
        judged = judge(host, wanted, conflicts, Judging(left, accept, tolerate))
        if pending is False:
            # The play still has to report drift that no setter would change.
            pending = any(row["verdict"] != "clean" for row in judged["rows"])
        for note in (*unreadable_mounts(host).values(), *unreadable_knobs(host).values()):
            warn(module, str(note))
        if given["preflight"]:
            for conflict in judged["possible_writers"]:
                warn(module, f"{conflict['detail']}. Nothing is refused for it; the next audit shows what came of it.")
        if given["first_token"] and has_anything(host):
            from ansible.module_utils.slm_baseline.first_token.audit import rows

            judged["rows"] += rows(host, given["first_token_targets"])
        result = {
            "changed": False,
            "desired": values_of(wanted),
            "pending": pending,
            "dropped": dropped,
            **judged,
            "unreadable": host.unreadable,
        }
        if given["facts"]:
            from ansible.module_utils.slm_baseline.settings.audit.facts import gather

            result["memory"] = gather(host)
        if given["release"] and given["run"] and not module.check_mode:
            from ansible.module_utils.slm_baseline.host.lease import release

            release(host, given["run"]["id"])
        return result

    finish(module, work)


if __name__ == "__main__":
    main()
