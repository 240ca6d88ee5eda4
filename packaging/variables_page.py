"""docs/variables.md, made from the argument specifications of the roles and of the plays.

python packaging/variables_page.py          # writes the page; tests/unit/test_variables_page.py compares it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "variables.md"
_HEAD = """# Variables

Every variable of the roles and plays, with its type and its default. Made from their argument specifications by
`python packaging/variables_page.py`; not to be edited. The tuning's own page is
[inventory/group_vars/gpu-hosts.yml](../inventory/group_vars/gpu-hosts.yml). A variable with one of our
prefixes that is not here is refused, with the name that was probably meant;
`slm_other_variables` lists variables of other projects.
"""


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Read a mapping of YAML; an empty one where the file is missing."""
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def options_of(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the options of all entry points of a role or of the plays, by name."""
    found: dict[str, Mapping[str, Any]] = {}
    for entry in read_yaml(folder / "meta" / "argument_specs.yml").get("argument_specs", {}).values():
        found.update(entry.get("options") or {})
    return found


def rows(options: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Any]) -> Iterator[str]:
    """Write a table row for each option."""
    for name in sorted(options):
        option = options[name]
        text = option.get("description", "")
        said = " ".join(text if isinstance(text, list) else [str(text)]).replace("|", "\\|")
        default = defaults.get(name, option.get("default"))
        shown = "" if default is None or "{{" in str(default) else f"`{default}`".replace("|", "\\|")
        yield f"| `{name}` | {option.get('type', 'str')} | {shown} | {said} |"


def page() -> str:
    """Write the whole page."""
    parts = [_HEAD]
    folders = [("The plays", ROOT / "playbooks")]
    folders += [(f"Role {path.name}", path) for path in sorted((ROOT / "roles").iterdir())]
    for title, folder in folders:
        if options := options_of(folder):
            table = "\n".join(rows(options, read_yaml(folder / "defaults" / "main.yml")))
            parts.append(f"\n## {title}\n\n| variable | type | default | meaning |\n|---|---|---|---|\n{table}\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
