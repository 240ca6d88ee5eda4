"""The host's facts from a tree that stands for it, and from texts of other architectures."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.mountinfo import MountEntry, parse_mountinfo
from ansible.module_utils.slm_baseline.measuring.probes.host_facts import (
    VIRTIO_DEVICES,
    disk_facts,
    has_free_page_reporting,
    host_facts,
    mount_of,
    parse_cpu_list,
    parse_cpu_model,
    parse_distribution,
)
from hypothesis import given
from hypothesis import strategies as st

FILES = {
    "/proc/cpuinfo": "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9654 96-Core Processor\n",
    "/proc/meminfo": "MemTotal:       24683656 kB\nMemAvailable:   22000000 kB\nHugePages_Total:       0\n",
    "/proc/self/mountinfo": (
        "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        "40 22 259:0 / /srv/models rw - xfs /dev/nvme0n1 rw\n"
        "41 22 0:50 / /dev/shm rw - tmpfs tmpfs rw\n"
    ),
    "/etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "/sys/devices/system/cpu/online": "0-3,8\n",
    "/sys/class/block/nvme0n1/queue/rotational": "0\n",
    "/sys/class/block/nvme0n1/queue/read_ahead_kb": "128\n",
    "/sys/class/block/nvme0n1/device/model": "SAMSUNG MZWLR3T8HBLS-00007              \n",
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    for path, text in FILES.items():
        host.path(path).parent.mkdir(parents=True, exist_ok=True)
        host.path(path).write_text(text)
    for node in ("node0", "node1", "power"):
        host.path(f"/sys/devices/system/node/{node}").mkdir(parents=True)
    return host


def test_facts_of_a_host(host: Host) -> None:
    facts = host_facts(host, "/srv/models/qwen")
    assert facts["cpu_model"] == "AMD EPYC 9654 96-Core Processor"
    assert (facts["cpus"], facts["numa_nodes"], facts["memory_bytes"]) == (5, 2, 24683656 * 1024)
    assert facts["distribution"] == "Debian GNU/Linux 12 (bookworm)"
    assert (facts["systemd"], facts["psi"], facts["free_page_reporting"]) == (False, False, False)
    assert facts["filesystem"] == {"type": "xfs", "mount_point": "/srv/models"}
    assert facts["disk"] == {
        "device": "nvme0n1",
        "model": "SAMSUNG MZWLR3T8HBLS-00007",
        "rotational": False,
        "read_ahead_bytes": 128 * 1024,
    }


def test_a_partition_has_the_queue_of_its_disk(host: Host) -> None:
    disk = host.path("/sys/devices/pci0/block/vda")
    (disk / "vda1").mkdir(parents=True)
    (disk / "queue").mkdir()
    (disk / "queue/read_ahead_kb").write_text("4096\n")
    host.path("/sys/class/block/vda1").symlink_to(disk / "vda1")
    facts = disk_facts(host, mount_of([MountEntry(22, "/", "ext4", "/dev/vda1", "rw", "rw")], "/opt/models"))
    assert facts == {"device": "vda1", "model": None, "rotational": None, "read_ahead_bytes": 4 << 20}


def test_a_source_that_exists_nowhere_is_found_by_its_number(host: Host) -> None:
    (host.path("/sys/devices/pci0/block/vda/vda1")).mkdir(parents=True)
    (host.path("/sys/devices/pci0/block/vda/queue")).mkdir()
    for link in ("/sys/class/block/vda1", "/sys/dev/block/254:1"):
        host.path(link).parent.mkdir(parents=True, exist_ok=True)
        host.path(link).symlink_to(host.path("/sys/devices/pci0/block/vda/vda1"))
    (mount,) = parse_mountinfo("22 1 254:1 / / rw,relatime - ext4 /dev/root rw\n")
    assert (disk_facts(host, mount) or {})["device"] == "vda1"
    # btrfs has a number of its own, of no device.
    (mount,) = parse_mountinfo("22 1 0:31 /root / rw,relatime - btrfs /dev/vda1 rw\n")
    assert (disk_facts(host, mount) or {})["device"] == "vda1"


def test_what_lies_on_no_local_disk_has_no_disk(host: Host) -> None:
    for source in ("tmpfs", "server:/export", "/dev/root"):
        assert disk_facts(host, MountEntry(1, "/", "nfs", source, "rw", "rw")) is None
    assert disk_facts(host, None) is None


def test_the_deepest_and_latest_mount_holds_the_path() -> None:
    entries = [
        MountEntry(number, path, "ext4", source, "rw", "rw")
        for number, (path, source) in enumerate([("/", "a"), ("/srv", "b"), ("/srv", "c"), ("/srv2", "d")])
    ]
    assert (mount_of(entries, "/srv/models") or entries[0]).source == "c"
    assert (mount_of(entries, "/srv23") or entries[1]).source == "a"
    assert mount_of([], "/srv") is None


def test_cpus_that_have_no_name() -> None:
    assert parse_cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n") is None


def test_distributions() -> None:
    assert parse_distribution("NAME=Arch\n") == "Arch"
    assert parse_distribution('PRETTY_NAME="unclosed\nNAME=Arch\n') == "Arch"
    assert parse_distribution("") == "unknown"


@given(st.text())
def test_any_text_is_a_value_or_a_parse_error(text: str) -> None:
    parse_distribution(text)
    parse_cpu_model(text)
    try:
        assert parse_cpu_list(text) > 0
    except ParseError:
        return


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-", "0,,1", "-1"])
def test_lists_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse_cpu_list(text)


@pytest.mark.parametrize(
    ("device", "features", "expected"),
    [
        ("0x0005", "0110010100000000", True),
        ("0x0005", "0110000100000000", False),
        ("0x0002", "0110010100000000", False),
        ("0x0005", "011", False),
        ("0x0005", "", False),
    ],
)
def test_free_page_reporting_is_bit_5_of_a_balloon(host: Host, device: str, features: str, expected: bool) -> None:
    for number, (its_device, its_features) in enumerate([("0x0001", "1111111111"), (device, features)]):
        folder = host.path(f"{VIRTIO_DEVICES}/virtio{number}")
        folder.mkdir(parents=True)
        (folder / "device").write_text(f"{its_device}\n")
        (folder / "features").write_text(f"{its_features}\n")
    assert has_free_page_reporting(host) is expected


def test_the_balloon_of_hyper_v_does_not_tell(host: Host) -> None:
    host.path("/sys/bus/vmbus/drivers/hv_balloon").mkdir(parents=True)
    assert has_free_page_reporting(host) is None
