"""Host-to-device copy rates, as files/gpu_copy_rate.py measures them with the host's own torch."""

from __future__ import annotations

import json
import math
import subprocess
from typing import Any

from ..loader.process import Loader

SCRIPT = "gpu_copy_rate.py"
_TIMEOUT_S = 120.0
_RATES = ("pinned_bytes_per_s", "pageable_bytes_per_s")


def measure_copy_rates(loader: Loader, script: str) -> list[dict[str, Any]]:
    """Run the script as the loader's user: `{index, pinned_bytes_per_s, pageable_bytes_per_s, bytes}` of each device.

    A script that fails, hangs, writes too much or prints anything else gives an empty list: an unknown limit, never a
    wrong one.
    """
    try:
        reply = loader.run([script], _TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_copy_rates(reply.output) if reply.returncode == 0 else []


def parse_copy_rates(output: bytes) -> list[dict[str, Any]]:
    """Parse the devices from the script's one line; none where it is anything else."""
    try:
        devices = json.loads(output)["devices"]
        return [
            {
                "index": int(device["index"]),
                "bytes": int(device["bytes"]),
                **{name: _rate(device[name]) for name in _RATES},
            }
            for device in devices
        ]
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return []


def _rate(value: object) -> float | None:
    """Return bytes per second, or None for a device that could not be measured; ValueError for an invalid rate."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{value!r} is no rate")
    return float(value)
