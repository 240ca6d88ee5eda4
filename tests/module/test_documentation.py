"""What `ansible-doc` shows of a module is what the module takes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "library").glob("*.py"))


class _Asked(Exception):
    """A module asked for its arguments."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each module's documentation, with its fragments, as `ansible-doc` renders it."""
    home = tmp_path_factory.mktemp("home")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-doc")), "-t", "module", "-j", *MODULES],
        cwd=ROOT,
        env={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def spec_of(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The argument spec that a module hands to AnsibleModule."""
    location = importlib.util.spec_from_file_location(name, ROOT / "library" / f"{name}.py")
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    asked: list[dict[str, Any]] = []

    def ask(argument_spec: dict[str, Any], **_: Any) -> None:
        asked.append(argument_spec)
        raise _Asked

    monkeypatch.setattr(module, "AnsibleModule", ask)
    with pytest.raises(_Asked):
        module.main()
    return asked[0]


def shape(options: Mapping[str, Any], nested: str) -> dict[str, Any]:
    """What documentation and specs must agree on, by option; sub-options under `nested`."""
    return {
        name: {
            **{key: option.get(key) for key in ("type", "default", "choices", "elements")},
            "required": bool(option.get("required")),
            "options": shape(option.get(nested) or {}, nested),
        }
        for name, option in options.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_every_option_is_documented_as_it_is_taken(
    name: str, pages: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    documented = shape(pages[name]["doc"]["options"], "suboptions")
    assert documented == shape(spec_of(name, monkeypatch), "options")


@pytest.mark.parametrize("name", MODULES)
def test_a_page_is_complete(name: str, pages: dict[str, Any]) -> None:
    page = pages[name]
    assert page["examples"].strip()
    assert page["return"]
    assert set(page["doc"]["attributes"]) == {"check_mode", "diff_mode"}
    assert all(option["description"] for option in page["doc"]["options"].values())
