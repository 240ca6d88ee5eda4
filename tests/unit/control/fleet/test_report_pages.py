"""Reports as HTML: what Markdown says arrives, what a hostile file says stays text, and old pages are made anew."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from analysis.fleet.report_pages import inline_hash, render_report, style, write_report_pages
from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "docs/examples"
TAGS = re.compile(r"<[/!a-zA-Z][^>]*>?")
OURS = re.compile(
    r"</?(h[1-6]|p|ul|ol|li|strong|em|code|pre|table|thead|tbody|tr|t[hd]|a|hr|br|blockquote|div|span|img|details"
    r'|summary)( (href|class|scope|tabindex|role|aria-label|alt|src|start)="[^"<>]*")* ?/?>'
)


def rendered(text: str, folder: Path) -> str:
    page = render_report(text, folder, style(), "README.md")
    return page.partition("<main")[2].partition(">")[2].partition("</main>")[0]


@pytest.mark.parametrize("name", ["gpu-h200-phi-3-mini", "cpu-sweep"])
def test_a_real_report_arrives_whole_with_its_pictures(name: str) -> None:
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    body = rendered(text, EXAMPLES / name)
    assert body.count('<img alt="') == text.count("](") - len(re.findall(r"(?<!!)\[[^]]*\]\(", text))
    assert body.count("<h2>") == len(re.findall(r"^## ", text, re.MULTILINE))
    assert "no picture" not in body
    assert [tag for tag in TAGS.findall(body) if not OURS.fullmatch(tag)] == []


def test_the_policy_allows_the_style_alone_and_nothing_is_asked_for(tmp_path: Path) -> None:
    page = render_report("# A\n", tmp_path, style(), "x")
    (policy,) = re.findall(r'content="(default-src[^"]*)"', page)
    assert f"default-src 'none'; style-src '{inline_hash(style())}'; img-src data:;" in policy
    assert "<script" not in page
    assert "style=" not in page.partition("</style>")[2]


HOSTILE = [
    "<script>alert(1)</script>",
    "x <img src=x onerror=alert(1)> y",
    "<details open ontoggle=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](data:text/html,x)",
    "![a](../../secret.svg)",
    "![a](https://example.test/a.png)",
    "![a](secret.svg)",
    "[a](vbscript:x)",
    "<style>*{}</style>",
    "<svg/onload=alert(1)>",
    "```\n</pre><script>\n```",
    '[a](x"onclick="y)',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_markdown_stays_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "secret.svg").write_text("<svg/>")
    body = rendered(f"# {text}\n\n{text}\n\n| {text} |\n| --- |\n| {text} |\n", tmp_path / "host")
    assert [tag for tag in TAGS.findall(body) if not OURS.fullmatch(tag)] == []
    assert not re.search(r'(href|src)="(javascript|vbscript|https?|data:text)', body)


@given(some.text(alphabet="<>/&\"'!-[]()`*_#|\n ab:", max_size=200))
def test_no_text_becomes_a_tag_of_its_own(text: str) -> None:
    body = rendered(text, EXAMPLES)
    assert [tag for tag in TAGS.findall(body) if not OURS.fullmatch(tag)] == []


def test_parts_that_fold_do_and_the_comment_that_breaks_addresses_is_not_seen(tmp_path: Path) -> None:
    body = rendered("<details>\n<summary>Undo</summary>\n\nroot<!-- -->@host\n\n</details>\n", tmp_path)
    assert "<details>" in body
    assert "<summary>Undo</summary>" in body
    assert "root@host" in body


def test_a_link_to_another_report_leads_to_its_page(tmp_path: Path) -> None:
    (tmp_path / "sweep.md").write_text("x")
    body = rendered("[a](sweep.md#x) [b](gone.md)", tmp_path)
    assert 'href="sweep.html#x"' in body
    assert 'href="gone.md"' in body


def test_a_page_is_made_anew_where_its_report_picture_or_style_is_newer(tmp_path: Path) -> None:
    folder = tmp_path / "host"
    folder.mkdir()
    source, picture, target = folder / "README.md", folder / "phases.svg", folder / "README.html"
    source.write_text("# One\n\n![p](phases.svg)\n")
    assert write_report_pages(tmp_path) == []
    assert "no picture" in target.read_text()
    os.utime(target, ns=(10**18, source.stat().st_mtime_ns + 10**9))
    target.write_text(target.read_text().replace("One", "Kept"))
    os.utime(target, ns=(0, source.stat().st_mtime_ns + 10**9))
    write_report_pages(tmp_path)
    assert "Kept" in target.read_text()
    picture.write_text("<svg/>")
    os.utime(picture, ns=(0, target.stat().st_mtime_ns + 10**9))
    write_report_pages(tmp_path)
    assert "data:image/svg+xml" in target.read_text()
    target.write_text(target.read_text().replace("sha256-", "sha256-old").replace("One", "Old style"))
    os.utime(target, ns=(0, picture.stat().st_mtime_ns + 10**10))
    write_report_pages(tmp_path)
    assert "Old style" not in target.read_text()


def test_a_report_that_cannot_be_read_is_named_and_stops_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/README.md").write_bytes(b"\xff\xfe")
    (tmp_path / "b/README.md").write_text("# B\n")
    assert write_report_pages(tmp_path) == [("a/README.md", "not UTF-8 text, or too large")]
    assert (tmp_path / "b/README.html").is_file()
