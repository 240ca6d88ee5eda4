"""Servers as systemd units: recorded, started sooner, found stale, and put back."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable

import pytest

from tests.live.vm.engines import (
    FIRST_TOKEN,
    HOME,
    Start,
    install_engine,
    install_small,
    install_unit,
    plan_of,
    replays,
    small,
    time_start,
)
from tests.live.vm.fleet import Fleet, RunningPlay, differences
from tests.live.vm.machine import Machine

MIB = 1 << 20
GENERATE = ("engine.service", "http://127.0.0.1:8000/generate", '{"text": "The quick brown fox"}')
# Its modules are all compiled, so a bytecode cache would cost a start and gain nothing; the small server has one.
ENGINE = {
    "name": "engine",
    "unit": "engine.service",
    "ready": {"type": "url", "url": "http://127.0.0.1:8000/health", "timeout_s": 900},
    "replay": "both",
    "bytecode": False,
}
ENGINE_DISK_BYTES_PER_S = 8_000_000
"""An emulated machine computes some twenty times slower than a real one. Timed starts have a slower disk, too."""
SLOW_DISK_BYTES_PER_S = 6_000_000
"""Well below what small.py can use: it computes for a few seconds and reads 100 MB."""
PAIRS = 3
PATIENCE_S = 400
HARDENED = (
    "DynamicUser=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "NoNewPrivileges=yes",
    "MemoryMax=200M",
    f"Environment=PYTHONPATH={HOME}/lib",
)


def active(machine: Machine, unit: str) -> str:
    return machine.ssh(f"systemctl is-active {unit}").stdout.strip()


def audited(fleet: Fleet, returncode: int) -> dict[str, str]:
    """The verdicts of the first-token rows."""
    reports = fleet.folder / "audit"
    fleet.playbook("audit.yml", audit_reports_dir=str(reports)).expect(returncode)
    (host,) = json.loads((reports / "audit.json").read_text())["hosts"].values()
    return {row["knob"]: row["verdict"] for row in host["rows"] if row["knob"].startswith("first_token.")}


def wait_for_replay(machine: Machine, name: str) -> None:
    machine.wait_for(lambda: active(machine, f"slm-first-token-{name}.service") != "active", "the end of the replay")


@pytest.fixture
def host(numa_host: Fleet) -> Fleet:
    """A host of which nothing is to be tuned."""
    numa_host.variables.clear()
    return numa_host


def test_each_way_to_tell_that_a_unit_is_ready(host: Fleet) -> None:
    two = host["two"]
    install_small(two, weights_mib=48)
    environment = f"Environment=PYTHONPATH={HOME}/lib"
    install_unit(two, "hardened", *HARDENED, small("--port", "8001"))
    install_unit(two, "telling", "Type=notify", "User=nobody", environment, small("--port", "8002", "--notify"))
    install_unit(two, "ending", "Type=oneshot", "User=nobody", environment, small("--once"))
    two.check("systemctl start telling.service")
    pristine = host.state("two")
    targets = [
        {"name": "by-port", "unit": "hardened.service", "ready": {"type": "port", "port": 8001}},
        {"name": "by-notify", "unit": "telling.service", "ready": {"type": "notify"}, "replay": "together"},
        {"name": "by-exit", "unit": "ending.service", "ready": {"type": "exit"}, "bytecode": False, "replay": "ahead"},
    ]
    host.variables["first_token_targets"] = targets

    host.playbook("first_token.yml").expect(0)
    assert host.playbook("first_token.yml").expect(0).count("two", "changed") == 0
    # Each runs, or not, as it did before.
    assert [active(two, f"{name}.service") for name in ("hardened", "telling", "ending")] == [
        "inactive",
        "active",
        "inactive",
    ]
    for name in ("by-port", "by-notify", "by-exit"):
        plan = plan_of(two, name)
        assert [fields[5] for fields in plan if fields[0] == "W"] == [f"{HOME}/weights"]
        assert any(fields[5] == f"{HOME}/small.py" for fields in plan if fields[0] == "I")
    assert audited(host, 0) == dict.fromkeys(
        [
            "first_token.by-port.plan",
            "first_token.by-port.bytecode",
            "first_token.by-notify.plan",
            "first_token.by-notify.bytecode",
            "first_token.by-exit.plan",
        ],
        "clean",
    )

    # The check of a cache is given five seconds, and this machine, emulated, computes some twenty times slower.
    drop_in = "/run/systemd/system/slm-bytecode-by-port.service.d"
    patience = "[Service]\nTimeoutStartSec=100\n"
    two.check(f"mkdir -p {drop_in} && cat > {drop_in}/emulated.conf && systemctl daemon-reload", stdin=patience)

    # A unit in a sandbox, of a user that exists while it runs, finds its bytecode and has its replay beside it.
    start = time_start(two, "hardened.service", "http://127.0.0.1:8001/")
    assert start.answer["modules"] == start.answer["cached"] != 0
    wait_for_replay(two, "by-port")
    (replay,) = replays(two, "by-port")
    assert int(replay["read_bytes"]) > 48 * MIB
    assert (replay["stale"], replay["unread"]) == ("0", "0")

    two.check(f"rm -r {drop_in} && systemctl daemon-reload")
    host.playbook("rollback.yml").expect(0)
    two.check("systemctl stop hardened.service")
    assert differences(pristine, host.state("two")) == {}
    two.check(f"test ! -e {FIRST_TOKEN}")


def test_a_unit_that_cannot_be_recorded_is_one_error_and_left_as_it_was(host: Fleet) -> None:
    two = host["two"]
    install_small(two, weights_mib=1)
    install_unit(two, "waiting", small("--never"))
    install_unit(two, "dying", "ExecStart=/bin/sh -c 'sleep 2; exit 3'")
    two.check("systemctl start waiting.service")
    pristine = host.state("two")
    port = {"type": "port", "port": 8001, "timeout_s": 10}
    result = host.playbook(
        "first_token.yml",
        first_token_targets=[
            {"name": "unknown", "unit": "no-such.service", "ready": port},
            {"name": "silent", "unit": "waiting.service", "ready": {"type": "notify"}},
            {"name": "never", "unit": "waiting.service", "ready": port},
            {"name": "ended", "unit": "dying.service", "ready": {**port, "timeout_s": 300}},
        ],
    ).expect(2)
    for words in (
        "wanted no-such.service, loaded; found not-found",
        "wanted a unit that tells when it is ready; found Type=simple",
        "found no answer at 8001 within 10 s",
        "found it ended before it was ready",
    ):
        assert words in result.text
    assert "Traceback" not in result.output
    assert [active(two, f"{name}.service") for name in ("waiting", "dying")] == ["active", "inactive"]
    assert differences(pristine, host.state("two")) == {}
    two.check(f"test ! -e {FIRST_TOKEN}")


@pytest.mark.slow_vm
def test_any_way_to_interrupt_a_recording_leaves_the_service_running(host: Fleet) -> None:
    two = host["two"]
    install_small(two, weights_mib=8)
    # Its stop takes long enough to be interrupted in; and no boot starts it, unless by our note.
    stop = "ExecStop=/usr/bin/sleep 8"
    install_unit(two, "serving", "User=nobody", f"Environment=PYTHONPATH={HOME}/lib", stop, small("--port", "8001"))
    two.check("systemctl start serving.service")
    pristine = host.state("two")
    ready = {"type": "port", "port": 8001, "timeout_s": 300}
    host.variables["first_token_targets"] = [{"name": "serving", "unit": "serving.service", "ready": ready}]
    note = f"{FIRST_TOKEN}/stopped.json"

    def kill_the_module(_: RunningPlay) -> None:
        two.check(f'kill -KILL $(python3 -c \'import json; print(json.load(open("{note}"))["pid"])\')')

    def cut_the_connection(play: RunningPlay) -> None:
        two.disconnect()
        assert play.finish().expect(4).count("two", "unreachable") == 1
        two.connect()
        two.hang_up()

    def cut_the_power(_: RunningPlay) -> None:
        two.kill()
        two.boot()

    def is_stopping(play: RunningPlay) -> bool:
        assert play.process.poll() is None, play.output
        return active(two, "serving.service") == "deactivating"

    # The last of them may end with a recording: the module goes on without whoever asked for it.
    for interrupt in (kill_the_module, cut_the_power, cut_the_connection):
        with host.begin("first_token.yml") as play:
            two.wait_for(lambda: is_stopping(play), "the stop", PATIENCE_S)
            interrupt(play)
        two.wait_for(lambda: active(two, "serving.service") == "active", f"the service after {interrupt}", PATIENCE_S)
        two.wait_for(lambda: two.ssh(f"test -e {note}").returncode == 1, f"the end of {interrupt}", PATIENCE_S)

    host.playbook("first_token.yml").expect(0)
    assert audited(host, 0)["first_token.serving.plan"] == "clean"
    host.playbook("rollback.yml").expect(0)
    assert active(two, "serving.service") == "active"
    assert differences(pristine, host.state("two")) == {}


@pytest.mark.slow_vm
def test_a_model_server_gives_its_first_token_sooner(engine_host: Fleet, figure: Callable[[str], None]) -> None:
    engine = engine_host["engine"]
    install_engine(engine)
    pristine = engine_host.state("engine")
    engine_host.variables["first_token_targets"] = [ENGINE]
    before = time_cold(engine)
    engine.check("systemctl stop engine.service")

    recorded = engine_host.playbook("first_token.yml").expect(0)
    figure(next(line.strip() for line in recorded.output.splitlines() if "engine: recorded " in line))
    assert engine_host.playbook("first_token.yml").expect(0).count("engine", "changed") == 0
    together = time_cold(engine)
    (beside,) = replays(engine, "engine")

    engine.reboot()
    wait_for_replay(engine, "engine")
    (at_boot,) = replays(engine, "engine")
    # What the replay at boot has read is there; nothing is dropped.
    ahead = time_start(engine, *GENERATE, "--warm")
    for replay in (beside, at_boot):
        assert int(replay["read_bytes"]) > 50 * MIB
        assert (replay["stale"], replay["unread"]) == ("0", "0")
    assert set(audited(engine_host, 0).values()) == {"clean"}

    engine.check(f"touch {HOME}/app.py")
    assert audited(engine_host, 2)["first_token.engine.plan"] == "drift"

    engine_host.playbook("rollback.yml").expect(0)
    engine.check("systemctl stop engine.service")
    assert differences(pristine, engine_host.state("engine")) == {}
    after = time_cold(engine)
    assert together.answer == ahead.answer == after.answer == before.answer
    starts = {"cold, as found": before, "together": together, "ahead, at boot": ahead, "cold, after rollback": after}
    for name, start in starts.items():
        figure(f"{name}: {start.seconds:.1f} s, {before.seconds / start.seconds:.2f}x sooner than as found")


def time_cold(engine: Machine) -> Start:
    engine.limit_disks(ENGINE_DISK_BYTES_PER_S)
    try:
        return time_start(engine, *GENERATE)
    finally:
        engine.limit_disks(0)


@pytest.mark.slow_vm
def test_a_replay_beside_a_start_on_a_slow_disk(host: Fleet, figure: Callable[[str], None]) -> None:
    """No speed is asserted: the figures say what a replay does where the disk is what the start waits for."""
    two = host["two"]
    install_small(two, weights_mib=96)
    install_unit(two, "server", f"Environment=PYTHONPATH={HOME}/lib", small("--port", "8001"))
    target = {"name": "server", "unit": "server.service", "ready": {"type": "port", "port": 8001}, "replay": "together"}
    host.playbook("first_token.yml", first_token_targets=[target]).expect(0)
    # Its first start wrote bytecode beside its modules, as root may; the plan is that of a start which reads it.
    assert any("/lib/asyncio/__pycache__/" in fields[-1] for fields in plan_of(two, "server"))
    address = ("server.service", "http://127.0.0.1:8001/")
    warm = min(time_start(two, *address, "--warm").seconds for _ in range(3))
    two.limit_disks(SLOW_DISK_BYTES_PER_S)
    try:
        pairs = [(without_replay(two, address), time_start(two, *address).seconds) for _ in range(PAIRS)]
    finally:
        two.limit_disks(0)
    wait_for_replay(two, "server")
    told = replays(two, "server")
    assert len(told) >= PAIRS
    ratio = statistics.median(beside / alone for alone, beside in pairs)
    figure(f"warm: {warm:.1f} s; the disk gives {SLOW_DISK_BYTES_PER_S / 1e6:.0f} MB/s")
    for alone, beside in pairs:
        figure(f"without replay {alone:.1f} s, with it {beside:.1f} s")
    figure(f"with replay / without: {ratio:.2f} (median of {PAIRS} pairs); the last replay: {told[-1]}")


def without_replay(machine: Machine, address: tuple[str, str]) -> float:
    """Seconds of a cold start with the same bytecode, and nothing beside it."""
    folder = "/run/systemd/system/slm-first-token-server.service.d"
    off = "[Unit]\nConditionPathExists=/nowhere\n"
    machine.check(f"mkdir -p {folder} && cat > {folder}/off.conf && systemctl daemon-reload", stdin=off)
    try:
        return time_start(machine, *address).seconds
    finally:
        machine.check(f"rm -r {folder} && systemctl daemon-reload")
