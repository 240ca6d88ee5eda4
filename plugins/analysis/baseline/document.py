"""The result document of one baseline run on one host: built, checked, written as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from analysis import statistics
from analysis.baseline.floor import explain
from analysis.baseline.imports import Imports
from analysis.baseline.kernels import Kernels
from analysis.documents import schema
from analysis.documents.decode import typed
from analysis.documents.samples import Sample
from analysis.documents.storage import as_json

SCHEMA_VERSION = 1


def result_document(
    benchmark: Mapping[str, Any],
    *,
    name: str,
    run: Mapping[str, str],
    memory: Mapping[str, Any],
    before: Mapping[str, str],
) -> dict[str, Any]:
    """Return the result document from what a run registered; raise DocumentError if it breaks its schema.

    `benchmark` is what the last block of `slm_benchmark` returned under that name (host, model, software, protocol,
    ceiling, imports, kernels, samples), `name` the inventory name, `run` has run_id, started_at and finished_at,
    `memory` is what `memory_info` returned after tuning (memory, desired, rows, competitors), `before` the snapshot's
    values, empty if there is no snapshot.
    """
    # Through JSON and back: Ansible's tagged strings and lazy containers become plain ones, and NaN is rejected.
    samples = json.loads(as_json(benchmark["samples"]))
    schema.validate(samples, "result", part="/properties/samples")
    imports = json.loads(as_json(benchmark.get("imports")))
    schema.validate(imports, "result", part="/properties/imports")
    kernels = json.loads(as_json(benchmark.get("kernels")))
    schema.validate(kernels, "result", part="/properties/kernels")
    measured = [typed(Sample, sample) for sample in samples]
    result = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run["run_id"],
        "kind": "baseline",
        "started_at": run["started_at"],
        "finished_at": run["finished_at"],
        "host": {"name": name, **benchmark["host"]},
        "model": benchmark["model"],
        "software": benchmark["software"],
        "image": benchmark.get("image"),
        "protocol": benchmark["protocol"],
        "tuning": _tuning(memory, before),
        "ceiling": benchmark["ceiling"],
        "imports": imports,
        "kernels": kernels,
        "samples": samples,
        "summary": statistics.summarise(measured).to_json(),
        "first_token": asdict(explain(measured, typed(Imports, imports), typed(Kernels, kernels))),
    }
    plain: dict[str, Any] = json.loads(as_json(result))
    check_result(plain)
    return plain


def check_result(document: object) -> None:
    """Raise one readable DocumentError if the document breaks plugins/schemas/result.schema.json."""
    schema.validate(document, "result")


def _tuning(memory: Mapping[str, Any], before: Mapping[str, str]) -> dict[str, Any]:
    facts = memory["memory"]
    writers = [*memory["competitors"], *memory.get("possible_writers", ())]
    notes = [writer["detail"] for writer in writers]
    if facts.get("unfinished_sweep"):
        notes.append("a sweep on this host did not finish restoring its settings: run the rollback or the sweep again")
    return {
        "before": before,
        "desired": memory["desired"],
        "runtime": facts["values"],
        "persisted": {knob: kept["value"] for knob, kept in facts["persisted"].items()},
        "rows": memory["rows"],
        "pools": facts["pools"],
        "pool_users": facts["pool_users"],
        "mounts": facts["mounts"],
        "notes": notes,
    }
