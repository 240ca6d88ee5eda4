"""Folders of ours that do not outlive a reboot are found where our files lie, and refused unless accepted by name."""

from __future__ import annotations

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.audit.drift import drift_rows
from ansible.module_utils.slm_baseline.settings.kinds.thp import Thp
from ansible.module_utils.slm_baseline.settings.state.losses import LossError
from ansible.module_utils.slm_baseline.settings.state.persistence import find_temporary, refuse_temporary

from tests.support.fakes import MOUNTINFO, put

TMPFS = "{number} 27 0:{number} / {path} rw - tmpfs t rw\n"
DISK = "{number} 27 254:1 / {path} rw - ext4 /dev/vda rw\n"
ETC, STATE = "persistence./etc", "persistence./var/lib"


@pytest.mark.parametrize(
    ("mounts", "names"),
    [
        ([], []),
        ([(TMPFS, "/etc")], [ETC]),
        ([(TMPFS, "/etc/tmpfiles.d")], [ETC]),
        ([(TMPFS, "/etc/systemd/system")], [ETC]),
        ([(TMPFS, "/etc/ssh")], []),
        ([(TMPFS, "/var/lib")], [STATE]),
        ([(TMPFS, "/var/lib"), (DISK, "/var/lib/slm-baseline")], []),
        ([(TMPFS, "/var/lib/slm-baseline")], [STATE]),
        ([(TMPFS, "/etc"), (TMPFS, "/var")], [ETC, STATE]),
    ],
)
def test_where_our_files_lie_counts(fake_host: Host, mounts: list[tuple[str, str]], names: list[str]) -> None:
    lines = [line.format(number=40 + number, path=path) for number, (line, path) in enumerate(mounts)]
    put(fake_host.root, "/proc/self/mountinfo", MOUNTINFO + "".join(lines))
    assert [folder.name for folder in find_temporary(fake_host)] == names
    rows = [row for row in drift_rows(fake_host, [Thp({})], ()) if row.knob.startswith("persistence.")]
    assert [(row.knob, row.verdict) for row in rows] == [(name, "drift") for name in names]
    assert [row.verdict for row in drift_rows(fake_host, [Thp({})], (), accept=names) if row.knob in names] == [
        "clean" for _ in names
    ]
    refuse_temporary(fake_host, names)
    for name in names:
        with pytest.raises(LossError) as caught:
            refuse_temporary(fake_host, [other for other in names if other != name])
        error = caught.value
        assert (error.knob, error.next_step) == (
            name,
            f"put it on a disk, or accept the loss: slm_accept_loss: [{name}].",
        )
