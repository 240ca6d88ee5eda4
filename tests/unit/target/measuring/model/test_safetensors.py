"""The safetensors header parser: whole files, damaged files, hostile files."""

from __future__ import annotations

import json
import struct

import pytest
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.measuring.model.safetensors import Header, header_length, parse_header
from hypothesis import given
from hypothesis import strategies as st


def entry(begin: int, end: int, shape: list[int], dtype: str = "BF16") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def parse(document: object, data_bytes: int) -> Header:
    text = json.dumps(document).encode()
    return parse_header(text, 8 + len(text) + data_bytes, "f")


def test_a_whole_header() -> None:
    header = parse({"__metadata__": {"format": "pt"}, "b": entry(12, 20, [2], "F32"), "a": entry(0, 12, [2, 3])}, 20)
    assert header == Header({"b": 2, "a": 6}, {"float32": 2, "bfloat16": 6}, 20)


def test_a_scalar_and_an_empty_tensor() -> None:
    assert parse({"s": entry(0, 2, []), "e": entry(2, 2, [0, 7])}, 2).elements == {"s": 1, "e": 0}


@pytest.mark.parametrize(
    ("document", "data_bytes", "said"),
    [
        ({"a": entry(0, 12, [2, 3])}, 11, "11 bytes"),
        ({"a": entry(0, 12, [2, 3])}, 13, "13 bytes"),
        ({"a": entry(0, 10, [2, 3])}, 10, "6 elements of BF16"),
        ({"a": entry(0, 12, [2, 3]), "b": entry(0, 12, [6])}, 12, "goes on at byte 12"),
        ({"a": entry(0, 12, [6]), "b": entry(14, 16, [1])}, 16, "goes on at byte 12"),
        ({"a": entry(12, 0, [6])}, 12, "two offsets"),
        ({"a": entry(0, 12, [-6])}, 12, "two offsets"),
        ({"a": entry(0, 2, [True])}, 2, "two offsets"),
        ({"a": entry(0, 12, [6], "Q9")}, 12, "known dtype"),
        ({"a": {**entry(0, 12, [6]), "dtype": ["BF16"]}}, 12, "known dtype"),
        ({"a": entry(0, 12, [1 << 40, 1 << 40])}, 12, "a shape that a file can hold"),
        ({"a": [0, 12]}, 12, "an object for tensor 'a'"),
        ([1, 2], 0, "a JSON object"),
    ],
)
def test_damage_is_named(document: object, data_bytes: int, said: str) -> None:
    with pytest.raises(ParseError, match="fetch or build this file again") as caught:
        parse(document, data_bytes)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b'{"a":1,"a":2}', b"[" * 100_000, b""])
def test_what_is_no_header(text: bytes) -> None:
    with pytest.raises(ParseError):
        parse_header(text, 8 + len(text), "f")


@pytest.mark.parametrize("length", [0, 1, 93, 1 << 40, (1 << 64) - 1])
def test_a_length_that_cannot_be(length: int) -> None:
    with pytest.raises(ParseError, match="a header of"):
        header_length(struct.pack("<Q", length), 100, "f")


def test_a_length_at_both_ends() -> None:
    assert header_length(struct.pack("<Q", 92), 100, "f") == 92
    with pytest.raises(ParseError, match="at least 8 bytes"):
        header_length(b"\0" * 7, 7, "f")


@given(st.binary(max_size=200), st.integers(0, 1000))
def test_any_bytes_give_a_header_or_one_error(text: bytes, extra: int) -> None:
    try:
        header = parse_header(text, 8 + len(text) + extra, "f")
    except ParseError:
        return
    assert header.data_bytes == extra


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["BF16", "F32", "F4"]) | json_values,
        "shape": st.lists(st.integers(0, 1 << 70), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(0, 64), min_size=2, max_size=2) | json_values,
    }
)


@given(st.dictionaries(st.text(max_size=4), entries | json_values, max_size=4), st.integers(0, 128))
def test_any_document_gives_a_header_or_one_error(document: dict[str, object], data_bytes: int) -> None:
    try:
        header = parse(document, data_bytes)
    except ParseError:
        return
    assert header.data_bytes == data_bytes
    assert sum(header.elements.values()) == sum(header.elements_by_dtype.values())


@given(st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=5))
def test_every_well_made_header_is_read(shapes: list[list[int]]) -> None:
    document, offset, counts = {}, 0, {}
    for index, shape in enumerate(shapes):
        count = 1
        for size in shape:
            count *= size
        document[f"t{index}"] = entry(offset, offset + 2 * count, shape)
        offset, counts[f"t{index}"] = offset + 2 * count, count
    assert parse(document, offset).elements == counts
