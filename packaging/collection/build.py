"""Builder of the collection slm.baseline from the files of this repository; no source is kept twice.

    python packaging/collection/build.py [FOLDER]     # default: build

The tree is written to FOLDER/ansible_collections/slm/baseline, the artifact to FOLDER/slm-baseline-VERSION.tar.gz.

Files are copied to where Ansible looks for them in a collection. Imports, filters and look-ups get the collection's
name, and outputs go to the current folder instead of the folder in which the collection is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "packaging" / "collection"
NAMESPACE, NAME = "slm", "baseline"
FULL = f"{NAMESPACE}.{NAME}"
ANSIBLE = "2.19"
"""The ansible-core version whose checks the collection passes."""
CONTROL_PYTHONS = ("3.11", "3.12", "3.13")
"""The Python versions of its control node."""
PYTHON = f"ansible_collections.{FULL}.plugins"

FOLDERS = {
    "library": "plugins/modules",
    "plugins/module_utils": "plugins/module_utils",
    "plugins/action": "plugins/action",
    "plugins/callback": "plugins/callback",
    "plugins/doc_fragments": "plugins/doc_fragments",
    "plugins/filter": "plugins/filter",
    "plugins/lookup": "plugins/lookup",
    "plugins/analysis": "plugins/plugin_utils/analysis",
    "plugins/schemas": "plugins/plugin_utils/schemas",
    "roles": "roles",
    "playbooks": "playbooks",
    "files": "files",
}
FILES = {
    "LICENSE": "LICENSE",
    "CHANGELOG.md": "CHANGELOG.md",
    "packaging/collection/runtime.yml": "meta/runtime.yml",
    "packaging/collection/execution-environment.yml": "meta/execution-environment.yml",
}


def names(folder: str, pattern: str = "*.py") -> list[str]:
    """Return the plugins, roles or playbooks in a folder of the repository."""
    return sorted(path.stem for path in (ROOT / folder).glob(pattern))


def filters() -> list[str]:
    """Return the names of the filters, from the one file that has them."""
    return re.findall(r'^    "(\w+)": "analysis\.', (ROOT / "plugins/filter/slm.py").read_text(), re.MULTILINE)


def rewritten_python(text: str) -> str:
    """Return Python with the collection's imports, and with the full names that its documentation must use."""
    text = text.replace("ansible.module_utils.slm_baseline", f"{PYTHON}.module_utils.slm_baseline")
    text = re.sub(r"\b(from|import) analysis\b", rf"\1 {PYTHON}.plugin_utils.analysis", text)
    text = re.sub(r'"analysis\.(\S+:\w+")', rf'"{PYTHON}.plugin_utils.analysis.\1', text)
    # A collection is importable: the path that this repository adds would be a wrong one.
    text = re.sub(r"(?ms)^# Ansible loads this file by its path.*?^    sys\.path\.insert\(0, _ROOT\)\n", "", text)
    own = "|".join([*names("library"), *names("plugins/lookup")])
    text = re.sub(rf"\b([MP])\(({own})\b", rf"\1({FULL}.\2", text)
    # Ansible's own checks require an account of GitHub, or this word for none.
    text = re.sub(r"(?m)^(author: .*)$", r"\1 (!UNKNOWN)", text)
    text = re.sub(
        r"(?m)^(extends_documentation_fragment: )\[(.*)\]$",
        lambda found: f"{found[1]}[{', '.join(f'{FULL}.{name}' for name in found[2].split(', '))}]",
        text,
    )
    text = re.sub(r"(?m)^  - (slm_baseline(?:\.\w+)?)$", rf"  - {FULL}.\1", text)
    before, examples, after = text.partition("EXAMPLES = ")
    tasks = re.sub(rf"(?m)^  ({own}):$", rf"  {FULL}.\1:", after.partition('\n"""')[0])
    return before + examples + rewritten_templates(tasks) + "".join(after.partition('\n"""')[1:])


def rewritten_templates(text: str) -> str:
    """Return YAML or a template with the full names of filters and look-ups, which a collection requires."""
    text = re.sub(rf"\|(\s*)({'|'.join(filters())})\b", rf"|\1{FULL}.\2", text)
    return re.sub(rf"lookup\('({'|'.join(names('plugins/lookup'))})'", rf"lookup('{FULL}.\1'", text)


