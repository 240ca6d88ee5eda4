#!/usr/bin/env python3
"""Find the bytecode of modules without importing any, and measure what compiling those without costs.

It reads one JSON object from standard input: `{"names": [...], "folder": PATH, "limit_s": SECONDS}`. `folder` is the
loader's, where its imports begin; compiling ends once it has taken `limit_s` of CPU time. The last line of output is
one JSON object: `states` (modules by `valid`, `missing`, `stale`, `unreadable`), `lacking` (modules without valid
bytecode), `compiled` of them, `compile_s` and `load_s` (CPU seconds of compiling these, and of reading their bytecode
instead), `standard` (names of the standard library) and `distributions` (`requires` and `packages` by name).
"""

from __future__ import annotations

import json
import marshal
import sys
import time
from importlib import metadata, util
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from typing import Any


def find_spec(name: str, known: dict[str, ModuleSpec | None]) -> ModuleSpec | None:
    """Find a module as the import system does, but without importing what lies above; `known` is filled."""
    if name not in known:
        above = name.rpartition(".")[0]
        try:
            parent = find_spec(above, known) if above else None
            path = list((parent and parent.submodule_search_locations) or ()) if above else None
            known[name] = PathFinder.find_spec(name, path)
        # A path hook of the environment can raise anything.
        except Exception:
            known[name] = None
    return known[name]


def state_of(origin: str) -> str:
    """Return whether the bytecode of this source is valid, missing, stale or unreadable (PEP 552)."""
    try:
        with open(util.cache_from_source(origin), "rb") as file:
            head = file.read(16)
        if len(head) < 16 or head[:4] != util.MAGIC_NUMBER:
            return "stale"
        flags = int.from_bytes(head[4:8], "little")
        loader = SourceFileLoader("", origin)
        if flags & 1:
            is_valid = not flags & 2 or head[8:] == util.source_hash(loader.get_data(origin))
        else:
            stats = loader.path_stats(origin)
            wanted = [int(stats["mtime"]) & 0xFFFFFFFF, int(stats["size"]) & 0xFFFFFFFF]
            is_valid = [int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:], "little")] == wanted
        return "valid" if is_valid else "stale"
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "unreadable"


def find_states(names: list[str]) -> tuple[dict[str, int], list[str]]:
    """Count modules by the state of their bytecode; return that and the sources without valid bytecode."""
    known: dict[str, ModuleSpec | None] = {}
    states: dict[str, int] = {}
    lacking = []
    for name in names:
        spec = find_spec(name, known)
        if spec is None:
            continue
        if isinstance(spec.loader, SourcelessFileLoader):
            states["valid"] = states.get("valid", 0) + 1
        elif isinstance(spec.loader, SourceFileLoader) and spec.origin:
            found = state_of(spec.origin)
            states[found] = states.get(found, 0) + 1
            if found != "valid":
                lacking.append(spec.origin)
    return states, lacking


def time_compiling(sources: list[str], limit_s: float) -> dict[str, float]:
    """Compile sources in memory until that has taken `limit_s`; return how many, and the CPU seconds."""
    compiled, compile_s, load_s = 0, 0.0, 0.0
    for origin in sources:
        if compile_s > limit_s:
            break
        try:
            begun = time.process_time()
            with open(origin, "rb") as file:
                code = compile(file.read(), origin, "exec", dont_inherit=True)
            done = time.process_time()
            data = marshal.dumps(code)
            again = time.process_time()
            marshal.loads(data)
            compile_s += done - begun
            load_s += time.process_time() - again
            compiled += 1
        except (OSError, SyntaxError, ValueError):
            pass
    return {"compiled": compiled, "compile_s": compile_s, "load_s": load_s}


def list_distributions() -> dict[str, dict[str, list[str]]]:
    """List the installed distributions by name: what each requires, and its packages."""
    packages: dict[str, set[str]] = {}
    for package, names in metadata.packages_distributions().items():
        for name in names:
            packages.setdefault(name, set()).add(package)
    found = {}
    for each in metadata.distributions():
        name = each.metadata["Name"]
        if name:
            requires = [" ".join(text.split()) for text in each.requires or ()]
            found[name] = {"requires": requires, "packages": sorted(packages.get(name, ()))}
    return found


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    sys.path[0] = asked["folder"]
    states, lacking = find_states(asked["names"])
    answer = {
        "states": states,
        "lacking": len(lacking),
        **time_compiling(lacking, asked["limit_s"]),
        "standard": sorted(sys.stdlib_module_names),
        "distributions": list_distributions(),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
