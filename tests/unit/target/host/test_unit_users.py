"""Units that need a mount, as files and a running systemd tell them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host import unit_users
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.unit_users import bound_services, start_again, users_of_mount

from tests.support.fakes import put

SERVICE = "/etc/systemd/system/db.service"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("BindsTo=mnt-huge.mount", "db.service (BindsTo=, /etc/systemd/system/db.service:2)"),
        ("Requires = other.service mnt-huge.mount", "db.service (Requires=, /etc/systemd/system/db.service:2)"),
        ("RequiresMountsFor=/srv /mnt/huge/db", "db.service (Requires=, /etc/systemd/system/db.service:2)"),
        ("RequiresMountsFor=/mnt/huge2", ""),
        ("RequiresMountsFor=/mnt", ""),
        ("Wants=mnt-huge.mount", ""),
        ("#BindsTo=mnt-huge.mount", ""),
        ("BindsTo=srv-mnt-huge.mount", ""),
    ],
)
def test_a_unit_file_says_what_it_needs(fake_host: Host, line: str, told: str) -> None:
    put(fake_host.root, SERVICE, f"[Unit]\n{line}\n")
    assert [str(user) for user in users_of_mount(fake_host, "/mnt/huge")] == ([told] if told else [])


def test_a_drop_in_counts_for_its_unit_and_the_mounts_own_files_for_nobody(fake_host: Host) -> None:
    put(fake_host.root, "/usr/lib/systemd/system/db.service.d/x.conf", "[Unit]\nRequires=mnt-huge.mount\n")
    put(fake_host.root, "/etc/systemd/system/mnt-huge.mount", "[Unit]\nRequires=mnt-huge.mount\n")
    (user,) = users_of_mount(fake_host, "/mnt/huge")
    assert (user.name, user.source) == ("db.service", "/usr/lib/systemd/system/db.service.d/x.conf:2")


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """A running systemd that knows one bound unit and starts nothing that is called `broken`."""
    asked: list[tuple[str, ...]] = []

    def ask(host: Host, *arguments: str) -> str:
        asked.append(arguments)
        if arguments[1].startswith("--property=BoundBy"):
            return "BoundBy=db.service broken.service\nRequiredBy=web.service\n"
        return (
            "ActiveState=inactive\n" if arguments[-1] == "broken.service" and started(asked) else "ActiveState=active\n"
        )

    def started(calls: list[tuple[str, ...]]) -> bool:
        return any(call[0] == "start" for call in calls)

    monkeypatch.setattr(unit_users, "_ask", ask)
    monkeypatch.setattr(unit_users, "systemd_runs", lambda host: True)
    monkeypatch.setattr(unit_users, "_FOLDERS", (str(tmp_path),))
    return asked


def test_what_is_bound_is_started_again_and_what_does_not_run_is_told(systemd: list[tuple[str, ...]]) -> None:
    bound = bound_services(Host(), "/mnt/huge")
    assert bound == ["broken.service", "db.service"]
    assert start_again(Host(), bound) == ["broken.service"]
    assert [call for call in systemd if call[0] == "start"] == [("start", "--", unit) for unit in bound]


def test_without_systemd_nothing_stops(fake_host: Host) -> None:
    put(fake_host.root, SERVICE, "[Unit]\nBindsTo=mnt-huge.mount\n")
    assert bound_services(fake_host, "/mnt/huge") == []
