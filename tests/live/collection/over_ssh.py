"""The installed collection against two hosts over ssh, as a user has it: full names, a folder of one's own.

    python -m tests.live.collection.over_ssh FOLDER [PYTHON]     # root; Debian: openssh-server

Everything is in namespaces of its own: network, mounts, processes. FOLDER gets the collection, results and reports.
PYTHON has torch: a small model is built and measured with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.scale_hosts import STAGE, Host, enter, fleet

REPOSITORY = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
SSHD = "/usr/sbin/sshd"
TUNING = {"thp_enabled": "madvise", "thp_khugepaged": {"scan_sleep_millisecs": 20000}}
TARGET = {"name": "batch", "command": ["/usr/bin/python3", "-c", "import json"], "user": "nobody"}


class Elsewhere:
    """A folder that knows nothing of this repository but the installed collection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "HOME": str(folder / "home"),
            "PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
            # The path of a socket has at most 108 bytes, and a test's folder may need them all.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{STAGE}/cp",
        }
        (folder / "home").mkdir(exist_ok=True)

    def run(self, *command: object, wanted: int = 0) -> str:
        """The output of a command; SystemExit where it ends otherwise than wanted."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != wanted:
            raise SystemExit(f"{command}: wanted {wanted}, found {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def play(self, name: str, *options: str, wanted: int = 0, **variables: Any) -> str:
        given = json.dumps({**TUNING, **variables})
        return self.run(
            "ansible-playbook", f"slm.baseline.{name}", "-i", "hosts.json", "-e", given, *options, wanted=wanted
        )

    def page(self) -> dict[str, str]:
        """Each host's status on the page of the fleet."""
        text = (self.folder / "reports/index.html").read_text(encoding="utf-8")
        block = text.partition('<script type="application/json" id="fleet">')[2].partition("</script>")[0]
        return {host["name"]: host["status"] for host in json.loads(block)["hosts"]}


def install(place: Elsewhere) -> None:
    place.run(sys.executable, REPOSITORY / "packaging/collection/build.py", place.folder / "build")
    (artifact,) = (place.folder / "build").glob("slm-baseline-*.tar.gz")
    place.run("ansible-galaxy", "collection", "install", "--offline", "-p", place.folder / "collections", artifact)


def check(told: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"{told}: wanted {wanted}, found {found}")
    print(f"{told}: {found}")


def measure(place: Elsewhere, host: str, python: str) -> None:
    """A whole baseline of one host: the model is built by the collection, loaded cold and warm, stored and shown."""
    told = place.play(
        "baseline",
        *("-l", host),
        slm_benchmark_model="tiny",
        slm_benchmark_runs=1,
        slm_benchmark_cold_scope="weights",
        slm_benchmark_python=python,
    )
    (stored,) = [path for path in (place.folder / "results" / host).iterdir() if path.name != "state.json"]
    samples = json.loads(stored.read_text())["samples"]
    check("measured", [sample["kind"] for sample in samples], ["cold", "warm"])
    check("an end with figures", "first token" in told.rpartition("PLAY RECAP")[2], True)
    report = (place.folder / "reports" / host / "README.md").read_text()
    check("its report", "tiny" in report and "Tuned and verified" in report, True)


def record(place: Elsewhere, host: Host) -> None:
    """The start of a command is recorded on one host, once."""
    place.play("first_token", "-l", host.name)
    check("recorded", (host.tree / "var/lib/slm-baseline/first-token/targets/batch/plan").is_file(), True)
    told = place.play("first_token", "-l", host.name)
    check("not recorded again", "changed=0" in told.rpartition("PLAY RECAP")[2], True)


def main(folder: Path, python: str) -> None:
    place = Elsewhere(folder)
    install(place)
    (folder / "srv").mkdir()
    subprocess.run(["mount", "--bind", folder / "srv", "/srv"], check=True)
    with fleet(SSHD):
        hosts = [Host(0), Host(1)]
        for host in hosts:
            host.build()
        login: dict[str, object] = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": f"{STAGE}/login_key",
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        # The hosts' folders are temporary ones, which the audit of a real host would call drift.
        login = {**login, "slm_accept_loss": ["persistence./etc", "persistence./var/lib"]}
        # On a disk, since nothing can be evicted from a tmpfs.
        variables: dict[str, dict[str, Any]] = {
            host.name: {**host.variables, "slm_benchmark_home": f"/srv/{host.name}"} for host in hosts
        }
        variables[hosts[0].name]["first_token_targets"] = [TARGET]
        inventory = {"gpu-hosts": {"vars": login, "hosts": variables}}
        (folder / "hosts.json").write_text(json.dumps(inventory))
        names = [host.name for host in hosts]
        knob = hosts[0].tree / "sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs"
        before = knob.read_text()

        place.play("audit", wanted=2)
        place.play("baseline", "--tags", "tune")
        check("set by the full name", knob.read_text().strip(), "20000")
        record(place, hosts[0])
        place.play("audit")
        audit = json.loads((folder / "reports/audit/audit.json").read_text())["hosts"]
        check("audit", {name: host["status"] for name, host in audit.items()}, dict.fromkeys(names, "clean"))
        starts = [row["knob"] for row in audit[names[0]]["rows"] if row["knob"].startswith("first_token.")]
        check("the start in the audit", starts, ["first_token.batch.plan"])
        if python:
            measure(place, names[0], python)
        place.play("report")
        check("page", place.page(), dict.fromkeys(names, "clean"))
        (hosts[1].tree / "sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs").write_text("30000\n")
        told = place.play("audit", wanted=2)
        check("drift is told", "scan_sleep_millisecs is 30000, should be 20000" in told, True)
        place.play("baseline", "--tags", "tune", "-l", names[1])
        place.play("rollback")
        check("put back", knob.read_text(), before)
        check("a start is left", (hosts[0].tree / "var/lib/slm-baseline/first-token").exists(), False)
        check("page after the rollback", place.page(), dict.fromkeys(names, "unknown"))
        told = place.play("rollback", rollback_purge=True)
        check("nothing to restore is told", f"{names[0]}: nothing to restore" in told, True)
        check("one folder of results each", sorted(path.name for path in (folder / "results").iterdir()), names)
        check("what is installed", list((folder / "srv").iterdir()), [])
        kept = ["build", "collections", "home", "hosts.json", "reports", "results", "srv"]
        check("nothing beside them", sorted(path.name for path in folder.iterdir()), kept)


if __name__ == "__main__":
    if os.environ.get("SLM_INSIDE"):
        main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
    else:
        os.environ["SLM_INSIDE"] = "1"
        raise SystemExit(enter([sys.executable, "-m", "tests.live.collection.over_ssh", *sys.argv[1:]]))
