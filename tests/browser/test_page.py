"""The fleet's page as a reader meets it: opened from a folder without a network, in a real Chromium."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from analysis.documents.state import write_state
from analysis.fleet.files import Folders, Terms, write
from analysis.render import units
from tests.browser.conftest import Open, Watched, page_of
from tests.support import fleet_samples as samples
from tests.support.fleet_samples import HOSTILE

VIEWS = [
    "#/",
    "#/hosts",
    "#/host/gpu-05",
    "#/host/gpu-07/20260316T115400Z",
    "#/causes",
    "#/first-token",
    "#/first-token?by=model",
    "#/drift",
    "#/outliers",
    "#/changes",
    "#/changes?days=7&order=date",
    "#/hosts?cold_token=soon&nothing=1&q=gpu",
    "#/compare?a=gpu-05&b=gpu-07",
    "#/compare?a=gpu-05&b=gpu-35&all=1",
    "#/compare?a=gpu-05%4020200101T000000Z&b=nobody",
    "#/host/gpu-03",
    "#/host/gpu-05/20200101T000000Z",
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


def test_the_overviews_bars_add_up_and_each_part_leads_to_its_hosts(open_page: Open, fleet_page: Path) -> None:
    watched = open_page(fleet_page)
    page = watched.page
    for bar in page.locator(".share").all():
        numbers = [int(text) for text in bar.locator("strong").all_inner_texts()]
        assert bar.locator(".share-head .muted").inner_text() == f"{sum(numbers)} hosts" == "41 hosts"
    parts = [" ".join(each.split()) for each in page.locator(".share-legend li").all_inner_texts()]
    assert parts == [
        "38 clean",
        "1 drifted",
        "1 unreachable",
        "1 not compared",
        "40 measured",
        "1 never measured",
    ]
    page.get_by_role("link", name="1 drifted").click()
    assert names(watched) == ["gpu-02"]
    assert page.locator(".count").inner_text() == "1 of 41 hosts"


def test_settings_are_told_by_what_is_wanted_and_the_clean_ones_are_never_blamed(
    open_page: Open, tmp_path: Path
) -> None:
    hosts = samples.build(tmp_path / "results", 6, 1)
    file = page_of(tmp_path, {}, {**dict.fromkeys(hosts, "drift"), hosts[0]: "clean", hosts[1]: "unreachable"})
    row = open_page(file).page.locator("table.settings tr", has_text="thp.enabled")
    words = row.inner_text().split()
    assert words[:4] == ["thp.enabled", "madvise", "1", "4"]
    assert "always→madvise:" in words
    assert "gpu-1" not in words
    assert "gpu-2" not in words


Click = Callable[[Page], Locator]
QUESTIONS: dict[str, tuple[list[Click], str]] = {
    "how much could a first token save": ([], "40 hosts: first token could come sooner"),
    "and where to begin": ([], "Begin with gpu-"),
    "with which command": (
        [lambda page: page.locator(".value.gain .value-link")],
        "ansible-playbook first_token.yml -l",
    ),
    "what do idle pools cost": ([], "75.2 GiB"),
    "and which hosts": ([lambda page: page.locator(".value.idle .value-link")], "40 of 41 hosts"),
    "who drifted in what": (
        [lambda page: page.locator("table.settings").get_by_role("link", name="1 host")],
        "thp.enabled always→madvise",
    ),
    "how to put it right": ([lambda page: page.get_by_role("link", name="All settings")], "--tags tune -l gpu-02"),
    "what got worse since last week": (
        [lambda page: page.locator(".value.slow .value-link")],
        "slower since 2026-03-16",
    ),
    "why are hosts slow": ([], "Kernel 5.10.0"),
    "which hosts does a cause slow": (
        [lambda page: page.locator("tr", has_text="Kernel 5.10.0").locator("summary")],
        "gpu-05",
    ),
    "who did not answer": (
        [lambda page: page.get_by_role("link", name="1 unreachable"), lambda page: page.locator("a.host")],
        "no route to host",
    ),
    "how old is this": ([], "Page 3 minutes ago"),
    "what does the slowest host's report say": (
        [
            lambda page: page.locator("a.host", has_text="gpu-").first,
            lambda page: page.get_by_role("link", name="Result"),
        ],
        '"run_id"',
    ),
    "who is slower than its like": (
        [lambda page: page.locator("table.causes").get_by_role("link", name="Show 1 host").first],
        "gpu-0",
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_is_answered_within_two_clicks_from_the_overview(
    open_page: Open, fleet_page: Path, question: str
) -> None:
    clicks, answer = QUESTIONS[question]
    page = open_page(fleet_page).page
    assert len(clicks) <= 2
    for click in clicks:
        click(page).click()
    page.wait_for_function("text => document.body.innerText.replace(/\\s+/g, ' ').includes(text)", arg=answer)


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
        ("cold_token=%3E+15+s", 2),
        ("cold_token=%3E+15000ms", 2),
        ("disk_rate=3000..4000+MB%2Fs", 40),
        ("saving=none", 1),
        ("drift=thp", 1),
        ("last=2026-03", 40),
        ("last=%3C+1+d", 40),
        ("q=always", 1),
    ],
)
def test_any_column_filters(open_page: Open, fleet_page: Path, query: str, count: int) -> None:
    page = open_page(fleet_page, f"#/hosts?{query}").page
    assert page.locator(".count").inner_text() == f"{count} of 41 hosts"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("cold_token=soon", "“soon” is no number or range: write > 8, <= 3, 2..4, none or any; units: s, ms, min"),
        ("cold_token=%3E+3+GB", "“gb” is no unit of this column; units: s, ms, min"),
        ("runs=%3E+3+s", "“s” is not wanted: this column has no unit"),
        ("colour=red", "there is no column “colour”"),
        ("cold_token=%3E+3+constructor", "“constructor” is no unit of this column"),
    ],
)
def test_a_filter_that_is_not_understood_says_so_and_is_not_used(
    open_page: Open, fleet_page: Path, query: str, words: str
) -> None:
    page = open_page(fleet_page, f"#/hosts?{query}").page
    assert words in page.locator(".chip.wrong").inner_text()
    assert page.locator(".count").inner_text() == "41 hosts"
    page.locator(".chip.wrong button").click()
    assert page.locator(".chip").count() == 0


def focused(page: Page) -> str:
    name: str = page.evaluate("document.activeElement.classList.contains('host') ? document.activeElement.title : ''")
    return name


def test_the_keyboard_alone_finds_a_host(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page).page
    page.keyboard.press("/")
    page.keyboard.type("gpu-17")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('gpu-17')")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.title() == "gpu-17 · slm-baseline fleet"
    page.keyboard.press("j")
    page.wait_for_selector("h1:has-text('gpu-18')")


def test_enter_in_the_search_goes_to_the_first_row_and_enter_there_opens_it(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/hosts").page
    page.keyboard.press("/")
    page.keyboard.type("gpu-1")
    page.keyboard.press("Enter")
    assert focused(page) == "gpu-10"
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('gpu-11')")


def test_tab_goes_through_every_row_and_out_again(open_page: Open, many_page: Path) -> None:
    page = open_page(many_page, "#/hosts").page
    page.locator("a.host").first.focus()
    for index in range(1, 126):
        assert focused(page) == f"gpu-{index:03d}"
        page.keyboard.press("Tab")
        page.evaluate("() => new Promise(requestAnimationFrame)")
    assert focused(page) == ""


def test_letters_and_arrows_go_through_the_whole_table(open_page: Open, many_page: Path) -> None:
    page = open_page(many_page, "#/hosts").page
    seen = []
    for _ in range(125):
        page.keyboard.press("j")
        seen.append(focused(page))
    assert seen == [f"gpu-{index:03d}" for index in range(1, 126)]
    for key, name in [("k", "gpu-124"), ("Home", "gpu-001"), ("End", "gpu-125"), ("ArrowUp", "gpu-124")]:
        page.keyboard.press(key)
        assert focused(page) == name
    page.keyboard.press("PageUp")
    assert "gpu-100" < focused(page) < "gpu-120"
    top = "element => element.getBoundingClientRect().top"
    row = page.evaluate_handle("document.activeElement").as_element()
    assert row
    assert row.evaluate(top) > page.locator("thead").evaluate("element => element.getBoundingClientRect().bottom") - 1


def test_back_returns_to_the_place_and_the_row(open_page: Open, many_page: Path) -> None:
    page = open_page(many_page, "#/hosts?sort=-host").page
    page.locator(".scroller").evaluate("element => element.scrollTo(0, 2000)")
    link = page.locator("a.host", has_text="gpu-070")
    link.click()
    page.wait_for_selector("h1:has-text('gpu-070')")
    page.go_back()
    page.wait_for_selector("h1:has-text('Hosts')")
    assert page.locator(".scroller").evaluate("element => element.scrollTop") == 2000
    assert focused(page) == "gpu-070"
    page.locator("a.host", has_text="gpu-071").click()
    page.wait_for_selector("h1:has-text('gpu-071')")
    page.get_by_role("link", name="Result document").click()
    page.wait_for_url("**/results/**")
    page.go_back()
    page.go_back()
    page.wait_for_selector("h1:has-text('Hosts')")
    assert page.locator(".scroller").evaluate("element => element.scrollTop") == 2000


def test_scrolling_away_does_not_lose_the_keyboard(open_page: Open, many_page: Path) -> None:
    page = open_page(many_page, "#/hosts").page
    page.keyboard.press("j")
    page.locator(".scroller").evaluate("element => element.scrollTo(0, 99999)")
    page.wait_for_function("() => [...document.querySelectorAll('.hosts a.host')].at(-1).title === 'gpu-125'")
    assert page.evaluate("document.querySelector('.table-view').contains(document.activeElement)")


def test_two_rows_are_chosen_and_compared(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/hosts").page
    for key in "jxjjx":
        page.keyboard.press(key)
    assert page.locator("tbody input:checked").count() == 2
    page.get_by_role("link", name="Compare these two").click()
    page.wait_for_selector(".verdict")
    assert [page.get_by_label("Host").nth(index).input_value() for index in (0, 1)] == ["gpu-01", "gpu-03"]


def saved(watched: Watched, name: str) -> str:
    with watched.page.expect_download() as caught:
        watched.page.get_by_role("button", name=name).click()
    return caught.value.path().read_text(encoding="utf-8")


def test_saved_csv_and_json_are_what_is_shown_with_intervals_drift_and_dates(open_page: Open, fleet_page: Path) -> None:
    watched = open_page(fleet_page, "#/hosts?q=gpu-1&sort=-host&columns=host,status,cold_token")
    rows = list(csv.reader(io.StringIO(saved(watched, "Save CSV"))))
    assert rows[0] == [
        "Host", "Status", "Cold first token (s)", "Cold first token low (s)", "Cold first token high (s)",
        "Cold first token n", "Drift", "Latest run (UTC)", "Audited (UTC)", "Tuned or rolled back (UTC)",
    ]  # fmt: skip
    assert [row[0] for row in rows[1:]] == [f"gpu-{number}" for number in range(19, 9, -1)]
    assert all(11 < float(row[3]) <= float(row[2]) <= float(row[4]) < 14 for row in rows[1:])
    assert {row[5] for row in rows[1:]} == {"6"}
    assert rows[1][7:] == ["2026-03-20T11:42:00.000Z", "2026-03-20T12:00:00.000Z", ""]
    objects = json.loads(saved(watched, "Save JSON"))
    assert [each["host"] for each in objects] == [row[0] for row in rows[1:]]
    assert objects[0]["cold_token"] == float(rows[1][2])
    drifted = open_page(fleet_page, "#/hosts?q=gpu-02")
    assert "thp.enabled always→madvise" in saved(drifted, "Save CSV")


@pytest.mark.parametrize("dialect", [",", ";", "\t"])
def test_whatever_separator_a_spreadsheet_takes_a_cell_stays_a_cell(
    open_page: Open, hostile_page: Path, dialect: str
) -> None:
    text = saved(open_page(hostile_page, "#/hosts"), "Save CSV")
    cells = [cell for row in csv.reader(io.StringIO(text), delimiter=dialect) for cell in row]
    assert [cell for cell in cells if cell.lstrip("\ufeff \t").startswith(("=", "+", "@", "-"))] == []


@pytest.fixture(scope="module")
def told_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One host tuned, one rolled back since the audit, one with a possible writer; steady tokens from run two on."""
    folder = tmp_path_factory.mktemp("told")
    names = samples.build(folder / "results", 4, 3)
    for name in names[:3]:
        for path in sorted((folder / "results" / name).iterdir())[1:]:
            samples.add_steady_token(path, 0.04)
    at, rows = samples.NOW + timedelta(minutes=1), samples.golden("gpu")["tuning"]["rows"]
    write_state(folder / "results" / names[0], names[0], "tuned", "20260320T120100Z", at, rows)
    write_state(folder / "results" / names[1], names[1], "restored", "20260320T120100Z", at)
    (folder / "audit").mkdir()
    audit = samples.audit({**dict.fromkeys(names, "clean"), names[0]: "drift"})
    audit["hosts"][names[2]]["possible_writers"] = [{"knob": "thp.enabled", "detail": "/etc/rc.local:3 may set it"}]
    (folder / "audit/audit.json").write_text(json.dumps(audit))
    folders = Folders(folder / "results", folder / "reports", folder / "audit")
    return write(folders, {name: [] for name in names}, Terms(timedelta(days=30), 20), at).page


