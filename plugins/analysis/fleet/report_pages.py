"""Reports as HTML beside their Markdown, with embedded pictures: one file each that makes no network request.

The Markdown is ours and was escaped where it was made, but others may write to its folder, so nothing in it
becomes markup: HTML is shown as text, except for the few tags with which reports fold parts, and pictures are files of
the report's own folder.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

WEB = Path(__file__).parent / "web"
_PICTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.svg", re.ASCII)
_LOCAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*\.md(#.*)?", re.ASCII)
_TAG = re.compile(r"(</?(?:details|summary)>|<!-- -->)")
LARGEST_BYTES = 4 << 20


def write_report_pages(reports: Path) -> list[tuple[str, str]]:
    """Write NAME.html beside every NAME.md of a host's folder or the audit's if it is missing or older.

    Returns files that could not be rendered, each with the reason; a page is never left half written.
    """
    stylesheet = style()
    marker = inline_hash(stylesheet)
    failed = []
    for source in sorted(reports.glob("*/*.md")):
        target = source.with_suffix(".html")
        try:
            if not _is_fresh(target, source, marker):
                text = render_report(_read(source), source.parent, stylesheet, source.name)
                temporary = target.with_name(f"{target.name}.tmp")
                temporary.write_text(text, encoding="utf-8")
                temporary.replace(target)
        except OSError as error:
            failed.append((f"{source.parent.name}/{source.name}", error.strerror or "cannot be read"))
        except ValueError:
            failed.append((f"{source.parent.name}/{source.name}", "not UTF-8 text, or too large"))
    return failed


def render_report(text: str, folder: Path, stylesheet: str, name: str) -> str:
    """Return a report's Markdown as a page; pictures are taken from `folder`."""
    # Imported late, because most pages of the fleet are written when no report is new.
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = parser.parse(text)
    _mend_cells(tokens)
    # Regions that scroll must be reachable by keyboard, and each has a name of its own.
    count = itertools.count(1)
    rules: dict[str, Any] = parser.renderer.rules  # type: ignore[attr-defined]
    rules |= {
        "html_inline": lambda tokens, index, *_: _inert(tokens[index].content),
        "html_block": lambda tokens, index, *_: _inert(tokens[index].content),
        "image": lambda tokens, index, *_: _picture(tokens[index], folder, next(count)),
        "table_open": lambda *_: f'<div class="scroll" {_region("Table", next(count))}><table class="plain">\n',
        "table_close": lambda *_: "</table></div>\n",
        "fence": lambda tokens, index, *_: f'<pre tabindex="0">{html.escape(tokens[index].content)}</pre>\n',
        "link_open": lambda tokens, index, *_: f'<a href="{html.escape(_address(tokens[index], folder))}">',
    }
    body = parser.renderer.render(tokens, parser.options, {})
    title = next((after.content for before, after in itertools.pairwise(tokens) if before.tag == "h1"), name)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        style=stylesheet, style_hash=inline_hash(stylesheet), title=re.sub(r"[\\`*]", "", title), body=body
    )


def style() -> str:
    """Return the style of reports: the page's style, with additions for long text."""
    return "".join((WEB / name).read_text(encoding="utf-8") for name in ("look.css", "report.css"))


def inline_hash(text: str) -> str:
    """Return the source that allows only this inline text (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(source: Path) -> str:
    if source.stat().st_size > LARGEST_BYTES:
        raise ValueError
    return source.read_text(encoding="utf-8")


def _is_fresh(target: Path, source: Path, marker: str) -> bool:
    """Return whether a page is newer than all its sources, and has the current style."""
    if not target.is_file():
        return False
    newest = max(path.stat().st_mtime_ns for path in (source, *source.parent.glob("*.svg")))
    if target.stat().st_mtime_ns <= newest:
        return False
    with target.open("rb") as file:
        return marker.encode() in file.read(1024)


def _inert(text: str) -> str:
    """Return HTML as text, except for the tags that fold a part, which stand alone, and the empty comment."""
    parts = _TAG.split(text)
    return "".join(
        ("" if part == "<!-- -->" else part) if index % 2 else html.escape(part) for index, part in enumerate(parts)
    )


def _region(what: str, number: int) -> str:
    return f'tabindex="0" role="region" aria-label="{what} {number}"'


def _picture(token: Any, folder: Path, number: int) -> str:
    alt, source = html.escape(token.content), str(token.attrs.get("src", ""))
    path = folder / source
    if not _PICTURE.fullmatch(source) or not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        return f"<em>(no picture: {alt})</em>"
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">'
    return f'<span class="picture" {_region("Picture", number)}>{image}</span>'


def _address(token: Any, folder: Path) -> str:
    """Return a link's target: another report's page if there is one, else the address itself, but never a script."""
    address = str(token.attrs.get("href", ""))
    if match := _LOCAL.fullmatch(address):
        page = address.removesuffix(match[1] or "").removesuffix(".md")
        if (folder / f"{page}.md").is_file():
            return f"{page}.html{match[1] or ''}"
    return address if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", address) else f"#{quote(address, safe='')}"


def _mend_cells(tokens: Sequence[Any]) -> None:
    """Align cells by class, because the policy allows no style of an element; make empty headings plain cells."""
    for before, inside, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if before.type in ("th_open", "td_open"):
            is_number = "right" in str(before.attrs.pop("style", ""))
            before.attrs |= {"class": "right"} if is_number else {}
            if before.type == "th_open":
                before.attrs["scope"] = "col"
                if not inside.content.strip():
                    before.tag = after.tag = "td"
                    del before.attrs["scope"]
