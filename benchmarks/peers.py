"""The loader with another reader of its weights, for users who can change the application.

    peers.py PEER LOADER [arguments of the loader]

Run by the loader's interpreter in place of slm_load.py, with the peer's package on PYTHONPATH. Everything but the
reading of the weights is the loader's own: phases, model, first token. The exit status is the loader's; 2 for a peer
that does not run here, with the reason as the last line.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time

_STARTED_NS = time.monotonic_ns()

from collections.abc import Callable, Sequence  # noqa: E402  the instant above comes before what costs something
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

Weights = dict[str, Any]


def by_fastsafetensors(paths: Sequence[str]) -> Weights:
    with import_module("fastsafetensors").fastsafe_open(list(paths), device="cpu", nogds=True) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping


def by_runai_streamer(paths: Sequence[str]) -> Weights:
    with import_module("runai_model_streamer").SafetensorsStreamer() as streamer:
        streamer.stream_files(list(paths))
        return dict(streamer.get_tensors())


def by_safetensors_prefetch(paths: Sequence[str]) -> Weights:
    safetensors, torch = import_module("safetensors"), import_module("torch")
    if not hasattr(safetensors.safe_open, "prefetch"):
        raise RuntimeError(f"safetensors {safetensors.__version__} has no prefetch; 0.9.0rc1 is the first to have it")
    if not torch.cuda.is_available():
        raise RuntimeError("safetensors' prefetch loads to a CUDA device, and this host has none")
    weights: Weights = {}
    for path in paths:
        with safetensors.safe_open(path, framework="pt") as file, file.prefetch(device="cuda:0") as loader:
            weights.update(loader)
    return weights


PEERS: dict[str, Callable[[Sequence[str]], Weights]] = {
    "fastsafetensors": by_fastsafetensors,
    "Run:ai model streamer": by_runai_streamer,
    "safetensors prefetch": by_safetensors_prefetch,
}


def shards(model: str) -> list[str]:
    """Return the model's safetensors files, in the order of its index."""
    folder = Path(model)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [str(folder / name) for name in dict.fromkeys(names)]
    return [str(path) for path in sorted(folder.glob("*.safetensors"))]


def main(arguments: list[str]) -> int:
    peer, loader, *rest = arguments
    spec = importlib.util.spec_from_file_location("slm_load", loader)
    assert spec
    assert spec.loader
    slm_load: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slm_load)

    def load_model(torch: Any, transformers: Any, options: Any) -> Any:
        try:
            weights = PEERS[peer](shards(options.model))
            config = transformers.AutoConfig.from_pretrained(options.model)
            model_class = getattr(transformers, config.architectures[0])
            dtype = config.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
            return model_class.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
        except Exception as error:
            raise slm_load.LoadError(f"{peer}: {slm_load.one_line(error)}") from error

    slm_load.load_model = load_model
    slm_load._INTERPRETER_NS = _STARTED_NS
    sys.argv = [loader, *rest]
    return int(slm_load.main())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
