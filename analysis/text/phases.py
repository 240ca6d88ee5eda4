"""What the phases of a load are called, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LABELS = {
    "interpreter": "Python starts",
    "import_torch": "import torch",
    "import_transformers": "import transformers",
    "device_ready": "device ready",
    "tokenizer": "tokenizer",
    "weights": "weights",
    "first_token": "first token",
    "second_token": "second token",
}


def label(name: str) -> str:
    """A phase's name for people; an unknown one with its underscores taken out."""
    return LABELS.get(name, name.replace("_", " "))


def names(summary: Mapping[str, Any]) -> list[str]:
    """The phases that a summary has figures of, in the order in which they happened."""
    found = dict.fromkeys(
        key.split("_phase_", 1)[1].removesuffix("_s")
        for key in summary
        if key.startswith(("cold_phase_", "warm_phase_"))
    )
    return list(found)
