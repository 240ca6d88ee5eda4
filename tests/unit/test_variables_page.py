"""docs/variables.md is made from the argument specifications."""

from __future__ import annotations

import importlib.util

from tests.conftest import REPOSITORY


def test_the_page_is_made_from_the_argument_specifications() -> None:
    spec = importlib.util.spec_from_file_location("variables_page", REPOSITORY / "packaging" / "variables_page.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (REPOSITORY / "docs/variables.md").read_text(encoding="utf-8") == module.page()
