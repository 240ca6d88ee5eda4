"""What a run costs with a hundred hosts, and with a thousand: an audit, and a tuning that changes nothing.

Beside each stands ansible.builtin.ping with the same hosts, configuration and connection. Every run's exit status,
hosts and verdicts are checked; times are printed with their goals. `--out` takes a document with every run
(plugins/schemas/evidence.schema.json). Needs root and Debian's openssh-server; scale_hosts.py says where its hosts are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.evidence import Document, told_of_host
from benchmarks.scale_hosts import STAGE, Host, enter, fleet
from benchmarks.tables import scale_table

REPOSITORY = Path(__file__).resolve().parents[1]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
GROUP = "gpu-hosts"
FORKS = 50
DRIFT_EVERY = 10
"""When the fleet is audited, one host in this many has drifted."""
MOST_PINGS = {"audit": 1.2, "tuning": 3.0}
"""The most that a play may take, in pings of as many hosts."""
_RECAP = re.compile(r"^(?P<host>[\w.-]+)\s*:\s*(?P<counts>ok=\d+.*)$", re.MULTILINE)
_PING = "- {hosts: gpu-hosts, gather_facts: false, become: true, tasks: [{name: Ping, ansible.builtin.ping: }]}\n"
_SHARED_S = 25
"""Reading the memory of all processes takes one part in this many of the time."""


@dataclass(frozen=True)
class Cost:
    """What one run took: wall time, CPU time on either side, and peak memory of the control node.

    `pss_bytes` counts a shared page once in all, `rss_bytes` once for each process that shares it.
    """

    hosts: int
    play: str
    wall_s: float
    control_cpu_s: float
    hosts_cpu_s: float
    pss_bytes: int
    rss_bytes: int

    def to_json(self) -> dict[str, int | float]:
        """Return the figures with the names that a document has."""
        figures = asdict(self)
        del figures["play"]
        return {"seconds": figures.pop("wall_s"), **figures}


def recap(output: str) -> dict[str, dict[str, int]]:
    """Return each host's counts from ansible-playbook's last lines."""
    return {
        match["host"]: {name: int(count) for name, count in (pair.split("=") for pair in match["counts"].split())}
        for match in _RECAP.finditer(output)
    }


def wrong(output: str, hosts: Iterable[Host], wanted: Callable[[Host], Mapping[str, int]]) -> list[str]:
    """Return hosts whose counts are not the wanted ones, each with the counts found."""
    found = recap(output)
    return [
        f"{host.name}: wanted {dict(wanted(host))}, found {found.get(host.name, 'no answer')}"
        for host in hosts
        if not wanted(host).items() <= found.get(host.name, {}).items()
    ]


def verdicts(costs: Sequence[Cost]) -> list[str]:
    """Return each run beside its goals, which are those of an otherwise idle machine."""
    pings = {cost.hosts: cost.wall_s for cost in costs if cost.play == "ping"}
    held = []
    for cost in costs:
        if cost.play in MOST_PINGS and cost.hosts in pings:
            most = MOST_PINGS[cost.play]
            held.append((cost, f"{most:g} x ping", cost.wall_s <= most * pings[cost.hosts]))
        if cost.hosts >= 1000:
            held.append((cost, "1.5 GiB", cost.pss_bytes <= 1.5 * 2**30))
    return [
        f"{cost.hosts} hosts, {cost.play}: {'within' if is_held else 'MISSED:'} {goal}" for cost, goal, is_held in held
    ]


class Memory:
    """A watcher of the control node's memory: Ansible with all its processes, and ssh's persistent connections."""

    def __init__(self, root: int) -> None:
        self._root, self._ended = root, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.pss_bytes = self.rss_bytes = 0
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        wait_s = 1.0
        while not self._ended.wait(wait_s):
            began = time.monotonic()
            processes = _processes()
            sums = [_memory(pid) for pid in family(processes, self._root) | connections(processes)]
            self.pss_bytes = max(self.pss_bytes, sum(pss for pss, _ in sums))
            self.rss_bytes = max(self.rss_bytes, sum(rss for _, rss in sums))
            wait_s = max(1.0, _SHARED_S * (time.monotonic() - began))


def _processes() -> dict[int, tuple[str, int]]:
    """Return every process's name and parent; proc_pid_stat(5)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                head, _, tail = (entry / "stat").read_text(errors="replace").rpartition(")")
                found[int(entry.name)] = head.partition("(")[2], int(tail.split()[1])
    return found


