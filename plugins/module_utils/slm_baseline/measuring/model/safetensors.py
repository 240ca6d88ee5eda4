"""Parser of a safetensors file's header: what tensors it holds, and whether the file is complete.

Format: https://github.com/huggingface/safetensors#format. Eight bytes of little-endian length, a JSON object of that
length, then the tensors' bytes without a gap.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from ...host.errors import ParseError

PREFIX_BYTES = 8
MAX_HEADER_BYTES = 10_000_000
"""A tenth of the reference implementation's limit: 80,000 tensors in one file. Parsed, it takes ten times its size."""

_DTYPE_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64},
    **{"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64},
    **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
_DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Header:
    """A header: elements by tensor name, elements by dtype (in torch's spelling), and the data's bytes."""

    elements: dict[str, int]
    elements_by_dtype: dict[str, int]
    data_bytes: int


def header_length(prefix: bytes, file_bytes: int, source: str) -> int:
    """Return the header's bytes after the first eight; ParseError where no file of this size can have such a header."""
    if len(prefix) != PREFIX_BYTES:
        raise _bad(source, "a file of at least 8 bytes", f"{len(prefix)} bytes")
    length = int(struct.unpack("<Q", prefix)[0])
    if not 2 <= length <= min(MAX_HEADER_BYTES, file_bytes - PREFIX_BYTES):
        raise _bad(source, f"a header that fits into {file_bytes} bytes", f"a header of {length} bytes")
    return length


def parse_header(text: bytes, file_bytes: int, source: str) -> Header:
    """Parse the header's JSON and check it against the file's size; ParseError for damage or truncation.

    Every tensor must have as many bytes as its shape and dtype need, and together they must fill the file.
    """
    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise _bad(source, "a JSON header", text[:60].decode("latin-1")) from error
    if not isinstance(document, dict):
        raise _bad(source, "a JSON object as header", text[:60].decode("latin-1"))
    document.pop("__metadata__", None)
    spans: list[tuple[int, int]] = []
    elements: dict[str, int] = {}
    by_dtype: dict[str, int] = {}
    for name, entry in document.items():
        dtype, count, begin, end = _tensor(name, entry, source)
        if (end - begin) * 8 != count * _DTYPE_BITS[dtype]:
            raise _bad(source, f"{count} elements of {dtype} in tensor {name!r}", f"{end - begin} bytes")
        spans.append((begin, end))
        elements[name] = count
        spelled = _DTYPE_NAMES.get(dtype, dtype.lower())
        by_dtype[spelled] = by_dtype.get(spelled, 0) + count
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise _bad(source, f"tensor data that goes on at byte {reached}", f"byte {begin}")
        reached = end
    data_bytes = file_bytes - PREFIX_BYTES - len(text)
    if reached != data_bytes:
        raise _bad(source, f"{reached} bytes of tensor data, as its header says", f"{data_bytes} bytes")
    return Header(elements, by_dtype, data_bytes)


def _tensor(name: str, entry: object, source: str) -> tuple[str, int, int, int]:
    """Parse one entry's dtype, elements, and span of the data."""
    if not isinstance(entry, dict):
        raise _bad(source, f"an object for tensor {name!r}", repr(entry))
    dtype = entry.get("dtype")
    shape, offsets = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in _DTYPE_BITS:
        raise _bad(source, f"a known dtype for tensor {name!r}", repr(dtype))
    if shape is None or offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad(source, f"a shape and two offsets for tensor {name!r}", repr(entry))
    count = 1
    for size in shape:
        count *= size
        # Larger than any file; prevents a header from costing time on huge products.
        if count > 1 << 63:
            raise _bad(source, f"a shape that a file can hold for tensor {name!r}", repr(shape))
    return dtype, count, offsets[0], offsets[1]


def _sizes(value: object) -> list[int] | None:
    """Return a list of whole numbers that a file could have, or None."""
    if isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value):
        return value
    return None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name occurs twice")
    return document


def _bad(source: str, expected: str, found: str) -> ParseError:
    return ParseError(source, expected, found, "fetch or build this file again: it is damaged or cut short.")
