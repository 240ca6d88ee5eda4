"""The result document of one baseline run on one host: put together, checked, written as text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from analysis import schema, statistics

SCHEMA_VERSION = 1


def document(
    benchmark: Mapping[str, Any],
    *,
    name: str,
    run: Mapping[str, str],
    facts: Mapping[str, Any],
    memory: Mapping[str, Any],
    before: Mapping[str, str],
) -> dict[str, Any]:
    """The document of docs/architecture.md from what a run registered; SettingError where it breaks its schema.

    `benchmark` is what `slm_benchmark` returned (model, software, protocol, ceiling, samples, host), `name` the
    inventory name, `run` has run_id, started_at and finished_at, `facts` is Ansible's ansible_facts, `memory` what
    `memory_info` returned after tuning (memory, desired, rows, competitors), `before` the snapshot's values, empty
    where there is none.
    """
    # Through JSON and back: Ansible's tagged strings and lazy containers become plain ones, and NaN is refused.
    samples = json.loads(as_json(benchmark["samples"]))
    schema.validate(samples, "result", part="/properties/samples")
    result = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run["run_id"],
        "kind": "baseline",
        "started_at": run["started_at"],
        "finished_at": run["finished_at"],
        "host": _host(name, facts, memory["memory"], benchmark.get("host") or {}),
        "model": benchmark["model"],
        "software": benchmark["software"],
        "protocol": benchmark["protocol"],
        "tuning": _tuning(memory, before),
        "ceiling": benchmark.get("ceiling"),
        "samples": samples,
        "summary": statistics.summarise(samples),
    }
    plain: dict[str, Any] = json.loads(as_json(result))
    validate(plain)
    return plain


def validate(document: object) -> None:
    """Raise one readable SettingError where the document breaks schemas/result.schema.json."""
    schema.validate(document, "result")


def _host(
    name: str, facts: Mapping[str, Any], memory: Mapping[str, Any], measured: Mapping[str, Any]
) -> dict[str, Any]:
    """Ansible's facts, overlaid with what the measurement saw itself: where the model lies, and the GPUs."""
    return {
        "name": name,
        "kernel": facts["kernel"],
        "arch": facts["architecture"],
        "distribution": f"{facts.get('distribution', 'unknown')} {facts.get('distribution_version', '')}".strip(),
        "cpu_model": _cpu_model(facts.get("processor") or []),
        "cpus": facts.get("processor_nproc") or facts["processor_vcpus"],
        "numa_nodes": max(1, len(memory["numa"])),
        "memory_bytes": memory["meminfo"]["MemTotal"],
        "page_size_bytes": None,
        "systemd": memory["systemd"],
        "psi": None,
        "disk": None,
        "filesystem": None,
        "gpus": [],
        "gpu_driver": None,
        **measured,
    }


def _cpu_model(processor: Sequence[str]) -> str | None:
    """The model among Ansible's flat list, which repeats number, vendor and model (or only some) for every CPU."""
    return max(processor[:3], key=len, default=None)


def _tuning(memory: Mapping[str, Any], before: Mapping[str, str]) -> dict[str, Any]:
    facts = memory["memory"]
    notes = [writer["detail"] for writer in memory["competitors"]]
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


def as_json(value: object) -> str:
    """Indented JSON in the document's own order; ValueError for NaN and infinities, which JSON has no word for."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def folder_name(host: str) -> str:
    """A folder name for an inventory name: itself where it is harmless, else a cleaned one with the true one's digest.

    Harmless is up to 100 letters, digits, dots, dashes and underscores, starting with a letter or digit. Two different
    hosts never share a folder.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", host, re.ASCII):
        return str(host)
    digest = hashlib.sha256(host.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", host).lstrip("._-")[:60]
    return f"{cleaned or 'host'}-{digest}"
