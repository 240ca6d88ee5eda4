"""Why a host could not answer, in one line, from what each version of Ansible returns of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.console.host_failure import explain_failure, last_line

NO_JSON = "Module result deserialization failed: No start of json char found"
OLD = "MODULE FAILURE\nSee stdout/stderr for the exact error"


def failure(said: str, message: str = NO_JSON, **more: Any) -> dict[str, Any]:
    return {"failed": True, "msg": message, "module_stderr": said, "module_stdout": "", "rc": 127, **more}


@pytest.mark.parametrize("message", [NO_JSON, OLD])
@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("/bin/sh: 1: sudo: not found", "a way to become root"),
        ("bash: line 1: sudo: command not found", "a way to become root"),
        ("sudo: a password is required", "the password of sudo"),
        ("ops is not in the sudoers file.", "a user that may become root"),
        ("/bin/sh: 1: /usr/bin/python3: not found", "Python 3.9 or later"),
        ("/bin/sh: /opt/py/bin/python3.12: No such file or directory", "Python 3.9 or later"),
        ("SyntaxError: future feature annotations is not defined", "Python 3.9 or later"),
        ("OSError: [Errno 28] No space left on device", "room for a module"),
    ],
)
def test_the_last_line_says_what_is_missing(said: str, wanted: str, message: str) -> None:
    told = explain_failure(failure(f"Warning: a banner\n{said}\r\nShared connection to gpu-1 closed.\n", message))
    assert told
    assert told.startswith(f"host: wanted {wanted}")
    assert said in told.replace("\\", "")
    assert "Next: " in told
    assert "\n" not in told


def test_what_nobody_foresaw_is_told_with_its_exit_code() -> None:
    told = explain_failure(failure("Segmentation fault (core dumped)", rc=139))
    assert told
    assert "found 'Segmentation fault (core dumped)' and exit code 139." in told


def test_output_is_looked_at_where_there_is_no_error() -> None:
    told = explain_failure(failure("", module_stdout="sudo: command not found\n"))
    assert told
    assert "a way to become root" in told


@pytest.mark.parametrize(
    "result",
    [
        {"failed": False, "msg": NO_JSON},
        {"failed": True, "msg": "thp: wanted root; found user id 5", "problem": {}},
        {"failed": True, "msg": "thp.enabled: no such file"},
        {"changed": True},
    ],
)
def test_every_other_result_stays_as_it_is(result: dict[str, Any]) -> None:
    assert explain_failure(result) is None


@given(st.text(max_size=400))
def test_whatever_a_host_says_is_one_printable_line(text: str) -> None:
    line = last_line(text)
    assert line.isprintable()
    assert len(line) <= 300
