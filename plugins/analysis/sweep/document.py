"""The document of one sweep of one host: built from what the host stored, analysed, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from analysis.documents import schema
from analysis.documents.decode import typed
from analysis.documents.storage import as_json
from analysis.sweep.comparison import analyse
from analysis.sweep.progress import stop_reason
from analysis.sweep.sweep import Sweep

SCHEMA_VERSION = 2
_OF_MEASUREMENT = ("arm", "dtype_asked", "attempt", "elapsed_s", "measurement")

_OF_PLAN = ("seed", "dtypes", "weights_pairs", "no_template", "bytecode", "kernels")


def sweep_document(
    finished: Mapping[str, Any],
    *,
    name: str,
    finished_at: str,
    stopping: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the sweep's document; raise DocumentError if it breaks plugins/schemas/sweep.schema.json.

    `finished` is what `slm_sweep` returned at the end (plan, samples, finished_blocks, progress, host, model, software,
    image, protocol, ceiling), `name` the inventory name, `stopping` the rules by which it stops (blocks, budget_s,
    precision, full_blocks).
    """
    plan, progress = finished["plan"], finished["progress"]
    whole = {
        "schema_version": SCHEMA_VERSION,
        "run_id": plan["run_id"],
        "kind": "sweep",
        "started_at": plan["started_at"],
        "finished_at": finished_at,
        "host": {"name": name, **finished["host"]},
        "model": finished["model"],
        "software": finished["software"],
        "image": finished.get("image"),
        "protocol": {**finished["protocol"], **stopping, **{name: plan[name] for name in _OF_PLAN}},
        "stock": plan["stock"],
        "arms": plan["arms"],
        "left_out": plan["left_out"],
        "stopped": {
            "reason": stop_reason(progress, stopping) or "the run was ended before its rules asked for it",
            "blocks": progress["done"],
            "spent_s": progress["spent_s"],
        },
        "ceiling": finished["ceiling"],
        "measurements": measurements(finished["samples"], finished["finished_blocks"]),
    }
    return analysed(json.loads(as_json(whole)))


def measurements(samples: Sequence[Mapping[str, Any]], finished_blocks: Mapping[Any, int]) -> list[dict[str, Any]]:
    """Return the samples that the host stored, each separate from the sweep's own fields for it.

    `finished_blocks` maps a block to the attempt that finished it; its keys are text if they come from JSON.
    """
    attempts = {int(block): attempt for block, attempt in finished_blocks.items()}
    return [
        {
            **{name: sample[name] for name in _OF_MEASUREMENT if name in sample},
            "abandoned": attempts.get(sample["block"]) != sample["attempt"],
            "sample": {name: value for name, value in sample.items() if name not in _OF_MEASUREMENT[1:]},
        }
        for sample in samples
    ]


def analysed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with a new analysis, for rendering stored samples again; checked."""
    schema.validate(document["measurements"], "sweep", part="/properties/measurements")
    whole = {**document, "analysis": asdict(analyse(typed(Sweep, document)))}
    plain: dict[str, Any] = json.loads(as_json(whole))
    schema.validate(plain, "sweep")
    return plain
