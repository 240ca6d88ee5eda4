#!/usr/bin/env python3
"""Compile modules for a bytecode cache that somebody else writes.

    slm_compile.py PREFIX < sources > frames

Run by the interpreter that will use the cache, as the user that it serves: root takes the bytes and stores them, and
runs neither this interpreter nor the modules. Standard input has paths of sources, each ended by a NUL. Standard output
has a frame for each that could be had: the path of its bytecode below PREFIX, a NUL, the number of bytes in decimal, a
NUL, the bytes. At the end comes a frame with an empty path; its bytes are JSON: `compiled` and `copied` (counts),
`compile_s` (CPU seconds spent on compiling) and `failed` (count).

Valid bytecode beside a source is copied, not compiled again. The same goes for the modules beside those named: an
interpreter with a cache prefix looks there alone (importlib, `sys.pycache_prefix`), and a module that is first imported
later must not be compiled at every start because of us.
"""

from __future__ import annotations

import sys

if len(sys.argv) == 2:
    sys.pycache_prefix = sys.argv[1]

import importlib.util
import json
import os
import time
from collections.abc import Iterator
from importlib._bootstrap_external import _code_to_timestamp_pyc  # type: ignore[attr-defined]


def adjacent(source: str) -> bytes | None:
    """The bytecode beside a source, if the interpreter would take it; None otherwise."""
    prefix, sys.pycache_prefix = sys.pycache_prefix, None
    try:
        path = importlib.util.cache_from_source(source)
    finally:
        sys.pycache_prefix = prefix
    try:
        found = os.stat(source)
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None
    if data[:4] != importlib.util.MAGIC_NUMBER or len(data) < 16:
        return None
    flags = int.from_bytes(data[4:8], "little")
    if flags == 0:
        fresh = data[8:16] == (int(found.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (
            found.st_size & 0xFFFFFFFF
        ).to_bytes(4, "little")
    else:
        # A hash that nobody checks is valid by definition (PEP 552); one that is checked is left to the interpreter.
        fresh = flags == 1
    return data if fresh else None


def compiled(source: str) -> bytes:
    """Bytecode of a source as the interpreter would store it; raises what compiling raises."""
    with open(source, "rb") as file:
        text = file.read()
    found = os.stat(source)
    code = compile(text, source, "exec", dont_inherit=True)
    return bytes(_code_to_timestamp_pyc(code, int(found.st_mtime), found.st_size))


def beside(sources: list[str]) -> Iterator[str]:
    """Modules in the folders of those named, which have bytecode that can be copied."""
    named = set(sources)
    for folder in sorted({os.path.dirname(source) for source in sources}):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".py") and path not in named:
                yield path


def send(path: str, data: bytes) -> None:
    out = sys.stdout.buffer
    out.write(os.fsencode(path) + b"\0" + str(len(data)).encode() + b"\0" + data)


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: slm_compile.py PREFIX < sources\n")
        return 2
    sources = [os.fsdecode(path) for path in sys.stdin.buffer.read().split(b"\0") if path]
    copied = made = failed = 0
    compile_s = 0.0
    for source in sources:
        data = adjacent(source)
        if data is not None:
            copied += 1
        else:
            started = time.process_time()
            try:
                data = compiled(source)
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                failed += 1
                continue
            compile_s += time.process_time() - started
            made += 1
        send(importlib.util.cache_from_source(source), data)
    for source in beside(sources):
        data = adjacent(source)
        if data is not None:
            copied += 1
            send(importlib.util.cache_from_source(source), data)
    totals = {"compiled": made, "copied": copied, "compile_s": round(compile_s, 3), "failed": failed}
    send("", json.dumps(totals).encode())
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