def test_a_tuning_and_a_rollback_since_the_audit_are_on_the_page_and_in_every_csv(
    open_page: Open, told_page: Path
) -> None:
    watched = open_page(told_page, "#/hosts?columns=host,model")
    rows = list(csv.DictReader(io.StringIO(saved(watched, "Save CSV"))))
    told = [(row["Host"], row["Status"], row["Tuned or rolled back (UTC)"]) for row in rows]
    assert told[:3] == [
        ("gpu-1", "clean", "2026-03-20T12:01:00.000Z"),
        ("gpu-2", "rolled back", "2026-03-20T12:01:00.000Z"),
        ("gpu-3", "clean", ""),
    ]
    tuned = open_page(told_page, "#/host/gpu-1").page.inner_text("body")
    assert "Tuned 2 minutes ago, and not measured since." in tuned
    assert "12:01 UTC, when it was tuned." in tuned
    assert "Rolled back 2 minutes ago; nobody has looked since." in open_page(
        told_page, "#/host/gpu-2"
    ).page.inner_text("body")
    assert watched.complaints == []


def test_possible_writers_are_on_the_hosts_page_in_the_search_and_under_drift(open_page: Open, told_page: Path) -> None:
    for address in ("#/host/gpu-3", "#/drift"):
        assert "/etc/rc.local:3 may set it" in open_page(told_page, address).page.inner_text("body")
    found = open_page(told_page, "#/hosts?q=rc.local").page
    assert found.locator("tbody a.host").all_inner_texts() == ["gpu-3"]


