"""A long task says that it is alive, a short one says nothing, and the end ends it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from callback import closing_lines


class Task:
    action = "slm.baseline.slm_environment"

    def get_name(self) -> str:
        return " Install the environment"


class Display:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.said = threading.Event()

    def display(self, line: str) -> None:
        self.lines.append(line)
        self.said.set()


def test_a_task_at_work_is_named_until_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing_lines, "_PULSE_S", 0.01)
    monkeypatch.setattr("ansible.context.CLIARGS", {"check": False})
    plugin: Any = closing_lines.CallbackModule()
    plugin._display = display = Display()
    plugin.v2_playbook_on_task_start(Task(), False)
    assert display.said.wait(60)
    assert display.lines[0].startswith("... Install the environment: at work for ")
    plugin.v2_playbook_on_stats(None)
    assert plugin._ended.is_set()
