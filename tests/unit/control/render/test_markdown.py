"""Hostile text in Markdown: it may look odd, it may not act."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.render.markdown import Markdown, bullets, code, fenced, md, plain, table

HOSTILE = [
    "a|b",
    "`code` ``` fence",
    "<script>alert(1)</script>",
    "&lt;already&gt;",
    "line\nbreak\r\n\r\n# heading",
    "](http://evil.example)",
    "![image](x.png)",
    "[text]: http://evil.example",
    "https://evil.example www.evil.example who@evil.example mailto:who@evil.example",
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "\u202eright to left\u2066 isolate\u200b",
    "1. one",
    "1)",
    "- item",
    "+ item",
    "# heading",
    "===",
    "---",
    "~~struck~~ _em_ **strong** $math$",
    "back\\slash\\|",
    "\ud800 lone surrogate",
    "{{ lookup('pipe', 'id') }} {% raw %}",
]
ANY = st.text() | st.sampled_from(HOSTILE) | st.lists(st.sampled_from(HOSTILE)).map("".join)
# What may still stand without a backslash before it.
_ACTIVE = re.compile(r"(?<!\\)(?:\\\\)*[|`*\[\]~$]")


@settings(deadline=None)
@given(ANY)
def test_escaped_text_is_one_line_that_starts_and_contains_nothing(text: str) -> None:
    escaped = md(text)
    assert "\n" not in escaped
    assert "\r" not in escaped
    assert not re.search(r"[<>]|&(?!amp;|lt;|gt;|#[0-9]+;)", escaped.replace("<!-- -->@", ""))
    assert not _ACTIVE.search(escaped)
    assert "://" not in escaped
    assert "www." not in escaped.lower()
    assert not re.match(r"[#+=-]|[0-9]{1,9}[.)](\s|$)", escaped)
    assert all(unicodedata.category(character) not in ("Cc", "Cf", "Cs") for character in escaped)


@settings(deadline=None)
@given(ANY, ANY)
def test_no_cell_adds_a_column_or_a_row(one: str, other: str) -> None:
    lines = table(["first", "second"], [[one, other], [code(one), code(other)]]).split("\n")
    assert len(lines) == 4
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines] == [3, 3, 3, 3]


@settings(deadline=None)
@given(ANY)
def test_no_text_closes_a_fence(text: str) -> None:
    lines = fenced(text).split("\n")
    fence = lines[0].removesuffix("text")
    assert set(fence) == {"`"}
    assert len(fence) >= 3
    assert lines[-1] == fence
    assert all(fence not in line for line in lines[1:-1])
    assert "\x1b" not in "".join(lines)


@settings(deadline=None)
@given(ANY)
def test_a_code_span_holds_no_backtick_of_its_own(text: str) -> None:
    made = code(text)
    if made.startswith("`"):
        assert "`" not in made[1:-1]
        assert "|" not in made
    else:
        assert made == md(text)


@settings(deadline=None)
@given(st.text(st.characters(categories=["Lu", "Ll", "Nd"], include_characters=" .,;/-_%"), max_size=150))
def test_ordinary_words_stay_as_they_are(text: str) -> None:
    if "www." in text.lower() or re.match(r"\s*([-]|[0-9]+[.)])", text) or "_" in text:
        return
    assert md(text) == " ".join(text.split())


@pytest.mark.parametrize("text", ["who@evil.example", "mailto:who@evil.example", "xmpp:who@evil.example"])
def test_a_mail_address_becomes_no_link(text: str) -> None:
    """cmark-gfm looks for addresses after it has resolved entities and backslashes, so neither hides an @ from it."""
    assert re.findall(r"(.{8})(?:@|&#64;|&commat;)", md(text)) == ["<!-- -->"]
    assert md("@@a.b") == "@<!-- -->@a.b"


def test_names_with_underscores_stay_readable() -> None:
    assert md("thp.shmem_enabled is never") == "thp.shmem_enabled is never"


def test_markdown_passes_and_nothing_is_a_dash() -> None:
    assert md(Markdown("**bold** | pipe")) == "**bold** | pipe"
    assert md(None) == "\N{EN DASH}"
    assert bullets([Markdown("*a*"), "*b*"]) == "- *a*\n- \\*b\\*"


@pytest.mark.parametrize(("limit", "length"), [(10, 10), (200, 200)])
def test_long_text_is_cut_and_says_so(limit: int, length: int) -> None:
    assert len(md("x" * 500, limit=limit)) == length
    assert md("x" * 500, limit=limit).endswith("...")


def test_terminal_codes_vanish() -> None:
    assert plain("\x1b[1;31mred\x1b[0m\x1b]0;title\x07 \x1b(Bplain") == "red plain"
