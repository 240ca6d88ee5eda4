"""Markdown that hostile text cannot break: everything that is not yet `Markdown` is escaped where it is inserted."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence


class Markdown(str):
    """Text that is already Markdown. Plain `str` is text of unknown origin."""

    __slots__ = ()


# Colour and cursor sequences of terminals (ECMA-48): CSI, OSC up to BEL or ST, character sets, the rest.
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]+[0-~]|\x1b[@-_]")
# Control, format (the bidirectional ones reorder what a reader sees), surrogate, private, line separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK_START = re.compile(r"[#+=-]|[0-9]{1,9}(?=[.)](?:\s|$))")
# Web and mail addresses become links automatically in GitHub's dialect. It looks for web addresses in the source, so
# an entity hides them; it looks for mail addresses in the rendered text, where entity and backslash are an @ again.
# There an empty comment, which is invisible, separates the @ from the text before it.
_AUTOLINK = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)
_MAIL = re.compile(r"(?<=.)@")  # a line must not begin with a comment, or all of it would be HTML


def plain(text: object) -> str:
    """Return one line of visible characters: terminal codes removed, every other run of control or blank one space."""
    visible = _ANSI.sub("", str(text))
    return " ".join("".join(" " if unicodedata.category(c) in _UNSEEN else c for c in visible).split())


def md(text: object, limit: int = 200) -> Markdown:
    """Return text without effect in one line of Markdown: a cell, list item or sentence; cut at `limit` characters.

    Markdown passes unchanged. None is a dash.
    """
    if isinstance(text, Markdown):
        return text
    if text is None:
        return Markdown("\N{EN DASH}")
    line = plain(text)
    line = line if len(line) <= limit else f"{line[: limit - 3]}..."
    line = re.sub(r"[&<>]", lambda match: _HTML[match[0]], line)
    line = _SPECIAL.sub(lambda match: "\\" + match[0], line)
    line = _MAIL.sub("<!-- -->@", _AUTOLINK.sub(lambda match: f"&#{ord(match[0])};", line))
    return Markdown(_BLOCK_START.sub(_inert_start, line, count=1) if _BLOCK_START.match(line) else line)


def _inert_start(match: re.Match[str]) -> str:
    # "1." starts a list; only its full stop can be escaped, and the lookahead has found it.
    return f"{match[0]}\\" if match[0].isdigit() else f"\\{match[0]}"


def code(text: object) -> Markdown:
    """Return a name or value in a code span if it can stand in one, else escaped text."""
    line = plain(text)
    return Markdown(f"`{line}`") if line and not re.search(r"[`|\\]", line) and len(line) <= 200 else md(text)


def table(header: Sequence[object], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> Markdown:
    """Return a pipe table; columns whose index is in `numbers` are right-aligned."""
    right = set(numbers)
    rule = ["---:" if index in right else "---" for index in range(len(header))]
    lines: list[Sequence[str]] = [[md(cell) for cell in header], rule, *([md(cell) for cell in row] for row in rows)]
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def bullets(items: Iterable[object]) -> Markdown:
    """Return a list, one line an item."""
    return Markdown("\n".join(f"- {md(item, limit=2000)}" for item in items))


def fenced(text: str) -> Markdown:
    """Return several lines unchanged but for terminal codes, in a fence that the text cannot close."""
    lines = ["".join(c for c in line if unicodedata.category(c) not in _UNSEEN or c == "\t") for line in _lines(text)]
    fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
    return Markdown("\n".join([f"{fence}text", *lines, fence]))


def _lines(text: str) -> list[str]:
    return re.split(r"\r\n|[\n\r]", _ANSI.sub("", text).strip("\r\n"))
