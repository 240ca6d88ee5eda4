"""Tables of a benchmark's document, as the pages in docs/ hold them.

python -m benchmarks.tables docs/evidence/NAME.json
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CHANGES = "(changes the application)"
OURS = "replay together"
FOUND = "cold, as found"
WARM = ("warm, caches kept", "warm, as found")
COLD = ("cold, caches kept", FOUND)
LAST_IMPORT = "import_transformers"


def by_arm(document: Mapping[str, Any]) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the starts of each arm by block."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for start in document["starts"]:
        found.setdefault(start["arm"], {})[start["block"]] = start
    return found


def floor_s(document: Mapping[str, Any]) -> float | None:
    """Return F* in seconds: max(W, max over k of (bytes up to the end of phase k) / D + (warm time after phase k)).

    W is the median warm start with all caches kept, by phase; bytes are those of the median cold start, and for the
    imports only those that a start touches, because the rest is the kernel's read-around. None without both.
    """
    arms, facts = by_arm(document), document["facts"]
    warm = next((median_start(list(arms[name].values())) for name in WARM if name in arms), None)
    cold = next((median_start(list(arms[name].values())) for name in COLD if name in arms), None)
    if warm is None or cold is None or not facts.get("disk_bytes_per_s"):
        return None
    touched = facts["imports_bytes"] / max(1, facts["resident_bytes"])
    names = list(warm["phases"])
    left_s: float = sum(warm["phases"].values())
    floor = left_s
    imports_bytes = cold["read_bytes"].get(LAST_IMPORT, 0)
    for name in names:
        left_s -= warm["phases"][name]
        total = cold["read_bytes"][name]
        needed = min(total, imports_bytes) * min(1.0, touched) + max(0, total - imports_bytes)
        floor = max(floor, needed / facts["disk_bytes_per_s"] + left_s)
    return floor


def median_start(starts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the start whose time is the (lower) median."""
    return sorted(starts, key=lambda start: float(start["seconds"]))[(len(starts) - 1) // 2]


def paired(document: Mapping[str, Any], arm: str, other: str) -> float | None:
    """Return the median over blocks of the time of one arm over that of another; None if they share no block."""
    arms = by_arm(document)
    mine, theirs = arms.get(arm, {}), arms.get(other, {})
    ratios = [mine[block]["seconds"] / theirs[block]["seconds"] for block in mine if block in theirs]
    return statistics.median(ratios) if ratios else None


def best_peer(document: Mapping[str, Any]) -> str | None:
    """Return the arm with the lowest median among tools that people use today and that change no application."""
    medians = {
        arm: statistics.median(start["seconds"] for start in starts.values())
        for arm, starts in by_arm(document).items()
        if arm.startswith(("cat ", "vmtouch "))
    }
    return min(medians, key=lambda arm: medians[arm], default=None)


def first_token_table(document: Mapping[str, Any]) -> str:
    """Return the arms of a run, soonest first, as Markdown, with the subject above and the best peer below."""
    floor, facts = floor_s(document), document["facts"]
    over = f"over the floor ({floor:.2f} s)" if floor else "over the floor"
    lines = [
        f"{document['kind']}, {document['taken_at']}, commit {document['commit']}, {document_blocks(document)} blocks: "
        f"{where(document)}; {facts['model']}; disk {facts['disk_bytes_per_s'] / 1e9:.2f} GB/s; a start needs "
        f"{facts['imports_bytes'] / 1e6:,.0f} MB of imports ({facts['resident_bytes'] / 1e6:,.0f} in memory) and "
        f"{facts['weights_bytes'] / 1e9:.2f} GB of weights; {facts['modules_compiled']:,} modules without bytecode, "
        f"{facts['kernel_files']} kernels compiled.",
        "",
        f"| start | median | each | {over} | our replay together is sooner by (paired) |",
        "|---|---:|---|---:|---:|",
    ]
    arms = by_arm(document)
    for arm in sorted(arms, key=lambda arm: statistics.median(start["seconds"] for start in arms[arm].values())):
        seconds = [start["seconds"] for _, start in sorted(arms[arm].items())]
        middle = statistics.median(seconds)
        ratio = paired(document, arm, OURS)
        lines.append(
            f"| {arm} | {middle:.2f} | {', '.join(f'{each:.2f}' for each in seconds)} | "
            f"{f'{middle / floor:.2f}' if floor else '-'} | {f'{ratio:.2f}x' if ratio else '-'} |"
        )
    peer = best_peer(document)
    if peer:
        lines += ["", f"Best peer that changes no application: {peer}, {paired(document, peer, OURS) or 0:.2f}x."]
    return "\n".join(lines)


def engine_table(document: Mapping[str, Any]) -> str:
    """Return the arms of an engine's run, soonest first, as Markdown."""
    lines = [
        f"{document['kind']}, {document['taken_at']}, commit {document['commit']}, {document_blocks(document)} blocks: "
        f"{where(document)}; target {document['facts']['target']}.",
        "",
        "| start | ready | first token | each | sooner than as found (paired) |",
        "|---|---:|---:|---|---:|",
    ]
    arms = by_arm(document)
    for arm in sorted(arms, key=lambda arm: statistics.median(start["seconds"] for start in arms[arm].values())):
        starts = [start for _, start in sorted(arms[arm].items())]
        ready, token = (statistics.median(start[name] for start in starts) for name in ("ready_s", "seconds"))
        ratio = paired(document, FOUND, arm)
        each = ", ".join(f"{start['seconds']:.2f}" for start in starts)
        lines.append(f"| {arm} | {ready:.2f} | {token:.2f} | {each} | {f'{ratio:.2f}x' if ratio else '-'} |")
    return "\n".join(lines)


def scale_table(document: Mapping[str, Any]) -> str:
    """Return plays on many hosts as Markdown, each beside the ping of as many."""
    ping = {start["hosts"]: start["seconds"] for start in document["starts"] if start["arm"] == "ping"}
    lines = [
        f"{head(document)}; CPUs for control node and hosts together, {document['facts']['forks']} forks, one host in "
        f"{document['facts']['drift_every']} drifted.",
        "",
        "| hosts | play | wall s | ms a host | x ping | control CPU s | hosts' CPU s | control node's PSS | its RSS |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for start in document["starts"]:
        hosts, seconds = start["hosts"], start["seconds"]
        lines.append(
            f"| {hosts:,} | {start['arm']} | {seconds:.1f} | {seconds / hosts * 1000:.0f} "
            f"| {seconds / ping[hosts]:.2f} "
            f"| {start['control_cpu_s']:.1f} | {start['hosts_cpu_s']:.1f} | {start['pss_bytes'] / 2**30:.2f} GiB "
            f"| {start['rss_bytes'] / 2**30:.2f} GiB |"
        )
    return "\n".join(lines)


def one_host_table(document: Mapping[str, Any]) -> str:
    """Return plays on one host as Markdown, in the order of a round, each beside the median ping."""
    seconds: dict[str, list[float]] = {}
    for start in document["starts"]:
        seconds.setdefault(start["arm"], []).append(start["seconds"])
    ping = statistics.median(seconds["ping"])
    lines = [
        f"{head(document)}, {document_blocks(document)} rounds; the host: {document['facts']['machine']}.",
        "",
        "| play | runs | median s | least to most | x ping |",
        "|---|---:|---:|---:|---:|",
    ]
    for play, runs in seconds.items():
        middle = statistics.median(runs)
        lines.append(
            f"| {play} | {len(runs)} | {middle:.1f} | {min(runs):.1f} to {max(runs):.1f} | {middle / ping:.2f} |"
        )
    return "\n".join(lines)


TABLES = {"first-token": first_token_table, "engine": engine_table, "scale": scale_table, "one-host": one_host_table}


def document_blocks(document: Mapping[str, Any]) -> int:
    """Return how many blocks the document has."""
    return max((start["block"] for start in document["starts"]), default=0)


def head(document: Mapping[str, Any]) -> str:
    """Return what a run was, when and where."""
    return f"{document['kind']}, {document['taken_at']}, commit {document['commit']}: {where(document)}"


def where(document: Mapping[str, Any]) -> str:
    """Return the host in words."""
    host = document["host"]
    gpus = host["gpus"]
    counted = f"{len(gpus)} x {gpus[0]}" if gpus else "no GPU"
    software = ", ".join(f"{name} {version}" for name, version in host["software"].items())
    return f"{counted}, {host['cpus']} CPUs, {software}"


def main(arguments: Sequence[str]) -> int:
    for path in arguments:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        print(TABLES[document["kind"]](document), end="\n\n")
    return 0 if arguments else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
