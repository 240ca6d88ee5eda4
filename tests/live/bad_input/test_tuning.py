"""Bad input through the real play: exit code 2, one error that names knob, wanted and found, and nothing changed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.live.bad_input.conftest import NOBODY, Outcome, Play


def pool(**entry: Any) -> dict[str, Any]:
    return {"hugepages_pools": [{"size": "2M", "count": 1, **entry}]}


def mount(**entry: Any) -> dict[str, Any]:
    return {"hugetlbfs_mounts": [{"path": "/mnt/huge", "page_size": "2M", **entry}]}


PAGE = {"path": "/mnt/huge", "page_size": "2M"}
CASES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "unknown THP value": ({"thp_enabled": "sometimes"}, "thp.enabled", "sometimes", "always, madvise, never"),
    "unknown defrag value": ({"thp_defrag": "inherit"}, "thp.defrag", "inherit", "defer+madvise"),
    "a YAML boolean": ({"thp_enabled": False}, "thp_enabled", "a word", "False"),
    "an empty THP value": ({"thp_enabled": ""}, "thp_enabled", "a word", "''"),
    "unknown khugepaged file": ({"thp_khugepaged": {"speed": 1}}, "thp.khugepaged.speed", "1", "no such knob"),
    "negative khugepaged number": ({"thp_khugepaged": {"defrag": -1}}, "thp_khugepaged.defrag", "a whole number", "-1"),
    "unknown THP size": ({"thp_sizes": {"3K": "always"}}, "thp.sizes.3kB.enabled", "always", "no such knob"),
    "unknown policy of a THP size": ({"thp_sizes": {"64K": "maybe"}}, "thp.sizes.64kB.enabled", "maybe", "inherit"),
    "pool size the kernel lacks": (pool(size="16M"), "hugepages.16M", "pages of 16M", "a kernel with 2M"),
    "pool size that is none": (pool(size="big"), "hugepages_pools.size", "a size", "'big'"),
    "negative count": (pool(count=-1), "hugepages.2M count", "a whole number from 0", "-1"),
    "huge count": (pool(count=10**12), "hugepages.2M count", "a whole number from 0", "1000000000000"),
    "fractional count": (pool(count=1.5), "hugepages.2M count", "a whole number from 0", "1.5"),
    "boolean count": (pool(count=True), "hugepages.2M count", "a whole number from 0", "True"),
    "word for a count": (pool(count="many"), "hugepages.2M count", "a whole number from 0", "'many'"),
    "pool larger than the guard allows": (pool(count=10**7), "hugepages_pools", "hugepages.2M=10000000", "of memory"),
    "margin that leaves nothing": ({"hugepages_margin": "1T"}, "hugepages_pools", "hugepages.2M=1024", "available"),
    "margin that is no size": ({"hugepages_margin": "lots"}, "hugepages_margin", "a size", "'lots'"),
    "share that is none": ({"hugepages_max_share": "half"}, "hugepages_max_share", "a number", "'half'"),
    "share above one": ({"hugepages_max_share": 7}, "hugepages_max_share", "a share of memory", "7"),
    "node that does not exist": (pool(node=99), "hugepages.node99.2M", "node 99", "nodes 0"),
    "unknown key in a pool": (pool(nodes=0), "hugepages_pools", "size, and optionally count, memory, node", "nodes"),
    "pools that are no list": ({"hugepages_pools": "2M"}, "hugepages_pools", "a list", "'2M'"),
    "two pools that contradict": (
        {"hugepages_pools": [{"size": "2M", "count": 1}, {"size": "2048K", "count": 2}]},
        "hugepages.2M",
        "2 pages",
        "hugepages.2M in the same list again, with 1",
    ),
    "relative mount path": (mount(path="mnt/huge"), "hugetlbfs_mounts.path", "an absolute path", "'mnt/huge'"),
    "mount path with dots": (
        mount(path="/mnt/../etc/x"),
        "hugetlbfs_mounts.path",
        "an absolute path",
        "'/mnt/../etc/x'",
    ),
    "non-empty mount path": (mount(path="/etc"), "hugetlbfs./etc", "an empty folder", "entries in /etc"),
    "a file for a mount path": (mount(path="/etc/passwd"), "hugetlbfs./etc/passwd", "a folder", "a file"),
    "symlinked mount path": (mount(path="/proc/self/cwd"), "hugetlbfs./proc/self/cwd", "a folder", "symbolic link"),
    "already-mounted path": (mount(path="/proc"), "hugetlbfs./proc", "one hugetlbfs mount", "proc (proc)"),
    "systemd's own mount": (
        mount(path="/dev/hugepages"),
        "hugetlbfs./dev/hugepages",
        "of our own",
        "dev-hugepages.mount",
    ),
    "mode as a number": (mount(mode=504), "hugetlbfs./mnt/huge", 'a mode such as "0770"', "504"),
    "mode that is none": (mount(mode="rwxr-x---"), "hugetlbfs./mnt/huge", "a mode", "'rwxr-x---'"),
    "mode the kernel would not keep": (mount(mode="2770"), "hugetlbfs./mnt/huge", "a mode", "'2770'"),
    "unknown owner": (mount(owner="no-such-user"), "hugetlbfs./mnt/huge", "owner 'no-such-user'", "no such name"),
    "unknown group": (mount(group="no-such-group"), "hugetlbfs./mnt/huge", "group 'no-such-group'", "no such name"),
    "limit that is no whole page": (
        mount(size="3M"),
        "hugetlbfs./mnt/huge size",
        "a multiple of the page size",
        "'3M'",
    ),
    "mount of pages without a pool": (mount(page_size="16M"), "hugetlbfs./mnt/huge", "pages of 16M", "a kernel with"),
    "unknown key in a mount": (mount(gid=7), "hugetlbfs_mounts", "path and page_size", "gid"),
    "two mounts that contradict": (
        {"hugetlbfs_mounts": [PAGE, {**PAGE, "mode": "0700"}]},
        "hugetlbfs./mnt/huge",
        "mode=0700",
        "/mnt/huge (pagesize=2M",
    ),
}


def assert_nothing_changed(done: Outcome) -> None:
    """Ansible's recap says so, or the run has ended before its first task."""
    assert "changed=0" in done.output or ("Nothing was read or changed." in done.output and "TASK [" not in done.output)


