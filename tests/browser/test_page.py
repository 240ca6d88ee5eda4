"""The fleet's page as a reader meets it: opened from a folder without a network, in a real Chromium."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from analysis.render import units
from tests.browser.conftest import Open, Watched, page_of
from tests.support import fleet_samples as samples
from tests.support.fleet_samples import HOSTILE

VIEWS = [
    "#/",
    "#/hosts",
    "#/host/gpu-05",
    "#/host/gpu-07/20260316T115400Z",
    "#/outliers",
    "#/changes",
    "#/compare?a=gpu-05&b=gpu-07",
    "#/host/gpu-new",
    "#/nowhere",
]


def unchanged(watched: Watched, file: Path) -> None:
    """The page asked for itself alone, and complained of nothing."""
    assert {url.partition("#")[0] for url in watched.requests if not url.startswith("data:")} == {file.as_uri()}
    assert watched.complaints == []


def names(watched: Watched) -> list[str]:
    return watched.page.locator("table.hosts tbody th[scope=row]").all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", VIEWS)
def test_every_view_is_accessible_silent_and_asks_for_nothing(
    open_page: Open, fleet_page: Path, address: str, scheme: str
) -> None:
    watched = open_page(fleet_page, address, color_scheme=scheme)
    assert watched.violations() == []
    unchanged(watched, fleet_page)


def test_the_overview_counts_and_its_tiles_lead_to_those_hosts(open_page: Open, fleet_page: Path) -> None:
    watched = open_page(fleet_page)
    page = watched.page
    tiles = {text.split("\n")[1]: text.split("\n")[0] for text in page.locator(".tile").all_inner_texts()}
    assert tiles["clean"] == "38"
    assert (tiles["drifted"], tiles["unreachable"], tiles["never measured"]) == ("1", "1", "1")
    page.locator(".tile", has_text="drifted").click()
    assert names(watched) == ["gpu-02"]
    assert page.locator(".count").inner_text() == "1 of 41 hosts"


def test_settings_are_told_by_majority_and_by_who_differs(open_page: Open, fleet_page: Path) -> None:
    row = open_page(fleet_page).page.locator("table.settings tr", has_text="thp.enabled")
    assert row.inner_text().split() == ["thp.enabled", "madvise", "on", "39", "always", "on", "1:", "gpu-02"]


def test_sorting_puts_the_slowest_first_and_missing_last(open_page: Open, fleet_page: Path) -> None:
    watched = open_page(fleet_page, "#/hosts")
    page = watched.page
    assert names(watched)[:3] == ["gpu-01", "gpu-02", "gpu-03"]
    heading = page.get_by_role("button", name="Cold first token")
    heading.click()
    heading.click()
    assert set(names(watched)[:2]) == {"gpu-05", "gpu-07"}
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Cold first token")
    page.locator(".scroller").evaluate("element => element.scrollTo(0, element.scrollHeight)")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.hosts th[scope=row]')].at(-1).innerText === 'gpu-new'"
    )


def test_what_is_shown_stands_in_the_address_and_comes_back(open_page: Open, fleet_page: Path) -> None:
    watched = open_page(fleet_page, "#/hosts")
    page = watched.page
    page.get_by_label("Search hosts").fill("gpu-3")
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Model", exact=True).select_option(label="Qwen2.5-0.5B")
    page.get_by_label("Cold first token", exact=True).fill("< 8")
    page.get_by_role("button", name="Columns").click()
    page.get_by_role("checkbox", name="Runs").check()
    page.get_by_role("button", name="Host", exact=True).click()
    found = names(watched)
    assert found == [f"gpu-{number}" for number in range(39, 30, -1)]
    again = open_page(fleet_page, page.url.partition("#")[1] + page.url.partition("#")[2])
    assert names(again) == found
    assert again.page.locator("thead th").all_inner_texts()[-1] == "Runs"
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".count").inner_text() == "41 hosts"


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("groups=%3Drack-1", 10),
        ("status=%3Dunreachable", 1),
        ("kernel=5.10", 1),
        ("gpu=H100&disk=nvme", 40),
        ("cold_token=%3E+15", 2),
        ("cold_token=4..6", 10),
        ("disk_rate=3.4", 40),
        ("stands_out=outlier", 2),
        ("measured=%3Dnever+measured", 1),
        ("cold_token=nonsense", 0),
    ],
)
def test_any_column_filters(open_page: Open, fleet_page: Path, query: str, count: int) -> None:
    page = open_page(fleet_page, f"#/hosts?{query}").page
    assert page.locator(".count").inner_text() == f"{count} of 41 hosts"


def test_the_keyboard_alone_finds_a_host(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page).page
    page.keyboard.press("/")
    page.keyboard.type("gpu-17")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('host')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('gpu-17')")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.title() == "gpu-17 · slm-baseline fleet"


def test_saved_csv_and_json_are_what_is_shown(open_page: Open, fleet_page: Path) -> None:
    watched = open_page(fleet_page, "#/hosts?q=gpu-1&sort=-host&columns=host,status,cold_token,last")
    with watched.page.expect_download() as caught:
        watched.page.get_by_role("button", name="Save CSV").click()
    rows = list(csv.reader(io.StringIO(caught.value.path().read_text(encoding="utf-8"))))
    assert rows[0] == ["Host", "Status", "Cold first token (s)", "Latest run (UTC)"]
    assert [row[0] for row in rows[1:]] == [f"gpu-{number}" for number in range(19, 9, -1)]
    assert all(11 < float(row[2]) < 14 for row in rows[1:])
    assert rows[1][3] == "2026-03-20T11:42:00.000Z"
    with watched.page.expect_download() as caught:
        watched.page.get_by_role("button", name="Save JSON").click()
    objects = json.loads(caught.value.path().read_text(encoding="utf-8"))
    assert [each["host"] for each in objects] == [row[0] for row in rows[1:]]
    assert objects[0]["cold_token"] == float(rows[1][2])


def test_a_host_leads_to_its_runs_documents_and_comparison(open_page: Open, fleet_page: Path) -> None:
    watched = open_page(fleet_page, "#/hosts")
    page = watched.page
    page.get_by_role("link", name="gpu-01").click()
    assert page.get_by_role("heading", level=1).inner_text() == "gpu-01"
    assert page.locator(".history svg").count() == 6
    document = page.get_by_role("link", name="Result document")
    assert (fleet_page.parent / str(document.get_attribute("href"))).resolve().is_file()
    report = page.get_by_role("link", name="Report of the latest run")
    assert (fleet_page.parent / str(report.get_attribute("href"))).resolve().is_file()
    page.get_by_role("link", name="Compare with the run before").click()
    page.wait_for_selector("h1:has-text('Compare')")
    assert page.get_by_label("Host").first.input_value() == "gpu-01"
    assert "intervals" in page.locator("table").first.inner_text()
    document_text = open_page(fleet_page, "#/host/gpu-01").page.get_by_role("link", name="Result document")
    document_text.click()
    document_text.page.wait_for_url("**/results/gpu-01/*.json")


def test_a_narrow_screen_gets_readable_charts_and_one_row_of_views(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, viewport={"width": 390, "height": 844}).page
    heights = page.eval_on_selector_all(
        ".distribution .axis", "found => found.map((each) => each.getBoundingClientRect().height)"
    )
    assert heights
    assert min(heights) >= 9
    rows = page.eval_on_selector_all("nav a", "found => new Set(found.map((each) => each.offsetTop)).size")
    assert rows == 1
    page = open_page(fleet_page, "#/host/gpu-01", viewport={"width": 390, "height": 844}).page
    assert max(page.eval_on_selector_all(".runs tbody tr", "found => found.map((each) => each.offsetHeight)")) < 50


def test_one_odd_host_among_very_many_is_seen(open_page: Open, tmp_path: Path) -> None:
    names = samples.build(tmp_path / "results", 125, 1, lambda host, run, document: 1.5 if host == 4 else 1.0)
    page = open_page(page_of(tmp_path, {name: [] for name in names}, dict.fromkeys(names, "clean"))).page
    heights = page.eval_on_selector_all(".column", "found => found.map((each) => Number(each.getAttribute('height')))")
    assert max(heights) > 50
    assert min(heights) >= 3


def test_no_status_is_cut_off(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/hosts").page
    assert page.locator("tbody .pill", has_text="unreachable").count() == 1
    cut = page.eval_on_selector_all(
        "tbody td", "cells => cells.filter((c) => c.querySelector('.pill') && c.scrollWidth > c.clientWidth).length"
    )
    assert cut == 0


def test_outliers_and_changes_say_what_differs_and_since_when(open_page: Open, fleet_page: Path) -> None:
    outlier = open_page(fleet_page, "#/outliers").page.locator(".finding", has_text="gpu-05").inner_text()
    words = " ".join(outlier.split())
    assert "slower among 30 like hosts" in words
    assert "Kernel 5.10.0; 29 of 30 hosts have 6.12.9-amd64" in words
    change = open_page(fleet_page, "#/changes").page.locator(".finding")
    assert change.count() == 1
    assert "since 2026-03-16" in " ".join(change.inner_text().split())
    assert "7 runs before, 5 after" in change.inner_text()


def test_comparing_marks_what_differs(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/compare?a=gpu-01&b=gpu-05").page
    assert page.locator("tr.differs th").all_inner_texts() == ["Kernel"]
    assert "+3" in page.locator("tr", has_text="Cold first token").inner_text()
    page.get_by_role("button", name="Exchange the two").click()
    page.wait_for_function("() => document.querySelector('.picker input').value === 'gpu-05'")
    page.get_by_label("Host").last.fill("nobody")
    page.get_by_label("Host").last.blur()
    assert page.get_by_role("alert").last.inner_text() == "No host of this name is on the page."


def test_dark_light_and_remembered(open_page: Open, fleet_page: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = open_page(fleet_page).page.evaluate(background)
    watched = open_page(fleet_page, color_scheme="dark")
    dark = watched.page.evaluate(background)
    assert light != dark
    button = watched.page.get_by_role("button", name="Theme")
    button.click()
    assert button.inner_text() == "Theme: light"
    assert watched.page.evaluate(background) == light
    watched.page.reload()
    assert watched.page.evaluate(background) == light


def test_at_200_per_cent_and_on_paper_nothing_is_cut_off(open_page: Open, fleet_page: Path) -> None:
    for address in VIEWS:
        page = open_page(fleet_page, address, viewport={"width": 640, "height": 450}).page
        assert page.evaluate("document.documentElement.scrollWidth") <= 640, address
    page = open_page(fleet_page, "#/hosts").page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("table.hosts tbody tr").count() == 41
    assert page.get_by_role("button", name="Save CSV").is_hidden()
    page.set_viewport_size({"width": 760, "height": 1000})
    assert page.locator("table.hosts").evaluate("table => table.getBoundingClientRect().right") <= 760


def test_numbers_are_printed_as_the_reports_print_them(open_page: Open, fleet_page: Path) -> None:
    """The page's own functions, over values at every edge of rounding."""
    values = [
        0,
        0.00001,
        0.125,
        0.9994,
        0.9995,
        1,
        1.005,
        8.125,
        9.994,
        9.995,
        9.996,
        12.25,
        99.94,
        99.95,
        100.5,
        598,
        599.5,
    ]
    values += [601.5, 1023.6, 1024, 999_500, 1e6, 3250341888, 1.5e9, 2**40, 0.5, 1.995, 2.5, 0.0625, 37.5]
    page = open_page(fleet_page).page
    source = (Path(__file__).parents[2] / "plugins/analysis/fleet/page/units.js").read_text(encoding="utf-8")
    printed = page.evaluate(
        "([source, values]) => {const units = (0, eval)(`(() => {${source}; return units})()`);"
        "return values.map((v) => ['seconds', 'size', 'rate', 'count', 'ratio', 'percent'].map((n) => units[n](v)))}",
        [source, values],
    )
    functions = [units.seconds, units.size, units.rate, units.count, units.ratio, units.percent]
    assert printed == [[function(value) for function in functions] for value in values]


