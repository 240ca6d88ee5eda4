"""Ends a run of this project that reaches no host with an error and exit code 2; Ansible alone ends it with 0.

This happens with a limit that names only hosts outside the group, an inventory without the group, and a missing one.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: require_hosts
type: notification
short_description: End a play that matches no host with exit code 2
description:
  - Applies to the plays in C(playbooks) of this project, and to no others.
  - Ansible loads it without configuration, since it lies beside the playbooks.
author: slm-baseline maintainers
"""

from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

_PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
_EXIT_CODE = 2
"""Exit code of ansible-playbook when a host fails."""


def error(hosts: object, limit: str | None, inventory: object) -> str:
    """Return the error in parts: what was wanted, what was found, and what to do next."""
    pattern = ",".join(map(str, hosts)) if isinstance(hosts, (list, tuple)) else str(hosts)
    sources = [str(source) for source in inventory] if isinstance(inventory, (list, tuple)) else [str(inventory or "")]
    limited = f" with --limit {limit}" if limit else ""
    return (
        f"hosts: wanted at least one host of {pattern}; found none{limited} in the inventory {', '.join(sources)}. "
        f"Nothing was read or changed. Next: ansible-inventory -i {' -i '.join(sources)} --graph shows the groups and "
        "their hosts."
    )


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "require_hosts"

    def __init__(self) -> None:
        super().__init__()
        self._play: Any = None

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if Path(self._play.get_path().rpartition(":")[0]).resolve().parent != _PLAYBOOKS:
            return
        arguments = context.CLIARGS
        self._display.error(error(self._play.hosts, arguments["subset"], arguments["inventory"]))
        # Not an Ansible exception: raised in a callback, that would become a warning.
        raise SystemExit(_EXIT_CODE)
