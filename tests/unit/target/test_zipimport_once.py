"""What Ansible sends in an archive is compiled once, and found, read and shown in a traceback as any other module."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

TARGET = REPOSITORY / "plugins" / "module_utils" / "slm_baseline"
COMPILED = """
import json, sys
compiled = []
sys.addaudithook(lambda event, arguments: compiled.append(arguments[1]) if event == "compile" else None)
sys.path.insert(0, sys.argv[1])
import slm_baseline.host.files as files, slm_baseline.settings.kinds as kinds
print(json.dumps({"compiled": compiled, "module": files.__file__, "package": kinds.__file__}))
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "payload.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as payload:
        for source in TARGET.rglob("*.py"):
            payload.write(source, source.relative_to(TARGET.parent))
    return path


def python(code: str, archive: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, archive], capture_output=True, text=True, check=False)


def test_each_module_of_an_archive_is_compiled_once_and_knows_its_file(archive: Path) -> None:
    seen = json.loads(python(COMPILED, archive).stdout)
    assert seen["module"] == f"{archive}/slm_baseline/host/files.py"
    assert seen["package"] == f"{archive}/slm_baseline/settings/kinds/__init__.py"
    within = f"{archive}/slm_baseline/"
    counts = Counter(name.removeprefix(within) for name in seen["compiled"] if str(name).startswith(within))
    assert {"host/files.py", "host/__init__.py", "settings/kinds/__init__.py"} <= counts.keys()
    # The package itself and what it imports before it can say so are the standard importer's.
    assert {name for name, times in counts.items() if times > 1} <= {"__init__.py", "zipimport_once.py"}


def test_a_module_that_an_archive_lacks_is_reported_by_its_name(archive: Path) -> None:
    ended = python("import sys; sys.path.insert(0, sys.argv[1]); import slm_baseline.host.nowhere", archive)
    assert ended.returncode == 1
    assert "No module named 'slm_baseline.host.nowhere'" in ended.stderr


def test_a_folder_of_modules_is_left_to_python() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); before = list(sys.path_hooks); import slm_baseline.host; "
    assert python(code + "sys.exit(sys.path_hooks != before)", TARGET.parent).returncode == 0
