"""Prometheus' text format, as node_exporter's textfile collector reads it.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/, text format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def family(metric: str, text: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> str:
    """Return one gauge with its help and its samples (labels, value); "" without samples."""
    if not samples:
        return ""
    lines = [f"# HELP {metric} {text}", f"# TYPE {metric} gauge"]
    return "\n".join([*lines, *(f"{metric}{_labels(labels)} {value}" for labels, value in samples)]) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
