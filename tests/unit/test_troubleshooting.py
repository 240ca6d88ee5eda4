"""docs/troubleshooting.md has errors in the words in which the product prints them today."""

from __future__ import annotations

import ast
import re

import pytest
from ansible.module_utils.slm_baseline.host.errors import os_problem

from analysis.console.host_failure import explain_failure
from analysis.console.names import Unknown
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8")
ERRORS = re.findall(r"(?m)^ {4}(\S.*)$", PAGE)
RAISED = ("SettingError", "LossError", "refuse_loss")
REFUSALS = "_refusal"
"""The function that words what is wrong with a model: it fills in the model's path and the next step."""
LEAST_FIXED = 60
"""Letters of an error that the code holds word by word; the rest are names and numbers."""

PRODUCED = [
    f"unknown variable {Unknown('hugepage_pools', 'inventory/group_vars/gpu-hosts.yml:16', 'hugepages_pools')}"
    " Nothing was read or changed. Next: correct the name. Where one is another project's, list it in "
    "slm_other_variables.",
    str(
        os_problem(
            "/sys", "a writable /sys", OSError(30, "Read-only file system", "/sys/kernel/mm/transparent_hugepage")
        )
    ),
    explain_failure({"failed": True, "msg": "MODULE FAILURE", "module_stderr": "sudo: command not found"}),
]


def pattern(node: ast.expr) -> str:
    """Return a pattern of what an expression may give: its fixed words, and anything for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(pattern(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return pattern(node.left) + pattern(node.right)
    return ".*"


def templates() -> list[tuple[re.Pattern[str], int]]:
    """Return what every error of the target side may look like, with how many letters of it are fixed."""
    found = []
    for path in (REPOSITORY / "plugins/module_utils").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(getattr(node, "func", None), "id", "")
            if not isinstance(node, ast.Call) or name not in (*RAISED, REFUSALS) or len(node.args) < 5:
                continue
            if name == REFUSALS:
                wanted, was, why = (pattern(part) for part in node.args[1:4])
                text = rf"slm_benchmark_model: wanted {wanted}; found .*: {was}\. {why} Next: "
            else:
                knob, wanted, was, why, step = (pattern(part) for part in node.args[:5])
                text = rf"(?:rollback incomplete: )?{knob}: wanted {wanted}; found {was}\. {why} Next: {step}"
            fixed = len(re.sub(r"\.\*|\\", "", text)) - len("wanted found Next")
            found.append((re.compile(text + ".*"), fixed))
    return found


TEMPLATES = templates()


def is_printed(error: str) -> bool:
    """Whether the product prints an error of this form."""
    if error in PRODUCED:
        return True
    return any(fixed >= LEAST_FIXED and form.fullmatch(error) for form, fixed in TEMPLATES)


def test_there_are_enough() -> None:
    assert len(ERRORS) == len(set(ERRORS)) >= 10


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error[:40])
def test_an_error_is_printed_in_these_words(error: str) -> None:
    assert is_printed(error), error


def test_other_words_are_noticed() -> None:
    for error in ERRORS:
        assert not is_printed(error.replace("Next: ", "Then: ").replace("unknown variable", "no variable")), error