@pytest.mark.parametrize("case", CASES)
def test_bad_setting(play: Play, case: str) -> None:
    variables, knob, wanted, found = CASES[case]
    done = play(variables)
    assert done.rc == 2, done.output
    assert len(done.errors) == 1, done.output
    (error,) = done.errors
    assert error.startswith(f"{knob}: wanted "), error
    assert wanted in error.partition("; found ")[0]
    assert found in error.partition("; found ")[2]
    assert ". Next: " in error
    assert "Traceback" not in done.output
    assert_nothing_changed(done)


def test_a_word_for_no_boolean_stops_before_any_change(play: Play) -> None:
    done = play({"hugepages_compact": "perhaps"})
    assert done.rc == 2, done.output
    assert len(done.errors) == 1, done.output
    assert "hugepages_compact: wanted true or false; found 'perhaps'." in " ".join(done.output.split())
    assert_nothing_changed(done)


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        ("mount -o remount,bind,ro /sys", "/sys: wanted a writable /sys; found Read-only file system"),
        (
            "mount -t tmpfs none /sys/kernel/mm/transparent_hugepage",
            "thp.enabled: wanted madvise; found no /sys/kernel",
        ),
        ("mount -t tmpfs none /sys/kernel/mm/hugepages", "hugepages.2M: wanted 1024 pages; found no pools under"),
    ],
)
def test_a_kernel_that_cannot_be_tuned_says_so(play: Play, prepare: str, error: str) -> None:
    done = play({}, prepare=prepare)
    assert done.rc == 2, done.output
    assert len(done.errors) == 1, done.output
    assert done.errors[0].startswith(error)
    assert "changed=0" in done.output


def test_no_root_says_so(play: Play) -> None:
    with tempfile.TemporaryDirectory() as home:
        os.chown(home, int(NOBODY), int(NOBODY))
        # Any Python that nobody may run: this one may be in a folder of root.
        done = play({"ansible_become": False, "ansible_python_interpreter": "/usr/bin/python3"}, home=home)
    assert done.rc == 2, done.output
    assert done.errors[0].startswith("memory tuning: wanted root; found user id 65534."), done.output


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 2}', '{"schema_version": 1}', "\0" * 4096])
@pytest.mark.parametrize("playbook", ["baseline.yml", "rollback.yml"])
def test_a_snapshot_that_cannot_be_trusted_stops_all_and_stays(
    play: Play, tmp_path: Path, text: str, playbook: str
) -> None:
    stored = tmp_path / "snapshot.json"
    stored.write_text(text)
    prepare = (
        f"mkdir -p /var/lib/slm-baseline /run/slm-baseline; mount --bind {tmp_path} /var/lib/slm-baseline; "
        "mount -t tmpfs none /run/slm-baseline"
    )
    existed = Path("/var/lib/slm-baseline").exists()
    try:
        done = play({}, playbook=playbook, prepare=prepare)
    finally:
        if not existed:
            Path("/var/lib/slm-baseline").rmdir()
    assert done.rc == 2, done.output
    assert len(done.errors) == 1, done.output
    assert done.errors[0].startswith("/var/lib/slm-baseline/snapshot.json: wanted a snapshot of schema version 1")
    assert stored.read_text() == text
    assert os.listdir(tmp_path) == ["snapshot.json"]
