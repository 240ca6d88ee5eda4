"""The parts of the pages that are made from committed documents: tables and sentences with figures.

python -m benchmarks.pages            # says which parts are out of date
python -m benchmarks.pages --write    # writes them anew

A page marks such a part with `<!-- made: NAME -->` and `<!-- made end -->`. No other place of a page states a measured
figure; tests/unit/test_pages.py compares the parts and looks for figures elsewhere.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from analysis.render import units
from analysis.statistics import figure
from analysis.sweep.metrics import CONTROL, REFERENCE, dtype_words
from benchmarks.tables import (
    FOUND,
    OURS,
    best_peer,
    by_arm,
    document_blocks,
    engine_table,
    first_token_table,
    floor_s,
    paired,
)

ROOT = Path(__file__).resolve().parent.parent
_PART = re.compile(r"(<!-- made: ([\w-]+) -->\n)(.*?)(<!-- made end -->)", re.DOTALL)
H200 = "evidence/first-token-h200-2026-12-01.json"
EARLIER_H200 = tuple(f"evidence/first-token-h200-2026-11-30-{host}.json" for host in "ab")
TWO_CPUS = "evidence/first-token-2cpu-2026-12-01.json"
CONTAINER = "evidence/container-2cpu-2026-12-01.json"
WORDS = {
    FOUND: "nothing: cold, as found",
    "vmtouch -t all beside, caches kept": "`vmtouch -t` of model and environment beside it",
    OURS: "replay together",
    "replay ahead": "replay ahead, as at boot",
    "warm, caches kept": "a warm page cache",
    "warm, replay beside": "the same, with a replay beside it that has nothing to do",
}
"""What a start is given, by the arm's name in the documents. Arms that only explain a design are in the full tables."""


@cache
def document(name: str) -> Any:
    """Return a document of docs/ by its path there."""
    return json.loads((ROOT / "docs" / name).read_text(encoding="utf-8"))


def first_token_short() -> str:
    """Return the rows for a first look: one host, the starts that people choose between."""
    made = document(H200)
    arms = by_arm(made)
    lines = ["| started with | seconds | each |", "|---|---:|---|"]
    for arm in (FOUND, "vmtouch -t all beside, caches kept", OURS, "replay ahead", "warm, caches kept"):
        each = [start["seconds"] for _, start in sorted(arms[arm].items())]
        lines.append(f"| {WORDS[arm]} | {statistics.median(each):.2f} | {_seconds(each)} |")
    return "\n".join(lines)


def first_token_results() -> str:
    """Return each kind of start on one H200, with what the host was, and the figures of the hosts before it."""
    made = document(H200)
    arms, floor = by_arm(made), floor_s(made) or 0.0
    lines = ["| started with | seconds | each | over the lower bound |", "|---|---:|---|---:|"]
    for arm, words in WORDS.items():
        each = [start["seconds"] for _, start in sorted(arms[arm].items())]
        middle = statistics.median(each)
        lines.append(f"| {words} | {middle:.2f} | {_seconds(each)} | {middle / floor:.2f}x |")
    facts, peer = made["facts"], str(best_peer(made))
    cpu = [start["replay"]["cpu_s"] for start in arms[OURS].values()]
    parts = [
        f"lower bound {floor:.2f} s",
        f"disk {facts['disk_bytes_per_s'] / 1e9:.2f} GB/s",
        f"a start touches {facts['imports_bytes'] / 1e6:,.0f} MB of imports and brings "
        f"{facts['resident_bytes'] / 1e6:,.0f} MB of them into memory",
        f"{facts['modules_compiled']:,} modules without bytecode",
        f"the replay used {min(cpu):.2f} to {max(cpu):.2f} s of CPU",
    ]
    earlier = " and ".join(f"{paired(each, FOUND, OURS):.2f}x" for each in map(document, EARLIER_H200))
    beside = _over(made, "warm, replay beside", "warm, caches kept")
    return "\n".join(
        [
            *lines,
            "",
            f"- {_taken(made)}: {'; '.join(parts)}.",
            f"- *Together* is {paired(made, FOUND, OURS):.2f}x sooner than as found and {paired(made, peer, OURS):.2f}x"
            f" sooner than `vmtouch`. On two other hosts it was {earlier} sooner than as found.",
            f"- A replay beside a warm start: {beside} its time. The last phase, the first token itself, takes "
            f"{_last_phase(made, OURS)} with kept kernels, and {_last_phase(made, FOUND)} as found.",
        ]
    )


def _last_phase(made: Mapping[str, Any], arm: str) -> str:
    each = [start["phases"]["first_token"] for start in by_arm(made)[arm].values()]
    return f"{min(each):.2f} to {max(each):.2f} s"


