"""Why a module gave no answer: Ansible says only that it found no JSON; the host's output says what is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping

from analysis.documents.names import well_formed

LEAST_PYTHON = "3.9"
"""Requirements of modules on a host."""

_NO_JSON = re.compile(
    r"MODULE FAILURE|deserialization failed|module interpreter .* was not found|No start of json char|Premature end of"
)
_CAUSES = (
    (
        re.compile(r"\b(?:sudo|su|doas|dzdo|pbrun)\b.*(?:not found|no such file)", re.IGNORECASE),
        "a way to become root",
        "install it there, or connect as root: ansible_user=root, ansible_become=false.",
    ),
    (
        re.compile(r"password is required|a terminal is required|no tty present|askpass", re.IGNORECASE),
        "the password of sudo",
        "run it with --ask-become-pass, or let that user become root without one.",
    ),
    (
        re.compile(r"not in the sudoers|not allowed to (?:execute|run)|permission denied", re.IGNORECASE),
        "a user that may become root",
        "allow it in sudoers, or connect as root.",
    ),
    (
        re.compile(r"python.*(?:not found|no such file)|No module named", re.IGNORECASE),
        f"Python {LEAST_PYTHON} or later",
        "install it there, or name another one in ansible_python_interpreter.",
    ),
    (
        re.compile(r"requires a minimum of Python|SyntaxError|future feature", re.IGNORECASE),
        f"Python {LEAST_PYTHON} or later",
        "name a later one in ansible_python_interpreter.",
    ),
    (re.compile("no space left", re.IGNORECASE), "room for a module in the temporary folder", "free some space there."),
    (
        re.compile("cannot allocate memory|MemoryError|killed", re.IGNORECASE),
        "memory for a module",
        "free some memory there, then run it again.",
    ),
)
"""Known last lines, each with what is wanted then, and the next step."""


def explain_failure(result: Mapping[str, object]) -> str | None:
    """Return one line for a result of a module that could not answer; None for every other result."""
    if not result.get("failed") or "problem" in result or not _NO_JSON.search(str(result.get("msg", ""))):
        return None
    said = last_line(result.get("module_stderr")) or last_line(result.get("module_stdout"))
    code = result.get("rc")
    found = f"{said!r}" if said else "nothing that it said"
    for pattern, wanted, next_step in _CAUSES:
        if said and pattern.search(said):
            return f"host: wanted {wanted}; found {found}. Nothing was read or changed there. Next: {next_step}"
    exit_code = f" and exit code {code}" if code is not None else ""
    return (
        f"host: wanted an answer of the module; found {found}{exit_code}. What runs before Python there, or "
        "Python itself, ended it. Next: ansible HOST -m ansible.builtin.ping -vvv shows the whole of it."
    )


def last_line(text: object, most: int = 300) -> str:
    """Return the last line with content, without ssh's own messages at the end."""
    lines = [line.strip() for line in well_formed(text or "").splitlines()]
    said = [line for line in lines if line and not re.match(r"(?:Shared c|C)onnection to .* closed", line)]
    return "".join(char if char.isprintable() else " " for char in said[-1])[:most] if said else ""
