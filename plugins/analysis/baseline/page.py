"""The files of a host's report: the page and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.baseline.figures import imports_svg, load_svg
from analysis.baseline.report import host_report
from analysis.documents.state import read_state


def page_files(document: dict[str, Any], results: Path) -> dict[str, str]:
    """Return name -> text for one stored result; `results` is the host's folder, whose state may be later."""
    imports = imports_svg(document)
    return {
        "README.md": host_report(document, read_state(results)),
        "phases.svg": load_svg(document),
        **({"imports.svg": imports} if imports else {}),
    }
