#!/usr/bin/env python3
"""How fast this host copies to each of its GPUs: the limit of a warm load, measured on the spot.

The same bytes go from pinned memory, which the device reads by itself, and from pageable memory, which the driver
stages through a buffer of its own, as it does for weights that are a mapping of their file. Prints one line of JSON:

    {"devices": [{"index": 0, "pinned_bytes_per_s": 5.5e10, "pageable_bytes_per_s": 9.1e9, "bytes": 1073741824}]}

Run it with the Python that has torch, and CUDA_DEVICE_ORDER=PCI_BUS_ID for the indexes of nvidia-smi. Without
a CUDA device the list is empty. A device that cannot be measured has null rates, and the reason goes to stderr.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from typing import Any

MIB = 1 << 20


def copy_rate(torch: Any, device: Any, source: Any, piece_bytes: int, repeats: int) -> float:
    """Return median bytes per second of `repeats` copies of `source` to the device, in pieces, after one warm-up."""
    target = torch.empty(piece_bytes, dtype=torch.uint8, device=device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    rates: list[float] = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize(device)
        begin.record()
        for piece in source.split(piece_bytes):
            target[: piece.numel()].copy_(piece, non_blocking=True)
        end.record()
        torch.cuda.synchronize(device)
        rates.append(source.numel() / (begin.elapsed_time(end) / 1000))
    return statistics.median(rates[1:])


def device_rates(torch: Any, index: int, size: int, piece_bytes: int, repeats: int) -> dict[str, Any]:
    """Measure both rates of one device; null where it has too little free memory, or fails."""
    rates: dict[str, Any] = {"index": index, "pinned_bytes_per_s": None, "pageable_bytes_per_s": None, "bytes": size}
    for name, pinned in (("pinned_bytes_per_s", True), ("pageable_bytes_per_s", False)):
        try:
            with torch.cuda.device(index):
                # Filled, so that every page exists and is not the kernel's shared zero page.
                source = torch.empty(size, dtype=torch.uint8, pin_memory=pinned).fill_(1)
                rates[name] = copy_rate(torch, torch.device("cuda", index), source, piece_bytes, repeats)
        except RuntimeError as error:
            print(f"device {index}: {str(error).splitlines()[0]}", file=sys.stderr)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mebibytes", type=int, default=1024, help="MiB to copy at a time (default 1024)")
    parser.add_argument("--piece-mebibytes", type=int, default=64, help="MiB a copy call moves (default 64)")
    parser.add_argument("--repeats", type=int, default=5, help="copies to take the median of (default 5)")
    options = parser.parse_args()
    if min(options.mebibytes, options.piece_mebibytes, options.repeats) < 1:
        parser.error("sizes and repeats are whole numbers from 1")
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        parser.exit(1, f"gpu_copy_rate.py: {error}. Next: run it with the Python that has torch.\n")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    sizes = (options.mebibytes * MIB, options.piece_mebibytes * MIB, options.repeats)
    print(json.dumps({"devices": [device_rates(torch, index, *sizes) for index in range(count)]}))


if __name__ == "__main__":
    main()