def _seconds(each: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in each)


def two_cpus() -> str:
    """Return the starts on two CPUs, what a replay costs where it has nothing to do, and what stale things cost."""
    made = document(TWO_CPUS)
    arms, facts, floor = by_arm(made), made["facts"], floor_s(made) or 0.0
    seconds = {arm: statistics.median(start["seconds"] for start in starts.values()) for arm, starts in arms.items()}
    named = ", ".join(
        f"{words} {seconds[arm]:.2f} s"
        for arm, words in (
            (FOUND, "cold"),
            (str(best_peer(made)), f"with `{str(best_peer(made)).removesuffix(' beside')}` beside it"),
            (OURS, "with a replay together"),
            ("replay ahead", "with one ahead"),
            ("warm, as found", "warm"),
        )
    )
    over = f"{seconds[OURS] / floor:.2f}x and {seconds['replay ahead'] / floor:.2f}x"
    lines = [
        f"- {_taken(made)}, {facts['model']}: {named}."
        f" The lower bound is {floor:.2f} s; *together* and *ahead* took {over} of it. The plan has "
        f"{facts['imports_bytes'] / 1e6:,.0f} MB of imports, of {facts['resident_bytes'] / 1e6:,.0f} in memory.",
        f"- A replay beside a warm start: {_over(made, 'warm, replay beside', 'warm, as found')} its time; a stale plan"
        f" beside a cold one: {_over(made, 'cold, a stale plan beside', FOUND)}; the check of a stale cache before it: "
        f"{_over(made, 'cold, a stale cache checked', FOUND)}.",
        replay_sweep(),
    ]
    return "\n".join(lines)


def _taken(made: Mapping[str, Any]) -> str:
    return f"{made['taken_at'][:10]}, commit {made['commit']}, {document_blocks(made)} blocks"


def _over(made: Mapping[str, Any], arm: str, other: str) -> str:
    """Return the median of paired ratios with its interval."""
    arms = by_arm(made)
    ratios = figure(arms[arm][block]["seconds"] / start["seconds"] for block, start in arms[other].items())
    low, high = ratios.ci_low, ratios.ci_high
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{ratios.median:.2f}x{interval}"


CONTAINER_WORDS = {
    FOUND: "a container, cold",
    OURS: "the same, replay together",
    "replay ahead": "the same, replay ahead",
    "cold, bare process": "a bare process, cold",
    "warm, bare process": "a bare process, warm",
}


def container_short() -> str:
    """Return in a sentence what a replay gives a container, and what the container costs."""
    made = document(CONTAINER)
    seconds = {
        arm: statistics.median(each["seconds"] for each in starts.values()) for arm, starts in by_arm(made).items()
    }
    told = ", ".join(
        f"{words} {seconds[arm]:.2f}"
        for arm, words in (
            (FOUND, "cold"),
            (OURS, "replay together"),
            ("replay ahead", "ahead"),
            ("warm, as found", "warm"),
        )
    )
    return (
        f"Seconds to the first token of {made['facts']['target'].split(' ')[0]} behind a server in a container, on "
        f"{made['host']['cpus']} CPUs: {told}; warm without one {seconds['warm, bare process']:.2f} "
        "([each start](evidence/containers.md))."
    )


def container_results() -> str:
    """Return every start in a container and without one, and what container and replay cost and give."""
    made = document(CONTAINER)
    facts = made["facts"]
    lines = [f"- {words}: {_over(made, arm, 'warm, as found')}." for arm, words in CONTAINER_WORDS.items()]
    return "\n".join(
        [
            engine_table(made),
            "",
            "Over a warm container, paired, with the interval of the median:",
            "",
            *lines,
            "",
            f"The plan has {facts['files']:,} files, {facts['imports_bytes'] / 1e6:,.0f} MB of imports and "
            f"{facts['weights_bytes'] / 1e9:.2f} GB of weights. A container takes "
            f"{_over(made, FOUND, 'cold, bare process')} the time of a bare process cold, "
            f"{_over(made, 'warm, as found', 'warm, bare process')} warm.",
        ]
    )


def full_table(name: str) -> str:
    """Return every arm of one document."""
    return first_token_table(document(name))


