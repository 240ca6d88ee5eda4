"""What the trial of a model says without torch: which file of a tokenizer is damaged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from files import try_model


def refuse(*args: object, **kwargs: object) -> object:
    raise ValueError("expected value at line 1 column 9")


def tried(folder: Path) -> dict[str, str | None]:
    transformers = SimpleNamespace(AutoTokenizer=SimpleNamespace(from_pretrained=refuse))
    with pytest.raises(try_model.Problem) as refused:
        try_model.try_tokenizer(transformers, str(folder), try_model.Said())
    return refused.value.parts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"version": ', "tokenizer.json is no JSON: Expecting value"),
        ("", "tokenizer.json is no JSON: Expecting value"),
        ("[" * 100_000, "tokenizer.json is no JSON: maximum recursion depth"),
        # Valid, and refused by the library for another reason.
        ('{"version": 1}', "expected value at line 1"),
    ],
)
def test_a_damaged_tokenizer_is_named_by_its_file(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "tokenizer.json").write_text(text)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    parts = tried(tmp_path)
    assert str(parts["found"]).startswith(found)
    assert parts["install"] is None


def test_bytes_that_are_no_text_are_named_too(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "vocab.json").write_bytes(b"\xff\xfe")
    assert str(tried(tmp_path)["found"]).startswith("vocab.json is no JSON: ")
