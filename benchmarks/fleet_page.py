"""Is the fleet's page quick for a thousand hosts? Builds it from stored results, and opens it in headless Chromium.

Results are the golden GPU result under other names and times, as large as real ones. Needs Debian's chromium and what
`make test` installs. Prints each figure with its goal, and ends with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from analysis.fleet.files import Folders, Terms, write
from tests.support import fleet_samples as samples

QUERIES = ["gpu", "gpu-0", "gpu-07", "h100", "qwen", "6.12", "nothing of the kind", "rack-1", "drift", ""]


@dataclass(frozen=True)
class Figure:
    """The measured value, its unit, and the most it may be."""

    name: str
    value: float
    unit: str
    goal: float

    def __str__(self) -> str:
        verdict = "ok" if self.value <= self.goal else "MISSED"
        return f"{self.name:<44} {self.value:9.2f} {self.unit:<4} goal {self.goal:g} {self.unit:<4} {verdict}"


def change(host: int, run: int, document: dict[str, Any]) -> float:
    """Change a document for a varied fleet (two models and disks, slow and changed hosts); return its times' factor."""
    factor = 1.0
    if host % 5 == 0:
        document["model"], factor = {**document["model"], "id": "Qwen2.5-0.5B"}, 0.4
    if host % 3 == 0:
        document["host"]["disk"] = {**document["host"]["disk"], "model": "Another NVMe 4TB"}
    if host % 37 == 5:
        document["host"]["kernel"], factor = "6.12.4-amd64", factor * 1.22
    if host % 41 == 6 and run >= 14:
        document["software"]["torch"], factor = "2.14.0+cu128", factor * 1.3
    return factor


def fill(folder: Path, hosts: int, runs: int) -> None:
    """Store the results and an audit."""
    if not (folder / "results").exists():
        names = samples.build(folder / "results", hosts, runs, change)
        statuses = {name: "drift" if index % 23 == 3 else "clean" for index, name in enumerate(names)}
        (folder / "audit").mkdir()
        (folder / "audit/audit.json").write_text(json.dumps(samples.audit(statuses)))
        for path in (folder / "results").glob("*/*.json"):
            # Real results are indented.
            path.write_text(json.dumps(json.loads(path.read_text()), indent=2))


def built(folder: Path) -> list[Figure]:
    """Build the page in a process of its own; return time, memory and size."""
    process = multiprocessing.get_context("spawn").Process(target=_build, args=(folder,))
    begun = time.monotonic()
    process.start()
    process.join()
    seconds = time.monotonic() - begun
    if process.exitcode:
        sys.exit("the page was not built")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    size = (folder / "reports/index.html").stat().st_size
    return [
        Figure("built in", seconds, "s", 15),
        # CPU time: less than wall time if other work takes its share of the processors.
        Figure("built in, CPU time", used.ru_utime + used.ru_stime, "s", 15),
        Figure("with at most", used.ru_maxrss * 1024 / 2**30, "GiB", 1),
        Figure("page", size / 1e6, "MB", 6),
    ]


def _build(folder: Path) -> None:
    groups = {path.name: ["rack-1"] for path in (folder / "results").iterdir()}
    folders = Folders(folder / "results", folder / "reports", folder / "audit")
    write(folders, groups, Terms(timedelta(days=30), 20), samples.NOW)


def shown(folder: Path, repeats: int) -> list[Figure]:
    """Measure first paint of a fresh browser's page, and the time from a letter in the search to the painted rows."""
    paints, filters, sorts = [], [], []
    address = (folder / "reports/index.html").as_uri()
    with sync_playwright() as playwright:
        for _ in range(repeats):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1360, "height": 900})
            page.goto(f"{address}#/")
            paints.append(page.evaluate(_FIRST_PAINT) / 1000)
            page.goto(f"{address}#/hosts")
            page.wait_for_selector("#search")
            for query in QUERIES:
                filters.append(page.evaluate(_TIMED, ["search", query]))
            for heading in range(6):
                sorts.append(page.evaluate(_TIMED, ["sort", heading]))
            browser.close()
    return [
        Figure("first contentful paint, median", statistics.median(paints), "s", 1.5),
        Figure("filter to painted rows, median", statistics.median(filters), "ms", 100),
        Figure("filter to painted rows, slowest", max(filters), "ms", 100),
        Figure("sort to painted rows, slowest", max(sorts), "ms", 100),
    ]


_FIRST_PAINT = """() => new Promise((done) => new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (entry.name === "first-contentful-paint") done(entry.startTime);
}).observe({ type: "paint", buffered: true }))"""
# A task posted in an animation frame runs after that frame has been painted.
_TIMED = """([what, value]) => new Promise((done) => {
  const begun = performance.now();
  if (what === "search") {
    const search = document.getElementById("search");
    search.value = value;
    search.dispatchEvent(new Event("input", { bubbles: true }));
  } else document.querySelectorAll(".hosts thead button")[value].click();
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => done(performance.now() - begun);
    channel.port2.postMessage(null);
  });
})"""


@contextmanager
def place(given: Path | None) -> Iterator[Path]:
    """Yield the given folder, which stays, or a temporary one."""
    if given:
        yield given
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5, help="browsers started for the figures of the page")
    parser.add_argument("--folder", type=Path, help="keep results and page here, and use the results that are here")
    arguments = parser.parse_args()
    with place(arguments.folder) as folder:
        fill(folder, arguments.hosts, arguments.runs)
        print(f"{arguments.hosts} hosts with {arguments.runs} runs each")
        figures = [*built(folder), *shown(folder, arguments.repeats)]
        for figure in figures:
            print(figure)
    return int(any(figure.value > figure.goal for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
