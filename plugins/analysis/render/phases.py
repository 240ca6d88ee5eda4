"""What the phases of a load are called, in words."""

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
    """A phase's name for people; an unknown one with its underscores taken out."""
    return LABELS.get(name, name.replace("_", " "))
