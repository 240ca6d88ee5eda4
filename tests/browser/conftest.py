"""A real Chromium, Debian's, without a network, and pages made of stored results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from analysis.fleet.files import Folders, Terms, write
from tests.conftest import REPOSITORY
from tests.support import fleet_samples as samples

CHROMIUM = shutil.which("chromium")
TODAY = samples.NOW + timedelta(minutes=3)
AXE = Path(__file__).parent / "vendor/axe.min.js"


@dataclass
class Watched:
    """A page with everything it asked for and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def violations(self) -> list[str]:
        """What axe-core's rules find, as rule and place."""
        # By the debugger's way in, since the page's own policy allows no other script.
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: list[dict[str, Any]] = self.page.evaluate("async () => (await axe.run()).violations")
        return [f"{each['id']}: {node['html'][:120]}" for each in found for node in each["nodes"]]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "missing: chromium. Next: apt-get install chromium"
    with sync_playwright() as playwright:
        # Root may not use the sandbox; the pages are our own.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


Open = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """`open_page(file, address, at, **context)`: a watched page of a fresh, offline context."""
    contexts: list[BrowserContext] = []

    def open_(file: Path, address: str = "#/", at: datetime = TODAY, **options: Any) -> Watched:
        context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, "offline": True, **options})
        contexts.append(context)
        page = context.new_page()
        # A reader of the day on which the samples' page was made; ages count from the reader's clock.
        page.clock.set_fixed_time(at)
        watched = Watched(page)

        def on_request(request: Request) -> None:
            watched.requests.append(request.url)

        def on_console(message: ConsoleMessage) -> None:
            watched.complaints.append(f"{message.type}: {message.text}")

        page.on("request", on_request)
        page.on("console", on_console)
        page.on("pageerror", lambda error: watched.complaints.append(f"uncaught: {error}"))
        page.goto(f"{file.as_uri()}{address}")
        page.wait_for_selector("h1")
        return watched

    yield open_
    for context in contexts:
        context.close()


def page_of(folder: Path, inventory: dict[str, list[str]], audited: dict[str, str]) -> Path:
    """Write the page of the results in `folder` and return its file."""
    (folder / "audit").mkdir()
    (folder / "audit/audit.json").write_text(json.dumps(samples.audit(audited)))
    folders = Folders(folder / "results", folder / "reports", folder / "audit")
    return write(folders, inventory, Terms(timedelta(days=30), 20), samples.NOW).page


@pytest.fixture(scope="session")
def fleet_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty hosts with twelve runs: one slow, one that changed, one drifted, one unreachable, one never measured."""
    folder = tmp_path_factory.mktemp("fleet")

    def change(host: int, run: int, document: dict[str, Any]) -> float:
        if host == 4:
            document["host"]["kernel"] = "5.10.0"
            return 1.3
        if host >= 30:
            document["model"] = {**document["model"], "id": "Qwen2.5-0.5B"}
            return 0.4
        return 1.35 if host == 6 and run > 6 else 1.0

    names = samples.build(folder / "results", 40, 12, change)
    report = folder / "reports" / names[0]
    report.mkdir(parents=True)
    example = REPOSITORY / "docs/examples/gpu-h200-phi-3-mini"
    for name in ("README.md", "phases.svg", "imports.svg"):
        shutil.copy(example / name, report)
    without = json.loads((folder / f"results/{names[8]}/20260320T115200Z.json").read_text())
    without["host"]["systemd"] = False
    (folder / f"results/{names[8]}/20260320T115200Z.json").write_text(json.dumps(without))
    inventory = {name: [f"rack-{index // 10}"] for index, name in enumerate(names)} | {"gpu-new": []}
    return page_of(folder, inventory, {**dict.fromkeys(names, "clean"), names[1]: "drift", names[2]: "unreachable"})


@pytest.fixture(scope="session")
def many_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More like hosts than are drawn one by one, one of them slow."""
    folder = tmp_path_factory.mktemp("many")
    names = samples.build(folder / "results", 125, 1, lambda host, run, document: 1.5 if host == 4 else 1.0)
    return page_of(folder, {name: [] for name in names}, dict.fromkeys(names, "clean"))


@pytest.fixture(scope="session")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names with markup, of 200 characters and in other scripts; hostile models, missing values, failed runs."""
    folder = tmp_path_factory.mktemp("hostile")
    for index, name in enumerate(samples.HOSTILE):
        document = samples.scaled(samples.golden("troubled"), name, samples.NOW, 1)
        document["model"] = {**document["model"], "id": samples.HOSTILE[-1 - index]}
        document["host"] = {**document["host"], "kernel": samples.HOSTILE[0], "disk": None, "gpus": []}
        document["ceiling"] = None
        rows = document["tuning"]["rows"]
        document["tuning"] = {**document["tuning"], "rows": [{**row, "runtime": None, "detail": name} for row in rows]}
        samples.store(folder / "results", document)
        failed = samples.scaled(document, name, samples.NOW + timedelta(hours=1), 1)
        failed["summary"] = {"counts": {"failed": 6}}
        failed["samples"] = [{**each, "kind": "failed", "reason": name} for each in document["samples"]]
        samples.store(folder / "results", failed)
    (folder / "results/x").mkdir()
    (folder / "results/x/<script>alert(1)<.json").write_text("{")
    return page_of(folder, {samples.HOSTILE[0]: [samples.HOSTILE[1]]}, {samples.HOSTILE[1]: "error", "": "clean"})