def test_what_a_steady_token_costs_is_shown_where_it_is_known(open_page: Open, told_page: Path) -> None:
    watched = open_page(told_page, "#/host/gpu-1")
    assert "Warm steady token\t38.0 ms [36.0, 44.0], n = 6" in watched.page.inner_text("body")
    assert watched.page.locator(".history svg").count() == 8
    # The first run is older than the figure, and no failed one.
    assert watched.page.locator(".history .cross").count() == 0
    older = open_page(told_page, "#/host/gpu-4").page.inner_text("body")
    assert "steady" not in older
    compared = open_page(told_page, "#/host/gpu-1").page
    compared.get_by_role("link", name="Compare with the run before").click()
    compared.wait_for_selector("h1:has-text('Compare')")
    row = compared.get_by_role("row").filter(has_text="Warm steady token").inner_text()
    assert "38.0 ms\t38.0 ms [36.0, 44.0], n = 6\t±0 % noise unknown" in row
    saved_rows = list(
        csv.DictReader(io.StringIO(saved(open_page(told_page, "#/hosts?columns=host,warm_steady"), "Save CSV")))
    )
    assert saved_rows[0]["Warm steady token (s)"] == "0.038"
    assert saved_rows[0]["Warm steady token low (s)"] == "0.036"
    assert saved_rows[3]["Warm steady token (s)"] == ""
    assert watched.violations() == []
    assert watched.complaints == []


