"""The wings' laws: who may import whom, no circle between modules, and two halves that share JSON alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

TARGET = REPOSITORY / "module_utils" / "slm_baseline"
CONTROL = REPOSITORY / "analysis"

LAWS = {
    TARGET: {
        "host": set(),
        "settings": {"host"},
        "first_token": {"host"},
        "measuring": {"host"},
        "sweep": {"host", "settings", "first_token", "measuring"},
        "zipped": set(),
        "module": {"host"},
        "setter": {"host", "settings", "module"},
    },
    CONTROL: {"text": set(), "baseline": {"text"}, "audit": {"text"}, "sweep": {"text"}, "fleet": {"text"}},
}


def dotted(path: Path, root: Path) -> str:
    name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports_of(source: str, module: str) -> set[str]:
    """Every dotted name that a module's source imports, relative ones resolved; `from a import b` gives `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.rsplit(".", node.level)[0] + "." if node.level else ""
            prefix = f"{base}{node.module}." if node.module else base
            found |= {f"{prefix}{alias.name}" for alias in node.names}
    return found


def modules(root: Path) -> dict[str, set[str]]:
    """Each module of a half, and what it imports of the same half, as modules."""
    sources = {dotted(path, root): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    return {
        module: {
            target
            for name in imports_of(source, module)
            for target in (name, name.rpartition(".")[0])
            if target in sources and target != module
        }
        for module, source in sources.items()
    }


def wing(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("root", LAWS, ids=lambda root: root.name)
def test_each_wing_imports_only_those_its_law_names(root: Path) -> None:
    laws = LAWS[root]
    broken = [
        f"{module} imports {target}"
        for module, targets in modules(root).items()
        for target in targets
        if wing(module) and wing(target) and wing(target) != wing(module) and wing(target) not in laws[wing(module)]
    ]
    assert broken == []


@pytest.mark.parametrize("root", LAWS, ids=lambda root: root.name)
def test_every_folder_is_a_wing_with_a_law_and_a_package(root: Path) -> None:
    folders = {path.parent for path in root.rglob("*.py")}
    assert {wing(module) for module in modules(root)} - {""} == set(LAWS[root])
    assert [folder for folder in folders if not (folder / "__init__.py").read_text(encoding="utf-8").strip()] == []


@pytest.mark.parametrize("root", LAWS, ids=lambda root: root.name)
def test_no_module_imports_itself_through_others(root: Path) -> None:
    graph = modules(root)
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for target in graph[module]:
                visit(target, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_halves_share_json_alone() -> None:
    for root, other in ((TARGET, "analysis"), (CONTROL, "module_utils")):
        for path in root.rglob("*.py"):
            names = imports_of(path.read_text(encoding="utf-8"), dotted(path, root))
            assert not [name for name in names if other in name.split(".")[:2]], path


def test_two_files_know_ansible() -> None:
    sources = {dotted(path, TARGET): path.read_text(encoding="utf-8") for path in TARGET.rglob("*.py")}
    knowing = [
        module
        for module, source in sources.items()
        if any(name.startswith("ansible.") for name in imports_of(source, module))
    ]
    assert sorted(knowing) == ["slm_baseline.module", "slm_baseline.setter"]


@pytest.mark.parametrize("name", ["measuring", "sweep"])
def test_no_function_takes_more_than_six_things(name: str) -> None:
    functions = [
        (f"{path.name}: {node.name}", node.args)
        for path in (TARGET / name).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    assert [name for name, given in functions if len([*given.posonlyargs, *given.args, *given.kwonlyargs]) > 6] == []


def test_public_names_of_the_control_side_are_unique() -> None:
    """One word for one thing: whoever looks for a function or a class finds one."""
    homes: dict[str, set[str]] = {}
    for path in CONTROL.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, set()).add(dotted(path, CONTROL))
    assert {name: sorted(found) for name, found in homes.items() if len(found) > 1} == {}