def _groups(name: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    groups = document(name)["analysis"]["groups"]
    return {(group["metric"], group["dtype"], group["kind"]): group for group in groups}


def _compared(group: Mapping[str, Any], arm: str) -> dict[str, Any]:
    return next(each for each in (*group["arms"], group["control"]) if each["arm"] == arm)


def _short(compared: Mapping[str, Any]) -> str:
    """Return a verdict in a cell: bold for a claim, with its interval, or the bound, or what too few blocks show."""
    if compared["verdict"] == "too_few":
        return f"not told: {1 / compared['estimate']:.2f}x [{1 / compared['high']:.2f}, {1 / compared['low']:.2f}]"
    words = str(compared["words"]).replace(" beyond noise", "")
    return words if compared["verdict"] == "none" else f"**{words}**"


def replay_sweep() -> str:
    """Return what a sweep of replays claims on two CPUs, as an entry of a list."""
    name = "examples/cpu-first-token-sweep/sweep.json"
    groups = _groups(name)
    claims = []
    for arm in ("replay-together", "replay-ahead"):
        cold, warm = (
            _compared(groups["time_to_first_token_s", "auto", kind], arm)["words"] for kind in ("cold", "warm")
        )
        claims.append(f"`{arm}`: cold {cold}; warm {warm}")
    return f"- A sweep. {'; '.join(claims)}. {_sweep_line(name)}"


def _sweep_line(name: str) -> str:
    made = document(name)
    counts, host = made["analysis"]["counts"], made["host"]
    total = counts["cold"] + counts["warm"]
    gpus = ", ".join(gpu["name"] for gpu in host["gpus"])
    machine = f"{gpus}, {host['cpus']} CPUs" if gpus else f"{host['cpus']} CPUs, no GPU"
    slow = [
        each["sample"]["noise"]["canary_slowdown"]
        for each in made["measurements"]
        if (each["sample"].get("noise") or {}).get("canary_slowdown") is not None
    ]
    return (
        f"{made['finished_at'][:10]}: {machine}, {made['model']['id']}; {made['analysis']['blocks']} blocks; noisy "
        f"samples: {counts['noisy']} of {total}, the canary took {statistics.median(slow):.2f} times its best in the "
        f"median and up to {max(slow):.1f} ([report]({Path(name).parent}/README.md))."
    )


SWEEPS = {
    "CPU host": "examples/cpu-sweep/sweep.json",
    "GPU host": "examples/gpu-sweep/sweep.json",
    "GPU host, Phi-3-mini": "examples/gpu-phi-3-mini-sweep/sweep.json",
}


def sweep_hosts() -> str:
    """Return one line a sweep: date, host, blocks and noise."""
    return "\n".join(f"- {title}, {_sweep_line(name)}" for title, name in SWEEPS.items())


def sweep_answers() -> str:
    """Return what each arm does to the weights to first token, with what it does to faults and THP-backed memory."""
    lines = [
        "| host, weights | arm | faults | THP-backed | weights to first token, cold | warm |",
        "|---|---|---:|---:|---|---|",
    ]
    for title, name in SWEEPS.items():
        groups = _groups(name)
        for dtype in document(name)["protocol"]["dtypes"]:
            where = f"{title}, {dtype_words(dtype)}"
            cold, warm = (groups["weights_to_first_token_s", dtype, kind] for kind in ("cold", "warm"))
            stock = " | ".join(units.seconds(_unchanged_s(name, dtype, kind)) for kind in ("cold", "warm"))
            faults, huge = (groups[metric, dtype, "cold"] for metric in ("minor_faults", "anon_huge_bytes"))
            lines.append(f"| {where} | unchanged | {units.count(faults['stock_median'])} | 0 B | {stock} |")
            for arm in (each["arm"] for each in cold["arms"]):
                touched, backed = (_compared(group, arm) for group in (faults, huge))
                fewer = "as unchanged" if _is_none(touched, 1.0) else f"{touched['estimate']:.2f}x"
                more = "0 B" if _is_none(backed, 0.0) else units.size(backed["estimate"])
                cells = " | ".join(_short(_compared(group, arm)) for group in (cold, warm))
                lines.append(f"| | `{arm}` | {fewer} | {more} | {cells} |")
    return "\n".join(lines)


def _is_none(compared: Mapping[str, Any], unchanged: float) -> bool:
    """Return whether no effect is claimed, or with too few blocks for claims, whether the interval has none in it."""
    if compared["verdict"] == "too_few":
        return bool(compared["low"] <= unchanged <= compared["high"])
    return bool(compared["verdict"] == "none")


def _fresh(name: str, dtype: str, kind: str) -> dict[str, dict[int, float]]:
    """Return the weights to first token in seconds of fresh processes alone, by arm and block."""
    found: dict[str, dict[int, float]] = {}
    for each in document(name)["measurements"]:
        sample = each["sample"]
        asked = (each["measurement"], each["dtype_asked"], sample["kind"])
        if asked == ("full", dtype, kind) and not each["abandoned"]:
            seconds = {phase["name"]: phase["seconds"] for phase in sample["phases"]}
            found.setdefault(each["arm"], {})[sample["block"]] = seconds["weights"] + seconds["first_token"]
    return found


def _unchanged_s(name: str, dtype: str, kind: str) -> float:
    """Return the median of the unchanged host's fresh processes. Times of templates' children are shorter."""
    fresh = _fresh(name, dtype, kind)
    return statistics.median([*fresh[REFERENCE].values(), *fresh[CONTROL].values()])


def fresh_on_gpu() -> str:
    """Return what the fresh processes alone show of `always` on the GPU host."""
    parts = []
    for kind in ("cold", "warm"):
        fresh = _fresh(SWEEPS["GPU host"], "auto", kind)
        ratios = [
            (fresh[REFERENCE][block] + fresh[CONTROL][block]) / 2 / seconds
            for block, seconds in fresh["always"].items()
        ]
        sooner = sum(ratio > 1 for ratio in ratios)
        parts.append(f"{kind} it was faster in {sooner} of {len(ratios)} (median {statistics.median(ratios):.2f}x)")
    return f"In blocks of fresh processes alone, {', '.join(parts)}."


def sweep_bounds() -> str:
    """Return what could not be told: the bounds of the whole time, and what a precision of 3 % would take."""
    lines = []
    for title, name in SWEEPS.items():
        groups = [group for key, group in _groups(name).items() if key[0] == "time_to_first_token_s"]
        bounds = [
            int(bound)
            for group in groups
            for each in group["arms"]
            for bound in re.findall(r"±(\d+)", str(each["words"]))
        ]
        if not bounds:
            few = f"{title}: {document(name)['analysis']['blocks']} blocks claim nothing"
            lines.append(f"- {few}; {_forecast(name)}.")
            continue
        told = f"effects on the whole time to first token below ±{min(bounds)} to ±{max(bounds)} %"
        lines.append(f"- {title}: {told}; {_forecast(name)}.")
    return "\n".join(lines)


def _forecast(name: str) -> str:
    """Return how many blocks the wanted precision would take, as the sweep said when it stopped."""
    return str(document(name)["stopped"]["reason"]).split("; ")[-1]


SCORES = "evidence/mutation/scores.json"


def mutation_scores() -> str:
    """Return how many small faults of each room its unit tests notice; those that change nothing do not count."""
    lines = [
        "| room | noticed | before | tried, of | change nothing | of the others | date, commit |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in document(SCORES)["rooms"]:
        tried, nothing, noticed = row["tried"], row["nothing"], row["noticed"]
        share = f"{100 * noticed / (tried - nothing):.0f} %"
        counts = f"{noticed} | {row['before']} | {tried}, {row['all']} | {nothing} | {share}"
        lines.append(f"| {row['room']} | {counts} | {row['date']}, {row['commit']} |")
    return "\n".join(lines)


def mutations_that_change_nothing() -> str:
    """Return the mutations that no test can notice, each with the reason."""
    return "\n".join(f"- {row['room']}: {each}." for row in document(SCORES)["rooms"] for each in row["equal"])


PARTS: Mapping[str, Callable[[], str]] = {
    "first-token-short": first_token_short,
    "first-token-results": first_token_results,
    "first-token-h200": lambda: full_table(H200),
    "first-token-a": lambda: full_table(EARLIER_H200[0]),
    "first-token-b": lambda: full_table(EARLIER_H200[1]),
    "first-token-2cpu": lambda: full_table(TWO_CPUS),
    "two-cpus": two_cpus,
    "container-short": container_short,
    "container-results": container_results,
    "sweep-hosts": sweep_hosts,
    "sweep-answers": sweep_answers,
    "sweep-fresh": fresh_on_gpu,
    "sweep-bounds": sweep_bounds,
    "mutation-scores": mutation_scores,
    "mutation-equal": mutations_that_change_nothing,
}


def renewed(page: str) -> str:
    """Return a page's text with its made parts as they have to be. Raises KeyError for a part that nobody makes."""
    return _PART.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}\n{match[4]}", page)


def without_made_parts(page: str) -> str:
    """Return what a page's author wrote."""
    return _PART.sub("", page)


def made_names(page: str) -> list[str]:
    """Return the names of a page's made parts."""
    return [match[2] for match in _PART.finditer(page)]


def pages() -> list[Path]:
    """Return the pages whose text is written by hand: the root's and those of docs/, without rendered reports."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/evidence").glob("*.md")]
    return sorted([*found, ROOT / "docs/examples/README.md"])


def main(arguments: Sequence[str]) -> int:
    stale = [(path, text) for path in pages() if (text := renewed(path.read_text())) != path.read_text()]
    for path, text in stale:
        print(path.relative_to(ROOT))
        if "--write" in arguments:
            path.write_text(text, encoding="utf-8")
    return 0 if "--write" in arguments or not stale else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
