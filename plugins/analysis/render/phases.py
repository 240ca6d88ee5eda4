"""Names of a load's phases in words."""

from __future__ import annotations

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
    """Return a phase's name for people; for an unknown phase, its name without underscores."""
    return LABELS.get(name, name.replace("_", " "))