def family(processes: Mapping[int, tuple[str, int]], root: int) -> set[int]:
    """Return a process and its descendants."""

    def belongs(pid: int) -> bool:
        while pid != root and pid in processes:
            pid = processes[pid][1]
        return pid == root

    return {pid for pid in processes if belongs(pid)}


def connections(processes: Mapping[int, tuple[str, int]]) -> set[int]:
    """Return the processes of ssh's persistent connections."""
    return {pid for pid, (name, parent) in processes.items() if name == "ssh" and parent == os.getpid()}


def _memory(pid: int) -> tuple[int, int]:
    """Return PSS and RSS of a process in bytes; zeros if it has ended."""
    try:
        fields = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        return int(fields["Pss"].split()[0]) * 1024, int(fields["Rss"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return 0, 0


class Control:
    """The control node: it runs plays on the first hosts of the fleet."""

    def __init__(self, sshd: int, log: Path) -> None:
        self._sshd, self._log = sshd, log

    def run(self, play: str, hosts: Sequence[Host], playbook: Path, *arguments: str) -> tuple[int, str, Cost]:
        """Run a play; return exit status, output and cost. Every connection is a new one."""
        inventory, folder = STAGE / "inventory" / "hosts.json", STAGE / "control"
        folder.mkdir(exist_ok=True)
        inventory.parent.mkdir(exist_ok=True)
        inventory.write_text(json.dumps(_inventory(hosts)))
        if not (inventory.parent / "group_vars").exists():
            shutil.copytree(REPOSITORY / "inventory" / "group_vars", inventory.parent / "group_vars")
        extra = {name: str(folder / name) for name in ("audit_reports_dir", "report_reports_dir", "report_results_dir")}
        command: list[str | Path] = [
            ANSIBLE,
            "-i",
            inventory,
            playbook,
            "--forks",
            str(FORKS),
            "-e",
            json.dumps(extra),
            *arguments,
        ]
        used, served, began = resource.getrusage(resource.RUSAGE_CHILDREN), _served_s(self._sshd), time.monotonic()
        with self._log.open("w+") as output:
            process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output, env=_environment(folder))
            memory = Memory(process.pid)
            code = process.wait()
            wall_s = time.monotonic() - began
            memory.stop()
        _end_connections(self._sshd)
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        control_s = spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime
        hosts_s = _served_s(self._sshd) - served
        cost = Cost(len(hosts), play, wall_s, control_s, hosts_s, memory.pss_bytes, memory.rss_bytes)
        return code, self._log.read_text(errors="replace"), cost


def _inventory(hosts: Sequence[Host]) -> dict[str, object]:
    known = f"-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i {STAGE}/login_key"
    variables: dict[str, object] = {
        "ansible_user": "root",
        "ansible_ssh_common_args": known,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    # The hosts' folders are temporary ones, which the audit of a real host would call drift.
    variables["slm_accept_loss"] = ["persistence./etc", "persistence./var/lib"]
    return {GROUP: {"hosts": {host.name: host.variables for host in hosts}, "vars": variables}}


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    own = {"ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_HOME": str(folder), "ANSIBLE_NOCOLOR": "1"}
    return {**kept, **own}


def _end_connections(sshd: int) -> None:
    """End ssh's persistent connections and reap them, for their CPU time; this process is its namespace's init."""
    for pid in connections(_processes()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    # The other side's time counts once sshd has seen the end of its sessions.
    while len(family(_processes(), sshd)) > 1:
        time.sleep(0.1)


def _served_s(pid: int) -> float:
    """Return the CPU seconds of sshd's ended child processes: cutime and cstime of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def require(code: int, wanted: int, problems: Sequence[str], output: str) -> None:
    """Exit with the output if a run did not do what it should."""
    if code != wanted or problems:
        told = "\n".join(problems[:10])
        sys.exit(f"{output[-6000:]}\nscale: exit status {code}, wanted {wanted}\n{told}")


def measure(control: Control, hosts: Sequence[Host]) -> list[Cost]:
    """Measure a ping, an audit with some drifted hosts, and a tuning that changes nothing."""
    ping = STAGE / "ping.yml"
    ping.write_text(_PING)
    code, output, pinged = control.run("ping", hosts, ping)
    require(code, 0, wrong(output, hosts, lambda _: {"ok": 1, "failed": 0, "unreachable": 0}), output)

    drifted = {host.name for host in hosts[::DRIFT_EVERY]}
    for host in hosts[::DRIFT_EVERY]:
        host.set_thp("always")
    code, output, audited = control.run("audit", hosts, REPOSITORY / "audit.yml")
    for host in hosts[::DRIFT_EVERY]:
        host.set_thp("madvise")
    found = json.loads((STAGE / "control/audit_reports_dir/audit.json").read_text())["hosts"]
    problems = [
        f"{host.name}: wanted {wanted}, found {found.get(host.name, {}).get('status')}"
        for host in hosts
        for wanted in ["drift" if host.name in drifted else "clean"]
        if found.get(host.name, {}).get("status") != wanted
    ]
    problems += wrong(output, hosts, lambda host: {"failed": int(host.name in drifted), "changed": 0, "unreachable": 0})
    require(code, 2, problems, output)

    code, output, tuned = control.run("tuning", hosts, REPOSITORY / "baseline.yml", "--tags", "tune")
    require(code, 0, wrong(output, hosts, lambda _: {"changed": 0, "failed": 0, "unreachable": 0}), output)
    return [pinged, audited, tuned]


def inside(options: argparse.Namespace) -> None:
    """Run the whole measurement, inside the namespaces."""
    began, costs = time.monotonic(), list[Cost]()
    facts = {"forks": FORKS, "drift_every": DRIFT_EVERY}
    document = Document("scale", told_of_host(sys.executable, ["ansible-core"]), facts)
    hosts = [Host(number) for number in range(max(options.hosts))]
    with fleet(options.sshd) as sshd:
        control = Control(sshd, STAGE / "log")
        hosts[0].build()
        # The state of a tuned host, made by a tuning, the only one here that changes anything.
        code, output, _ = control.run("first", hosts[:1], REPOSITORY / "baseline.yml", "--tags", "tune")
        require(code, 0, wrong(output, hosts[:1], lambda _: {"failed": 0, "unreachable": 0}), output)
        for host in hosts[1:]:
            host.become(hosts[0])
        for count in dict.fromkeys(options.hosts):
            costs += measure(control, hosts[:count])
            document.add_block([(cost.play, cost.to_json()) for cost in costs if cost.hosts == count])
            # Told early, so that a run that is ended early has shown its results.
            if options.out:
                document.write(options.out)
            table = scale_table(document.to_json())
            print(f"{table}\n{count} hosts seen, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(scale_table(document.to_json()), *verdicts(costs), sep="\n")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; exit with 2 where they are none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument(
        "hosts", type=_positive, nargs="*", default=[100, 300, 1000], help="how many, run by run; default: 100 300 1000"
    )
    parser.add_argument("--out", type=Path, help="where the document goes")
    parser.add_argument("--sshd", default="/usr/sbin/sshd", help="default: %(default)s, of Debian's openssh-server")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"wanted a whole number from 1, found {text!r}")
    return int(text)


def main() -> None:
    options = parse_arguments(sys.argv[1:])
    if options.inside:
        inside(options)
        return
    if os.geteuid() != 0:
        sys.exit(f"scale: wanted root, for namespaces; found user id {os.geteuid()}. Next: run it as root.")
    if not os.access(options.sshd, os.X_OK):
        sys.exit(
            f"scale: wanted {options.sshd}; found none. Next: apt-get install --no-install-recommends openssh-server"
        )
    sys.exit(enter([sys.executable, "-m", "benchmarks.scale", "--inside", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
