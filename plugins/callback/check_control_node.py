"""Rejects a control node that this project does not run on, in one line, before anything is read or changed."""

from __future__ import annotations

DOCUMENTATION = r"""
name: check_control_node
type: notification
short_description: Refuse a control node whose Ansible or Python is too old
description:
  - Applies to the plays in C(playbooks) of this project, and to plays that use its roles.
  - Without it, an older ansible-core sets a host and fails at the read-back.
  - Ansible loads it without configuration, since it lies beside the playbooks.
author: slm-baseline maintainers
"""

import re
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.release import __version__ as CORE

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

_HOME = Path(__file__).resolve().parents[2]
LEAST_CORE = (2, 16)
"""meta/runtime.yml of the collection says the same."""
LEAST_PYTHON = (3, 11)
_EXIT_CODE = 2
"""Exit code of ansible-playbook when a host fails."""


def error(core: str, python: tuple[int, ...]) -> str | None:
    """Return what is wrong with a control node of these versions; None where nothing is."""
    found = tuple(map(int, re.findall(r"[0-9]+", core)[:2]))
    if found >= LEAST_CORE and python[:2] >= LEAST_PYTHON:
        return None
    wanted = ".".join(map(str, LEAST_CORE)), ".".join(map(str, LEAST_PYTHON))
    return (
        f"control node: wanted ansible-core {wanted[0]} or later with Python {wanted[1]} or later; found ansible-core "
        f"{core} with Python {'.'.join(map(str, python[:2]))}. Nothing was read or changed. Next: run it with the "
        "environment that `make baseline` makes, or install a later ansible-core for a later Python."
    )


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "check_control_node"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        problem = error(CORE, sys.version_info[:2])
        if not problem:
            return
        from analysis.console.plays import concerns

        if any(concerns(play, _HOME) for play in playbook.get_plays()):
            self._display.error(problem, wrap_text=False)
            # Not an Ansible exception: raised in a callback, that would become a warning.
            raise SystemExit(_EXIT_CODE)
