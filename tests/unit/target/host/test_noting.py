"""A host that notes what its user may not read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.noting import NotingHost

from tests.support.fakes import put


@pytest.fixture
def noting(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> NotingHost:
    """A host with a crontab and a folder that only root reads; as tests run as root, the refusal is played."""
    put(fake_host.root, "/etc/cron.d/thp", "echo never\n")
    put(fake_host.root, "/etc/secret/x", "")
    closed = {fake_host.name("/etc/cron.d/thp"), fake_host.name("/etc/secret")}

    def checked(path: str) -> str:
        if path in closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return path

    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listdir(checked(path)))
    read = Host.read
    monkeypatch.setattr(Host, "read", lambda host, path: read(host, checked(host.name(path)) and path))
    return NotingHost(fake_host.root)


def test_what_may_not_be_read_is_noted_and_left_out(noting: NotingHost) -> None:
    assert noting.read_or_none("/etc/cron.d/thp") is None
    assert noting.names("/etc/secret") == []
    assert noting.unreadable == [
        {"path": "/etc/cron.d/thp", "reason": "Permission denied"},
        {"path": "/etc/secret", "reason": "Permission denied"},
    ]


def test_what_is_missing_or_readable_is_nothing_to_note(noting: NotingHost) -> None:
    assert noting.read_or_none("/etc/nothing") is None
    assert noting.names("/etc/nothing") == []
    assert noting.names("/etc/cron.d") == ["thp"]
    assert noting.read_or_none("/etc") is None
    assert noting.unreadable == []


def test_it_is_the_same_host(noting: NotingHost) -> None:
    assert noting.root == Path(noting.root)
    assert not noting.is_live
