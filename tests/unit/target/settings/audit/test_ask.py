"""What the programs themselves say of their files, and what is made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.audit.conflicts import ask, tuned_probe
from ansible.module_utils.slm_baseline.settings.audit.conflicts.conflict import Conflict, Scanner
from ansible.module_utils.slm_baseline.settings.audit.conflicts.tuned import Profiles

from tests.support.fakes import build_host, put

SYSCTL = Conflict("/etc/sysctl.d/9.conf", 1, "hugepages.2M", "5", "sysctl")
UNIT = Conflict("/etc/systemd/system/x.service", 3, "thp.enabled", "never", "unit x.service")
PROFILE = "[vm]\ntransparent_hugepages=${f:exec:cat:/etc/thp}\n[vm.board]\ntype=vm\ntransparent_hugepages=never\n"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Answers of programs by the first word behind the program; none for any other."""
    answers: dict[str, str | None] = {}

    def asked(host: Host, name: str, *arguments: str) -> str | None:
        return answers.get(f"{name} {arguments[0]}")

    monkeypatch.setattr(ask, "_asked", asked)
    return answers


@pytest.mark.parametrize(
    ("answer", "is_wrong"),
    [
        ("# /etc/sysctl.d/9.conf\nvm.nr_hugepages=5\n", False),
        ("# /usr/lib/sysctl.d/50-pid-max.conf\nkernel.pid_max = 1\n# see /etc/sysctl.d/9.conf\n", True),
        (None, False),
    ],
)
def test_a_file_that_systemd_does_not_read_is_no_writer(
    fake_host: Host, said: dict[str, str | None], answer: str | None, is_wrong: bool
) -> None:
    said["systemd-analyze cat-config"] = answer
    assert ask.disproved(fake_host, [SYSCTL]) == ({SYSCTL} if is_wrong else set())


@pytest.mark.parametrize(
    ("answer", "is_wrong"),
    [
        (f"LoadState=loaded\nFragmentPath={UNIT.path}\nDropInPaths=\n", False),
        (f"LoadState=loaded\nFragmentPath=/lib/x\nDropInPaths=/a.conf {UNIT.path}\n", False),
        ("LoadState=loaded\nFragmentPath=/usr/lib/systemd/system/x.service\nDropInPaths=\n", True),
        ("LoadState=masked\nFragmentPath=/etc/systemd/system/x.service\n", True),
        ("LoadState=not-found\n", True),
        ("", False),
        (None, False),
    ],
)
def test_a_unit_that_systemd_makes_of_other_files_is_no_writer(
    fake_host: Host, said: dict[str, str | None], answer: str | None, is_wrong: bool
) -> None:
    said["systemctl show"] = answer
    assert ask.disproved(fake_host, [UNIT]) == ({UNIT} if is_wrong else set())


def test_tuned_is_asked_by_its_own_interpreter_and_an_odd_answer_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    put(tmp_path, "/usr/bin/python3", "", 0o755)
    put(tmp_path, "/usr/sbin/tuned", "#!/usr/bin/python3 -Es\n", 0o755)
    commands: list[Sequence[str]] = []
    answers: list[str | None] = ['[{"name": "vm", "type": "vm", "options": {}}]']

    def answered(host: Host, command: Sequence[str]) -> str | None:
        commands.append(command)
        return answers[-1]

    monkeypatch.setattr(ask, "_answer", answered)
    host = Host(tmp_path)
    assert ask.ask_tuned(host, ["a", "b"]) == [{"name": "vm", "type": "vm", "options": {}}]
    (command,) = commands
    assert [*command[:3], *command[4:]] == ["/usr/bin/python3", "-I", "-c", "a", "b"]
    assert "Loader" in command[3]
    for odd in (None, "", "{}", "no JSON", "[3]", '[{"name": "vm"}]'):
        answers.append(odd)
        assert ask.ask_tuned(host, ["a"]) is None
    answers.append(answers[0])
    host.path("/usr/bin/python3").chmod(0o777)
    assert ask.ask_tuned(host, ["a"]) is None
    host.path("/usr/sbin/tuned").unlink()
    assert ask.ask_tuned(host, ["a"]) is None


def test_what_tuned_says_replaces_our_reading_and_keeps_our_lines(tmp_path: Path) -> None:
    build_host(tmp_path)
    put(tmp_path, "/usr/lib/tuned/mine/tuned.conf", PROFILE)
    profiles = Profiles(Scanner(Host(tmp_path), {"thp.enabled": "madvise"}, 2 << 20))
    assert profiles.load(["mine"], sure=True)
    profiles.take([{"name": "vm", "type": "vm", "options": {"transparent_hugepages": "always"}}])
    assert [str(one) for one in profiles.conflicts()] == [
        "TuneD profile mine sets thp.enabled to always at /usr/lib/tuned/mine/tuned.conf:2"
    ]
    profiles.take([])
    assert list(profiles.conflicts()) == []


def test_the_probe_says_what_tuneds_own_loader_makes_of_its_stock_profiles() -> None:
    python = "/usr/bin/python3"
    has_tuned = (
        Path(python).exists()
        and not subprocess.run(
            [python, "-I", "-c", "import tuned.profiles.loader"], check=False, capture_output=True, timeout=60
        ).returncode
    )
    if not has_tuned or not Path("/usr/lib/tuned/cpu-partitioning/tuned.conf").exists():
        pytest.skip("TuneD (Debian: tuned) is not installed")

    def units(profile: str) -> dict[str, dict[str, str]]:
        command = [python, "-I", str(tuned_probe.__file__), profile]
        done = subprocess.run(command, check=True, capture_output=True, timeout=60)
        return {unit["type"]: unit["options"] for unit in json.loads(done.stdout)}

    # The section for one ARM board is not this machine's.
    assert "vm" not in units("virtual-guest")
    # What only a program could say stays as it stands: nothing is run.
    assert units("cpu-partitioning")["vm"] == {"transparent_hugepages": "never"}


def test_the_probe_without_tuned_is_an_error_and_no_answer() -> None:
    command = [sys.executable, "-I", str(tuned_probe.__file__), "mine"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "tuned" in done.stderr