@pytest.mark.parametrize("address", ["#/", "#/hosts", "#/outliers", "#/compare", *range(len(HOSTILE))])
def test_a_hostile_fleet_is_text(open_page: Open, hostile_page: Path, address: str | int) -> None:
    watched = open_page(hostile_page)
    if isinstance(address, int):
        address = watched.page.evaluate(f"'#/host/' + encodeURIComponent({json.dumps(HOSTILE[address])})")
    watched = open_page(hostile_page, address)
    page = watched.page
    forbidden = "main script, main img, main iframe, main svg svg"
    assert page.locator(forbidden).count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1360
    assert watched.violations() == []
    unchanged(watched, hostile_page)


def test_hostile_names_are_whole_and_lead_to_their_host(open_page: Open, hostile_page: Path) -> None:
    watched = open_page(hostile_page, "#/hosts")
    links = watched.page.locator("a.host")
    assert {links.nth(index).get_attribute("title") for index in range(links.count())} == {"", *HOSTILE}
    watched.page.get_by_role("link", name=HOSTILE[0]).first.click()
    assert watched.page.get_by_role("heading", level=1).inner_text() == HOSTILE[0]
    with watched.page.expect_download() as caught:
        watched.page.goto(f"{hostile_page.as_uri()}#/hosts")
        watched.page.get_by_role("button", name="Save CSV").click()
    rows = list(csv.reader(io.StringIO(caught.value.path().read_text(encoding="utf-8"))))
    assert [row[0] for row in rows if row[0].startswith(("=", "+", "-", "@"))] == []
    assert f"'{HOSTILE[4]}" in [row[0] for row in rows]