def test_a_host_leads_to_its_runs_documents_and_comparison(open_page: Open, fleet_page: Path) -> None:
    watched = open_page(fleet_page, "#/hosts")
    page = watched.page
    page.get_by_role("link", name="gpu-01").click()
    assert page.get_by_role("heading", level=1).inner_text() == "gpu-01"
    assert page.locator(".history svg").count() == 6
    document = page.get_by_role("link", name="Result document")
    assert (fleet_page.parent / str(document.get_attribute("href"))).resolve().is_file()
    page.get_by_role("link", name="Compare with the run before").click()
    page.wait_for_selector("h1:has-text('Compare')")
    assert page.get_by_label("Host").first.input_value() == "gpu-01"
    document_text = open_page(fleet_page, "#/host/gpu-01").page.get_by_role("link", name="Result document")
    document_text.click()
    document_text.page.wait_for_url("**/results/gpu-01/*.json")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1360])
def test_the_report_opens_as_a_page_with_its_pictures(
    open_page: Open, fleet_page: Path, scheme: str, width: int
) -> None:
    watched = open_page(fleet_page, "#/host/gpu-01", color_scheme=scheme, viewport={"width": width, "height": 900})
    page = watched.page
    page.get_by_role("link", name="Report of the latest run").click()
    page.wait_for_url("**/gpu-01/README.html")
    pictures = page.locator("img")
    assert pictures.count() == 2
    assert all(pictures.nth(index).evaluate("image => image.naturalWidth") > 100 for index in (0, 1))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.violations() == []
    assert watched.complaints == []
    page.get_by_role("link", name="The fleet").click()
    page.wait_for_url("**/index.html")


