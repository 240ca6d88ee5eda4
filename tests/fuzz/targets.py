"""Every parser of kernel text and every JSON reader, as a function of one text, with texts that it takes.

A target returns a value or raises one of its typed errors; whatever else comes out of it is a bug.
"""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.slm_baseline.host import lease, meminfo, mountinfo, processes, sizes
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import LEASE, SWEEP_PLAN
from ansible.module_utils.slm_baseline.measuring import store
from ansible.module_utils.slm_baseline.measuring.loader import events as loader_events
from ansible.module_utils.slm_baseline.measuring.model import safetensors
from ansible.module_utils.slm_baseline.measuring.probes import gpu, host_facts, noise, process_memory
from ansible.module_utils.slm_baseline.settings.audit import drift
from ansible.module_utils.slm_baseline.settings.audit.conflicts.find import find_conflicts
from ansible.module_utils.slm_baseline.settings.boot import mount_units, tmpfiles
from ansible.module_utils.slm_baseline.settings.kernel import hugetlb, hugetlbfs, knobs
from ansible.module_utils.slm_baseline.settings.kinds import mounts, pools, registry, thp
from ansible.module_utils.slm_baseline.settings.rollback import restore, snapshot
from ansible.module_utils.slm_baseline.settings.state import files
from ansible.module_utils.slm_baseline.sweep import design, plan
from ansible.module_utils.slm_baseline.sweep import sample as sweep_sample

from analysis.audit import fleet as audit
from analysis.documents import schema
from analysis.documents.errors import DocumentError
from tests.support.fakes import MEMINFO, MOUNTINFO, build_host

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "tests/golden"
# The control side imports the same class under another name.
TYPED_ERRORS = (SettingError, DocumentError, loader_events.ProtocolError)
DEFAULT_PAGE = 2 << 20


@dataclass(frozen=True)
class Target:
    """One parser. `take` gets text as hosts read it: bytes that are no UTF-8 are lone surrogates in it."""

    name: str
    take: Callable[[str], object]
    seeds: tuple[str, ...]

    def survives(self, text: str) -> None:
        """Raise whatever is not a typed error."""
        with contextlib.suppress(*TYPED_ERRORS):
            self.take(text)


