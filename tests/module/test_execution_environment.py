"""The definition of the execution environment, through ansible-builder: its build context is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = re.compile(r"ansible-core==[\d.]+")


def test_the_build_context_is_made(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(
                Path(sys.executable).with_name("ansible-builder"),
                "create",
                "--file",
                ROOT / "execution-environment.yml",
            ),
            *("--context", tmp_path, "--output-filename", "Containerfile"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    control = (ROOT / "packaging/requirements/control.in").read_text()
    assert (tmp_path / "_build/requirements.txt").read_text() == control
    # The image runs the ansible-core that the project is tested with.
    assert CORE.findall((tmp_path / "Containerfile").read_text()) == CORE.findall(control)
    assert "openssh-clients" in (tmp_path / "_build/bindep.txt").read_text()
