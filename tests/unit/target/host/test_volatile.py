"""Which folders do not outlive a reboot."""

from __future__ import annotations

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.volatile import volatile_reason

from tests.support.fakes import MOUNTINFO, put

OVERLAY = "40 27 0:40 / {} rw - overlay o rw,lowerdir=/ro,upperdir={},workdir=/w\n"


@pytest.mark.parametrize(
    ("mounts", "told"),
    [
        (MOUNTINFO, ""),
        (f"{MOUNTINFO}40 27 0:40 / /etc rw - tmpfs t rw\n", "a tmpfs (/etc)"),
        (f"{MOUNTINFO}40 27 0:40 / /etcetera rw - tmpfs t rw\n", ""),
        ("27 1 0:2 / / rw - rootfs rootfs rw\n", "a rootfs (/)"),
        (f"{MOUNTINFO}40 27 0:40 / /etc rw - nfs server:/etc rw\n", ""),
        (MOUNTINFO + OVERLAY.format("/etc", "/var/upper"), ""),
        (f"{MOUNTINFO}39 27 0:39 / /run rw - tmpfs t rw\n{OVERLAY.format('/etc', '/run/upper')}", "an overlay (/etc)"),
        (OVERLAY.format("/", "/var/lib/docker/overlay2/x/diff"), "an overlay (/)"),
        ("rubbish", ""),
    ],
)
def test_by_the_file_system_under_it(fake_host: Host, mounts: str, told: str) -> None:
    put(fake_host.root, "/proc/self/mountinfo", mounts)
    reason = volatile_reason(fake_host, "/etc")
    assert reason.startswith(told) if told else reason == ""