@functools.cache
def _tree() -> tuple[Host, tempfile.TemporaryDirectory[str]]:
    """The process's fake host, for all targets that read files; gone when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="slm-fuzz-")
    return Host(build_host(Path(folder.name) / "host")), folder


def _host() -> Host:
    return _tree()[0]


def _with_file(path: str, text: str) -> Host:
    """The fake host with the text where a host would have it."""
    target = _host().path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_bytes(text))
    # rc.local and its like count with their x bit alone.
    target.chmod(0o755)
    return _host()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape" if _is_escaped(text) else "surrogatepass")


def _is_escaped(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _scan(path: str, *more: tuple[str, str]) -> Callable[[str], object]:
    """Look for competing writers, and compare, with the text in one file of the fake host."""
    wanted: registry.Wanted = [
        thp.Thp({"thp.enabled": "madvise", "thp.defrag": "never"}),
        pools.Pools([hugetlb.PoolSpec(DEFAULT_PAGE, 8)]),
        mounts.Mounts([hugetlbfs.MountSpec("/mnt/huge", DEFAULT_PAGE)]),
    ]

    def take(text: str) -> object:
        host = _with_file(path, text)
        for other, content in more:
            _with_file(other, content)
        try:
            found = find_conflicts(host, registry.values_of(wanted), DEFAULT_PAGE)
            json.dumps([writer.as_dict() for writer in found])
            return drift.drift_rows(host, wanted, found)
        finally:
            for one in (path, *(other for other, _ in more)):
                if one.startswith("/proc/"):
                    build_host(host.root)
                else:
                    host.path(one).unlink()

    return take


def _snapshot(text: str) -> object:
    """What parses must survive a write and a dry restore as well."""
    stored = _bytes(text)
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(stored)
        # Behind its checksum, so that the mutations come to what it protects.
        if isinstance(document, dict) and document.pop("checksum", None):
            stored = snapshot.sealed(document)
    parsed = snapshot.parse_snapshot("snapshot.json", stored)
    assert snapshot.parse_snapshot("snapshot.json", parsed.to_json()) == parsed
    parsed.values()
    return restore.RollbackPlan(parsed).carry_out(_host(), dry_run=True)


def _lease(text: str) -> object:
    """Whatever is in the file, the next run gets the host or is refused by one error."""
    host = _with_file(LEASE, text)
    with lease.held(host, {"id": "fuzz", "controller": {"id": "b", "pid": 2, "started": 2.0}, "alive": []}):
        return None


def _samples(text: str) -> object:
    """Whatever was stored becomes samples or is left out, of a baseline and of a sweep."""
    host = _with_file(store.samples_path("fuzz"), text)
    return (
        store.finished_blocks(host, "fuzz"),
        store.shared_of(host, "fuzz"),
        sweep_sample.read_sweep_samples(host, "fuzz"),
    )


def _events(text: str) -> object:
    events = loader_events.Events(spawn_ns=100)
    data = _bytes(text)
    # In two parts, since a pipe cuts where it likes.
    events.feed(data[: len(data) // 2])
    events.feed(data[len(data) // 2 :])
    events.missing()
    return loader_events.phases(events)


def _safetensors(text: str) -> object:
    """A file whose header is the text, with four bytes of tensors behind it."""
    return safetensors.parse_header(_bytes(text), 8 + len(_bytes(text)) + 4, "model.safetensors")


def _safetensors_length(text: str) -> object:
    data = _bytes(text)
    return safetensors.header_length(data[:8], len(data), "model.safetensors")


def _plan(text: str) -> object:
    stored = plan.load_plan(_with_file(SWEEP_PLAN, text))
    if stored is not None:
        with contextlib.suppress(SettingError):
            plan.require_same(stored, asked=[], subject={"model": "tiny"})
    return stored and stored.cells()


def _knob(text: str) -> object:
    host = _with_file(f"{thp.THP}/khugepaged/fuzzed", text)
    try:
        knob = knobs.read_knob(host, "thp.khugepaged.fuzzed", f"{thp.THP}/khugepaged/fuzzed")
        with contextlib.suppress(SettingError):
            knob.check("always", "thp")
        return knob
    finally:
        host.path(f"{thp.THP}/khugepaged/fuzzed").unlink()


def _pool(text: str) -> object:
    path = f"{hugetlb.HUGEPAGES}/hugepages-2048kB/nr_hugepages"
    host = _with_file(path, text)
    try:
        return hugetlb.read_pools(host)
    finally:
        _with_file(path, "0\n")


def _status(text: str) -> object:
    return processes.pool_users(_with_file("/proc/1/status", text))


def _json(take: Callable[[Any], object]) -> Callable[[str], object]:
    """A reader of a parsed document; text that is no JSON is not its business."""

    def read(text: str) -> object:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return take(document)

    return read


def _wanted(document: Any) -> object:
    given = document if isinstance(document, dict) else {}
    return registry.values_of(registry.parse_wanted(_host(), given))


def _audit(document: Any) -> object:
    done = audit.audit({"gpu-1": document, "gpu-2": {"rows": []}}, "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z")
    return done.summary(), done.document()


def _results() -> tuple[str, ...]:
    return tuple(path.read_text() for path in sorted((GOLDEN / "results").glob("*.json")))


def _gpus() -> tuple[str, ...]:
    return tuple(path.read_text() for path in sorted((GOLDEN / "nvidia_smi").glob("*.xml")))


def _sweep_document() -> str:
    """A real sweep, cut down to one sample and one comparison: a mutation of a megabyte would find nothing."""
    document = json.loads((REPOSITORY / "docs/examples/cpu-sweep/sweep.json").read_text())
    document["measurements"] = document["measurements"][:1]
    document["analysis"]["groups"] = document["analysis"]["groups"][:1]
    return json.dumps(document)


def _answers() -> tuple[str, ...]:
    return tuple(json.dumps(answer) for answer in json.loads((GOLDEN / "audit/answers.json").read_text()).values())


_THP_PATH = f"{thp.THP}/enabled"
_SNAPSHOT = snapshot.Snapshot(
    taken_at="2026-01-01T00:00:00Z",
    run_id="run-1",
    kinds={
        "thp": {"thp.enabled": knobs.KnobState("thp.enabled", _THP_PATH, "always", "thp")},
        "pools": {str(DEFAULT_PAGE): pools.PoolLayout(DEFAULT_PAGE, 0, {0: 0})},
        "mounts": {
            "/mnt/huge": mounts.MountState("/mnt/huge", None),
            "/mnt/old": mounts.MountState("/mnt/old", hugetlbfs.MountSpec("/mnt/old", DEFAULT_PAGE, 8 << 20)),
        },
    },
    files={thp.THP_DROPIN: None, pools.POOLS_DROPIN: files.FileState(0o644, 0, 0, b"text")},
    missing_folders=["/mnt/huge"],
)
_TMPFILES = tmpfiles.tmpfiles_text({_THP_PATH: "madvise", "/proc/sys/vm/nr_hugepages": "8"})
_UNIT = mount_units.unit_text(hugetlbfs.MountSpec("/mnt/huge", DEFAULT_PAGE, 8 << 20, 0o770, 1000, 1000))
_LEASE = json.dumps({"run_id": "r", "controller": {"id": "b", "pid": 1, "started": 1.5}, "boot_id": "x", "expires": 1})
_COUNTERS = {"minor_faults": 2, "major_faults": 1, "cpu_user_s": 0.5, "cpu_system_s": 0.1}
_EVENTS = "".join(
    json.dumps({"event": name, "t_ns": 1000 * (number + 1), "read_bytes": 4096, **_COUNTERS, **more}) + "\n"
    for number, (name, more) in enumerate(
        [
            *((phase, {}) for phase in loader_events.PHASES[:-1]),
            (
                "held",
                {
                    "memory": {"rss_bytes": 1, "vsz_bytes": 2, "uss_bytes": 1, "pss_bytes": 1},
                    "device": "cpu",
                    "dtype": "float32",
                    "parameters": 1,
                    "gpu": None,
                    "software": {"torch": "2.13.0"},
                },
            ),
            ("resumed", {}),
            (loader_events.PHASES[-1], {}),
            ("done", {}),
        ]
    )
)
_SAFETENSORS = '{"__metadata__": {"format": "pt"}, "w": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}}'
_PLAN = json.dumps(
    {
        "run_id": "r",
        "seed": 1,
        "started_at": "2026-01-01T00:00:00Z",
        "asked": [{"name": "stock", "about": "as found", "settings": {}, "env": {}}],
        "arms": [{"name": "stock", "about": "as found", "settings": {}, "env": {}}],
        "left_out": [],
        "dtypes": ["auto"],
        "stock": {},
        "subject": {},
    }
)
_ARMS = json.dumps(
    [
        {"name": "stock"},
        {"name": "stock-again"},
        {"name": "never", "thp": {"enabled": "never"}, "env": {"THP_MEM_ALLOC_ENABLE": "1"}},
    ]
)
_TUNING = json.dumps(
    {
        "thp": {"enabled": "madvise", "khugepaged": {"defrag": 1}, "sizes": {"64K": "inherit"}},
        "pools": [{"size": "2M", "count": 8, "node": 0}],
        "mounts": [{"path": "/mnt/huge", "page_size": "2M", "mode": "0770", "size": "64M", "owner": "serving"}],
    }
)
_ROLLUP = "559c1a000000-7ffd [rollup]\nRss: 1024 kB\nPss: 512 kB\nAnonymous: 12 kB\nPrivate_Hugetlb: 2048 kB\n"
_STATUS = "Name:\tpython\nVmSize:\t  2048 kB\nHugetlbPages:\t    4096 kB\n"
_MEASURED = json.dumps(json.loads((GOLDEN / "results/cpu.json").read_text())["samples"][0]) + "\n"
_SWEPT = json.dumps({**json.loads(_MEASURED), "dtype_asked": "auto", "attempt": 1, "elapsed_s": 1.5}) + "\n"
_CLOSED = (
    '{"block": 1, "shared": {"ceiling": {"bytes_per_s": [2e9], "streams": 4, "guest_cold": null}, "software": {}}}\n'
)
_TUNED = "[main]\ninclude=base, other\n[vm]\ntransparent_hugepages=never\n[sysctl]\nvm.nr_hugepages=4\n"
_SERVICE = f"[Service]\nExecStart=/bin/sh -c 'echo never > {_THP_PATH}'\nExecStart=/sbin/sysctl vm.nr_hugepages=4\n"
_WANTS = "/etc/systemd/system/multi-user.target.wants"

TARGETS = (
    Target("selector", knobs.parse_selector, ("always [madvise] never\n", "[1]")),
    Target("knob", _knob, ("1\n", "always [madvise] never\n")),
    Target("size", sizes.parse_size, ("2M", "64kB", "2097152")),
    Target("pool counts", _pool, ("8\n",)),
    Target(
        "mountinfo",
        mountinfo.parse_mountinfo,
        (MOUNTINFO, r"40 27 0:35 / /mnt/a\040b rw shared:1 - hugetlbfs hugetlbfs rw,pagesize=2M" + "\n"),
    ),
    Target(
        "mount options",
        lambda text: hugetlbfs.parse_options("/mnt/huge", text, DEFAULT_PAGE).options,
        ("rw,relatime,mode=770,pagesize=2M,size=67108864", "uid=1000,gid=1000,pagesize=1024M"),
    ),
    Target("meminfo", meminfo.parse_meminfo, (MEMINFO,)),
    Target("tmpfiles.d", lambda text: tmpfiles.parse_tmpfiles("/etc/tmpfiles.d/a.conf", text), (_TMPFILES,)),
    Target("mount unit", lambda text: mount_units.parse_unit(text, DEFAULT_PAGE), (_UNIT,)),
    Target(
        "kernel command line",
        lambda text: registry.boot_values(text, DEFAULT_PAGE),
        (
            "quiet transparent_hugepage=never default_hugepagesz=1G hugepagesz=2M hugepages=0:4,1:8 "
            "thp_anon=16K,64K:always;2M:never",
        ),
    ),
    Target("snapshot", _snapshot, (_SNAPSHOT.to_json().decode(), (GOLDEN / "snapshot-1.json").read_text())),
    Target("lease", _lease, (_LEASE,)),
    Target("scan tmpfiles.d", _scan("/etc/tmpfiles.d/theirs.conf"), (_TMPFILES,)),
    Target("scan sysctl.d", _scan("/etc/sysctl.d/50-theirs.conf"), ("vm.nr_hugepages = 4\n-vm/nr_hugepages=8\n",)),
    Target("scan sysfs.conf", _scan("/etc/sysfs.conf"), (f"{_THP_PATH[5:]} = never\n",)),
    Target(
        "scan TuneD",
        _scan(
            "/etc/tuned/profiles/mine/tuned.conf",
            ("/etc/tuned/active_profile", "mine\n"),
            ("/run/tuned/tuned.pid", "1"),
        ),
        (_TUNED,),
    ),
    Target(
        "scan services",
        _scan("/etc/systemd/system/theirs.service", (f"{_WANTS}/theirs.service", "")),
        (_SERVICE,),
    ),
    Target("scan mount units", _scan("/etc/systemd/system/mnt-huge.mount"), (_UNIT, _UNIT.partition("\n")[2])),
    Target("scan rc.local", _scan("/etc/rc.local"), (f"echo never > {_THP_PATH}\nsysctl vm.nr_hugepages=4\n",)),
    Target("scan GRUB", _scan("/etc/default/grub"), ('GRUB_CMDLINE_LINUX="quiet hugepages=0:4,1:x"\n',)),
    Target("scan kargs.d", _scan("/usr/lib/bootc/kargs.d/x.toml"), ('kargs = ["hugepagesz=2M", "hugepages=4"]\n',)),
    Target("scan cloud-init", _scan("/etc/cloud/cloud.cfg"), (f'bootcmd:\n- [sh, -c, "echo never > {_THP_PATH}"]\n',)),
    Target("scan udev", _scan("/etc/udev/rules.d/x.rules"), ('SYSCTL{vm.nr_hugepages}="4", RUN+="x"\n',)),
    Target("scan crontab", _scan("/etc/crontab"), (f"@reboot root echo $N > {_THP_PATH} % x\n",)),
    Target("scan fstab", _scan("/etc/fstab"), ("none /mnt/huge hugetlbfs pagesize=2M,mode=0770 0 0\n",)),
    Target("scan command line", _scan("/proc/cmdline"), ("transparent_hugepage=never hugepages=4\n",)),
    Target("process status", _status, (_STATUS,)),
    Target("smaps_rollup", lambda text: process_memory.parse_memory(text, _STATUS), (_ROLLUP,)),
    Target("status", lambda text: process_memory.parse_memory(_ROLLUP, text), (_STATUS,)),
    Target(
        "counters",
        lambda text: process_memory.parse_counters("io", text),
        ("rchar: 1\nread_bytes: 4096\n", "thp_fault_alloc 5\n"),
    ),
    Target("CPU list", host_facts.parse_cpu_list, ("0-3,8\n",)),
    Target("CPU model", host_facts.parse_cpu_model, ("processor: 0\nmodel name\t: A CPU\n",)),
    Target("os-release", host_facts.parse_distribution, ('NAME="Debian"\nPRETTY_NAME="Debian 12"\n',)),
    Target("CPU times", lambda text: noise.parse_cpu_times(text, 100), ("cpu  10 0 20 3000 4 0 1 2 0 0\n",)),
    Target("pressure", noise.parse_stalled_us, ("some avg10=0.00 avg60=0.00 avg300=0.00 total=123\n",)),
    Target("nvidia-smi", gpu.parse_nvidia_smi, _gpus()),
    Target("damaged nvidia-smi", gpu.parse_damaged_nvidia_smi, _gpus()),
    Target(
        "NVIDIA module", gpu.parse_module_version, ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  x\n",)
    ),
    Target("loader events", _events, (_EVENTS,)),
    Target("safetensors length", _safetensors_length, ("\x02" + 7 * "\0" + "{}",)),
    Target("safetensors header", _safetensors, (_SAFETENSORS,)),
    Target("samples", _samples, (_MEASURED, _SWEPT, _MEASURED + _CLOSED)),
    Target("sweep plan", _plan, (_PLAN,)),
    Target("sweep arms", _json(design.parse_arms), (_ARMS,)),
    Target("wanted tuning", _json(_wanted), (_TUNING,)),
    Target("THP settings", _json(thp.parse_thp), (json.dumps(json.loads(_TUNING)["thp"]),)),
    Target("result document", _json(lambda document: schema.validate(document, "result")), _results()),
    Target("sweep document", _json(lambda document: schema.validate(document, "sweep")), (_sweep_document(),)),
    Target(
        "audit document",
        _json(lambda document: schema.validate(document, "audit")),
        ((GOLDEN / "audit/reports/audit.json").read_text(),),
    ),
    Target("audit answer", _json(_audit), _answers()),
)