def test_ages_count_from_now(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, at=samples.NOW + timedelta(days=9, hours=1)).page
    ages = page.locator(".ages")
    assert "Page 9 days ago" in " ".join(ages.inner_text().split())
    assert "Audit 9 days ago of 40 hosts" in " ".join(ages.inner_text().split())
    assert "old" in str(ages.get_attribute("class"))
    assert "9 days ago" in page.locator("#built").inner_text()
    page = open_page(fleet_page, at=samples.NOW + timedelta(days=60)).page
    assert page.get_by_role("link", name="40 stale").count() == 1


def test_what_a_silent_host_had_is_grey_and_dated(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/host/gpu-03").page
    card = page.locator(".card", has=page.get_by_role("heading", name="Settings"))
    assert "Last seen 2026-03-20 11:58 UTC, by a run." in card.inner_text()
    assert card.locator(".pill.clean").count() == 0
    assert card.locator(".pill.unknown", has_text="was clean").count() == 5


def test_a_host_without_systemd_keeps_nothing_over_a_reboot(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/host/gpu-09").page
    assert page.get_by_text("without systemd nothing applies it").count() == 5
    assert open_page(fleet_page, "#/host/gpu-10").page.get_by_text("without systemd").count() == 0


def test_a_host_begins_with_one_sentence_and_leads_to_its_neighbours(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/host/gpu-05").page
    words = page.locator(".lede").inner_text()
    assert re.search(r"Cold first token (2[89]|3\d) % slower than 29 hosts like it\.", words)
    assert "Kernel 5.10.0 differs; usual is 6.12.9-amd64." in words
    assert "Settings as wanted (seen 3 minutes ago)." in words
    assert re.search(r"First token could come \d+\.\d+ s sooner", words)
    assert "1.88 GiB lies idle in pools." in words
    page.get_by_role("link", name="gpu-06").click()
    page.wait_for_selector("h1:has-text('gpu-06')")
    assert "thp.enabled always→madvise" in open_page(fleet_page, "#/host/gpu-02").page.locator(".lede").inner_text()


def test_intervals_are_called_what_they_are(open_page: Open, tmp_path: Path) -> None:
    document = samples.scaled(samples.golden("gpu"), "few", samples.NOW, 1)
    document["summary"] = {
        name: {**figure, "n": 3} if isinstance(figure, dict) and "n" in figure else figure
        for name, figure in document["summary"].items()
    }
    samples.store(tmp_path / "results", document)
    text = open_page(page_of(tmp_path, {}, {}), "#/host/few").page.locator("main").inner_text()
    assert "with 3 samples the interval is the range seen, and covers a true median at most 75 % of the time" in text
    assert "95 %" not in text


def test_a_column_of_the_distribution_leads_to_exactly_its_hosts(open_page: Open, many_page: Path) -> None:
    watched = open_page(many_page)
    columns = watched.page.locator(".distribution a")
    labels = [str(columns.nth(index).get_attribute("aria-label")) for index in range(columns.count())]
    at = max(range(len(labels)), key=lambda index: int(re.search(r": (\d+) host", labels[index])[1]))  # type: ignore[index]
    count = re.search(r": (\d+) host", labels[at])[1]  # type: ignore[index]
    columns.nth(at).click()
    watched.page.wait_for_selector("h1:has-text('Hosts')")
    assert watched.page.locator(".count").inner_text().startswith(f"{count} of ")
    page = open_page(many_page).page
    columns = page.locator(".distribution a")
    assert page.locator(".distribution a[tabindex='0']").count() == 1
    columns.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == labels[1]


def test_the_first_token_view_gives_the_line_to_copy_by_group(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/first-token").page
    assert "-l @hosts.txt" in page.locator(".command").inner_text()
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save hosts.txt").click()
    hosts = caught.value.path().read_text().split()
    assert (len(hosts), hosts[0]) == (40, page.locator("table.remedies a.host").first.inner_text())
    page.get_by_label("Group by").focus()
    page.get_by_label("Group by").select_option("model")
    page.wait_for_function("() => document.querySelectorAll('table.remedies').length === 2")
    assert page.evaluate("document.activeElement.id") == "grouping"
    assert "gpu-31" in page.locator(".command").last.inner_text()
    assert "Nothing is known yet of: kernels." in page.locator(".note").first.inner_text()


def test_hosts_of_older_runs_are_named_as_unknown_and_not_as_nothing_to_save(open_page: Open, tmp_path: Path) -> None:
    samples.store(tmp_path / "results", samples.golden("gpu"))
    file = page_of(tmp_path, {}, {})
    assert "its latest run is from a version that did not say" in open_page(file, "#/first-token").page.inner_text(
        "main"
    )
    assert "unknown" in open_page(file).page.locator(".values").inner_text()


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
    page.get_by_role("link", name="Compare with the run before").click()
    page.wait_for_selector(".verdict")
    # No word is broken into letters: a cell is at least as wide as its longest one.
    widths = page.eval_on_selector_all("table.compared td", "cells => cells.map((cell) => cell.clientWidth)")
    assert min(widths) > 90
    page = open_page(fleet_page, "#/hosts", viewport={"width": 390, "height": 844}).page
    page.get_by_role("button", name="Filters").click()
    assert page.locator(".filters").evaluate("element => element.offsetHeight") <= 844 * 0.6 + 1
    page = open_page(fleet_page, "#/host/gpu-01", viewport={"width": 390, "height": 844}).page
    assert max(page.eval_on_selector_all(".runs tbody tr", "found => found.map((each) => each.offsetHeight)")) < 50


def test_a_wide_screen_shows_every_column_whole(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/hosts", viewport={"width": 1920, "height": 1080}).page
    table = page.locator("table.hosts")
    assert table.evaluate("element => element.getBoundingClientRect().width") > 1800
    assert page.locator(".scroller").evaluate("element => element.scrollWidth - element.clientWidth") == 0


def test_a_phone_shows_what_drifted_beside_the_host(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/hosts", viewport={"width": 390, "height": 844}).page
    drift = page.locator(".drift-words")
    assert drift.evaluate("element => element.getBoundingClientRect().right") <= 390


def test_one_odd_host_among_very_many_is_seen(open_page: Open, many_page: Path) -> None:
    page = open_page(many_page).page
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


def test_comparing_says_what_it_comes_to_and_marks_what_differs(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/compare?a=gpu-01&b=gpu-05").page
    assert page.locator("tr.differs th").all_inner_texts() == ["Kernel"]
    verdict = page.locator(".verdict").inner_text()
    assert re.match(r"The second is 3\d % slower: cold first token 1[12]\.\d s → 1\d\.\d s\.", verdict)
    assert "Kernel differs." in verdict
    assert "+3" in page.locator("tr", has_text="Cold first token").inner_text()
    assert "Median of 28 like hosts" in page.locator("table").first.inner_text()
    page.get_by_role("button", name="Exchange the two").click()
    page.wait_for_function("() => document.querySelector('.picker input').value === 'gpu-05'")
    assert page.evaluate("document.activeElement.id") == "swap"
    page.get_by_label("Only what differs").uncheck()
    page.wait_for_function("() => document.querySelectorAll('tr.same').length > 10")
    assert page.evaluate("document.activeElement.id") == "only-differences"
    page.get_by_label("Host").last.fill("nobody")
    page.get_by_label("Host").last.blur()
    assert page.get_by_role("alert").last.inner_text() == "No host of this name is on the page."


def test_a_drifted_host_is_compared_as_the_audit_found_it(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/compare?a=gpu-01&b=gpu-02").page
    assert page.locator("tr.differs").all_inner_texts() == ["thp.enabled\tmadvise\talways\t≠ differs\tmadvise"]
    assert "gpu-02: 2026-03-20 12:00 UTC (audit)" in page.inner_text("main")


def test_unlike_hosts_are_not_called_slower_or_faster(open_page: Open, fleet_page: Path) -> None:
    page = open_page(fleet_page, "#/compare?a=gpu-01&b=gpu-35").page
    assert page.locator(".verdict").inner_text().startswith("Not comparable: Model differs (Phi-3-mini, Qwen2.5-0.5B)")
    assert page.locator(".delta.better, .delta.worse").count() == 0


def test_consecutive_runs_of_unchanged_hosts_are_rarely_called_slower_or_faster(
    open_page: Open, fleet_page: Path
) -> None:
    page = open_page(fleet_page).page
    verdicts = []
    for host in range(10, 29):
        for day in (10, 13, 16, 19):
            runs = [f"gpu-{host}@202603{at:02d}T{minutes_of(host)}Z" for at in (day, day + 1)]
            page.goto(f"{fleet_page.as_uri()}#/compare?a={runs[0]}&b={runs[1]}")
            page.wait_for_function(
                "run => document.querySelector('.compare')?.innerText.includes(run)", arg=f"03-{day:02d}"
            )
            verdicts.append(str(page.locator(".verdict").get_attribute("class")))
    claimed = [each for each in verdicts if "worse" in each or "better" in each]
    assert len(verdicts) == 76
    assert len(claimed) <= 0.05 * len(verdicts)


def minutes_of(host: int) -> str:
    """When the runs of a host of the samples begin."""
    return f"{samples.NOW - timedelta(minutes=host - 1):%H%M%S}"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("#/host/gpu-05/20200101T000000Z", "Run 20200101T000000Z of gpu-05 is not on this page"),
        ("#/compare?a=gpu-05%4020200101T000000Z&b=gpu-01", "Run 20200101T000000Z of gpu-05 is not on this page"),
        ("#/compare?a=gone&b=gpu-01", "No host of the name gone is on this page"),
        ("#/host/gone", "No host of the name gone is on this page"),
    ],
)
def test_a_link_to_what_is_gone_says_so_and_shows_nothing_else(
    open_page: Open, fleet_page: Path, address: str, words: str
) -> None:
    page = open_page(fleet_page, address).page
    assert words in page.inner_text("main")
    assert page.locator(".verdict, .history").count() == 0


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
    # Buttons in a head that repeats are blank from the second sheet on; plain words are not.
    assert page.locator("table.hosts thead button").first.is_hidden()
    assert page.locator("table.hosts thead .printed").first.inner_text() == "Host"
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
    source = (Path(__file__).parents[2] / "plugins/analysis/fleet/web/units.js").read_text(encoding="utf-8")
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
