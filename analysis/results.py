"""The result document of one baseline run on one host: put together, checked, written as text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from analysis import statistics
from analysis.schema import validate

SCHEMA_VERSION = 1


def document(
    benchmark: Mapping[str, Any], *, run: Mapping[str, str], host: Mapping[str, Any], tuning: Mapping[str, Any]
) -> dict[str, Any]:
    """The document of docs/architecture.md from what a run registered; SettingError where it breaks its schema.

    `benchmark` has model, software, protocol, ceiling, samples and host (disk, filesystem, gpus, gpu_driver) as
    `slm_benchmark` returns them; `run` has run_id, started_at, finished_at; `host` and `tuning` come from
    `host_section` and `tuning_section`.
    """
    samples = list(benchmark["samples"])
    result = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run["run_id"],
        "kind": "baseline",
        "started_at": run["started_at"],
        "finished_at": run["finished_at"],
        "host": dict(host),
        "model": benchmark["model"],
        "software": benchmark["software"],
        "protocol": benchmark["protocol"],
        "tuning": dict(tuning),
        "ceiling": benchmark.get("ceiling"),
        "samples": samples,
        "summary": statistics.summarise(samples),
    }
    # Through JSON and back: Ansible's tagged strings and lazy containers become plain ones, and NaN is refused.
    plain: dict[str, Any] = json.loads(as_json(result))
    validate(plain, "result")
    return plain


def as_json(value: object) -> str:
    """Indented JSON in the document's own order; ValueError for NaN and infinities, which JSON has no word for."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def folder_name(host: str) -> str:
    """A folder name for an inventory name: itself where it is harmless, else a cleaned one with a digest of the true one.

    Harmless is up to 100 letters, digits, dots, dashes and underscores, starting with a letter or digit. Two different
    hosts never share a folder.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", host, re.ASCII):
        return str(host)
    digest = hashlib.sha256(host.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", host).lstrip("._-")[:60]
    return f"{cleaned or 'host'}-{digest}"
