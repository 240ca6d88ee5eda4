"""What a failed build of a machine's image may remove."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

_REMOVAL = """
import sys
from pathlib import Path
from tests.live.vm import image
image.remove_tree(Path(sys.argv[1]), [])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_failed_build_removes_nothing_of_what_is_mounted_in_it(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").write_text("theirs")
    (tmp_path / "root/proc").mkdir(parents=True)
    script = f'mount --bind {tmp_path}/theirs {tmp_path}/root/proc && exec "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh"]
    subprocess.run([*command, sys.executable, "-c", _REMOVAL, f"{tmp_path}/root"], cwd=REPOSITORY, check=True)
    assert (tmp_path / "theirs/file").read_text() == "theirs"
    assert not (tmp_path / "root").exists()
