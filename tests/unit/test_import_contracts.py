"""Import contracts: who may import whom, no circle between modules or rooms, and two halves that share JSON alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

TARGET = REPOSITORY / "plugins" / "module_utils" / "slm_baseline"
CONTROL = REPOSITORY / "plugins" / "analysis"

CONTRACTS = {
    TARGET: {
        "host": set(),
        "settings": {"host"},
        "containers": {"host"},
        "first_token": {"host", "containers"},
        "measuring": {"host", "containers"},
        "sweep": {"host", "settings", "first_token", "measuring"},
        "zipimport_once": set(),
        "module": {"host"},
        "setter": {"host", "settings", "module"},
    },
    CONTROL: {
        "documents": set(),
        "statistics": {"documents"},
        "render": {"documents", "statistics"},
        "baseline": {"documents", "statistics", "render"},
        "audit": {"documents", "statistics", "render"},
        "sweep": {"documents", "statistics", "render"},
        "fleet": {"documents", "statistics", "render"},
        "console": {"documents", "statistics", "render"},
    },
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


def package(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("root", CONTRACTS, ids=lambda root: root.name)
def test_each_package_imports_only_what_its_contract_names(root: Path) -> None:
    contracts = CONTRACTS[root]
    broken = [
        f"{module} imports {target}"
        for module, targets in modules(root).items()
        for target in targets
        if package(module)
        and package(target)
        and package(target) != package(module)
        and package(target) not in contracts[package(module)]
    ]
    assert broken == []


@pytest.mark.parametrize("root", CONTRACTS, ids=lambda root: root.name)
def test_every_folder_is_a_package_with_a_contract(root: Path) -> None:
    folders = {path.parent for path in root.rglob("*.py")}
    assert {package(module) for module in modules(root)} - {""} == set(CONTRACTS[root])
    assert [folder for folder in folders if not (folder / "__init__.py").read_text(encoding="utf-8").strip()] == []


@pytest.mark.parametrize("root", CONTRACTS, ids=lambda root: root.name)
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


@pytest.mark.parametrize("package_name", ["settings", "measuring"])
def test_no_room_imports_itself_through_others(package_name: str) -> None:
    """A room is a sub-folder of a package, or one of its own modules."""
    graph: dict[str, set[str]] = {}
    for module, targets in modules(TARGET / package_name).items():
        rooms = {room(target) for target in targets} - {room(module)}
        graph.setdefault(room(module), set()).update(rooms)
    while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    assert graph == {}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


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
        for path in (TARGET / name).rglob("*.py")
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