def rewritten_defaults(text: str) -> str:
    """Return a role's defaults, with outputs in the folder where Ansible was started, not beside the installed role."""
    return text.replace("role_path | realpath | dirname | dirname", "'.'")


def rewritten(path: Path, text: str) -> str:
    """Return the text of a file of the repository as the collection has it."""
    if path.parts[0] == "files":
        return text
    if path.suffix == ".py":
        return rewritten_python(text)
    if path.suffix in (".yml", ".j2"):
        text = rewritten_templates(text)
    return rewritten_defaults(text) if path.parts[0] == "roles" and "defaults" in path.parts else text


def sources() -> Iterator[tuple[Path, str]]:
    """Yield each file to ship, from the repository's root, with its place in the collection."""
    for folder, target in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*")):
            # Folders beside the playbooks are links for a checkout; a collection finds its own plugins.
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT), f"{target}/{path.relative_to(ROOT / folder)}"
    # Ansible loads a callback of a collection only if it is enabled, but every one that lies beside a playbook.
    for name in names("plugins/callback"):
        yield Path(f"plugins/callback/{name}.py"), f"playbooks/callback_plugins/{name}.py"
    for name, target in FILES.items():
        yield Path(name), target


def version() -> str:
    """Return the project's version."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def requirements() -> str:
    """Return the reports' requirements on the control node: the project's list without Ansible, which is present."""
    lines = (ROOT / "packaging/requirements/control.in").read_text().splitlines()
    return "".join(f"{line}\n" for line in lines if not line.startswith(("#", "ansible-core")))


def ignored() -> str:
    """Return what Ansible's checks ignore: a licence other than theirs, and imports of requirements.txt's packages."""
    documented = [f"plugins/modules/{name}.py" for name in names("library")]
    lookups = [f"plugins/lookup/{name}.py" for name in names("plugins/lookup")]
    documented += [*lookups, *(f"plugins/callback/{name}.py" for name in names("plugins/callback"))]
    control_side = [target for path, target in sources() if path.match("plugins/analysis/**/*.py")]
    return "".join(
        [
            *(f"{path} validate-modules:missing-gplv3-license\n" for path in documented),
            *(f"{path} import-{python}!skip\n" for path in [*lookups, *control_side] for python in CONTROL_PYTHONS),
        ]
    )


def readme() -> str:
    """Return the collection's page, with the names of its contents."""
    listed = {
        "modules": names("library"),
        "roles": names("roles", "*"),
        "playbooks": names("playbooks", "*.yml"),
        "filters": filters(),
        "look-ups": names("plugins/lookup"),
        "callbacks": names("plugins/callback"),
    }
    rows = [f"| {kind} | {', '.join(f'`{name}`' for name in found)} |" for kind, found in listed.items()]
    return (HERE / "README.md").read_text().replace("@NAMES@", "\n".join(rows)).replace("@VERSION@", version())


def assemble(folder: Path) -> Path:
    """Make the collection as a new tree under `folder`; return its path."""
    tree = folder / "ansible_collections" / NAMESPACE / NAME
    shutil.rmtree(tree, ignore_errors=True)
    for source, target in sources():
        path = tree / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rewritten(source, (ROOT / source).read_text(encoding="utf-8")), encoding="utf-8")
    (tree / "galaxy.yml").write_text(f"{(HERE / 'galaxy.in.yml').read_text()}version: {version()}\n")
    (tree / "requirements.txt").write_text(requirements())
    (tree / "README.md").write_text(readme())
    (tree / "tests/sanity").mkdir(parents=True)
    (tree / f"tests/sanity/ignore-{ANSIBLE}.txt").write_text(ignored())
    return tree


def main() -> None:
    folder = Path(sys.argv[1] if sys.argv[1:] else ROOT / "build").resolve()
    tree = assemble(folder)
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    subprocess.run([galaxy, "collection", "build", "--force", "--output-path", folder, tree], check=True)


if __name__ == "__main__":
    main()
