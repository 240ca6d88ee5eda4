"""A kernel whose pages have 64 KiB (arm64): its huge pages have 2 MiB, 512 MiB and 16 GiB, and THP has 512 MiB."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.settings.apply.preflight import limited
from ansible.module_utils.slm_baseline.settings.audit.facts import gather
from ansible.module_utils.slm_baseline.settings.audit.survey import judge
from ansible.module_utils.slm_baseline.settings.kinds.memory_guard import Guard
from ansible.module_utils.slm_baseline.settings.kinds.registry import boot_values, knob_of, parse_wanted
from ansible.module_utils.slm_baseline.settings.state.changes import apply_all
from ansible.module_utils.slm_baseline.settings.state.losses import Limits

from tests.conftest import REPOSITORY
from tests.support.fake_kernel import FakeKernel
from tests.support.fakes import put

MIB512, GIB = 512 << 20, 1 << 30


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    for path, text in json.loads((REPOSITORY / "tests/golden/kernel-arm64-64k.json").read_text()).items():
        put(tmp_path, path, text)
    put(tmp_path, "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    put(tmp_path, "/etc/group", "root:x:0:\n")
    for folder in ("etc/tmpfiles.d", "etc/systemd/system", "var/lib", "run", "mnt"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    return FakeKernel(tmp_path)


def test_the_survey_has_this_kernels_sizes(kernel: FakeKernel) -> None:
    facts = gather(kernel)
    assert facts["thp"]["pmd_size_bytes"] == MIB512
    assert list(facts["thp"]["sizes"]) == ["256kB", "512kB", "1024kB", "2048kB", "524288kB"]
    assert {pool["knob"]: pool["total"] for pool in facts["pools"] if pool["node"] is None} == {
        "hugepages.2M": 8,
        "hugepages.512M": 2,
        "hugepages.16G": 0,
    }
    assert {mount["path"]: mount["page_size_bytes"] for mount in facts["mounts"]} == {
        "/dev/hugepages": MIB512,
        "/mnt/small": 2 << 20,
    }


def test_what_names_no_size_means_the_default_of_512_mib(kernel: FakeKernel) -> None:
    assert boot_values("hugepages=2 hugepagesz=2M hugepages=8 hugepagesz=16G hugepages=0:1,1:2", MIB512) == {
        "hugepages.512M": "2",
        "hugepages.2M": "8",
        "hugepages.node0.16G": "1",
        "hugepages.node1.16G": "2",
    }
    assert knob_of("/proc/sys/vm/nr_hugepages", MIB512) == "hugepages.512M"
    put(kernel.root, "/etc/tmpfiles.d/team.conf", "w /proc/sys/vm/nr_hugepages - - - - 3\n")
    assert gather(kernel)["persisted"]["hugepages.512M"]["value"] == "3"


def test_the_plan_writes_to_this_kernels_files(kernel: FakeKernel) -> None:
    wanted = parse_wanted(
        kernel,
        {
            "thp": {"enabled": "madvise", "sizes": {"512M": "madvise"}},
            "pools": [{"size": "512M", "count": 4}, {"size": "2M", "count": 8}],
        },
    )
    apply_all(kernel, [change for kind in wanted for change in kind.plan(kernel, {})])
    assert kernel.read("/sys/kernel/mm/hugepages/hugepages-524288kB/nr_hugepages") == "4\n"
    assert "hugepages-524288kB/nr_hugepages - - - - 4" in kernel.read("/etc/tmpfiles.d/slm-baseline-hugepages.conf")
    size = "/sys/kernel/mm/transparent_hugepage/hugepages-524288kB/enabled"
    assert kernel.read(size) == "always inherit [madvise] never\n"
    assert {row["verdict"] for row in judge(kernel, wanted, [])["rows"]} == {"clean"}


def check(kernel: FakeKernel, asked: dict[str, object]) -> None:
    for kind in limited(parse_wanted(kernel, asked), Limits(guard=Guard(GIB, 0.5))):
        kind.check(kernel, {})


@pytest.mark.parametrize(
    ("asked", "knob", "says"),
    [
        ({"pools": [{"size": "1G", "count": 1}]}, "hugepages.1G", "a kernel with 2M, 512M, 16G"),
        (
            {"thp": {"sizes": {"64K": "madvise"}}},
            "thp.sizes.64kB.enabled",
            "This kernel offers thp.sizes.256kB.enabled, thp.sizes.512kB.enabled",
        ),
        (
            {"mounts": [{"path": "/mnt/huge", "page_size": "1G"}]},
            "hugetlbfs./mnt/huge",
            "a kernel with 2M, 512M, 16G",
        ),
        (
            {"mounts": [{"path": "/mnt/huge", "page_size": "512M", "size": "64M"}]},
            "hugetlbfs./mnt/huge size",
            "a multiple of the page size, 512M",
        ),
        (
            {"pools": [{"size": "16G", "count": 17}]},
            "hugepages_pools",
            "hugepages.16G=17 (272.00 GiB, 272.00 GiB more than now)",
        ),
    ],
)
def test_what_this_kernel_lacks_is_refused_with_its_own_sizes(
    kernel: FakeKernel, asked: dict[str, object], knob: str, says: str
) -> None:
    with pytest.raises(SettingError) as refused:
        check(kernel, asked)
    assert refused.value.knob == knob
    assert says in str(refused.value)
