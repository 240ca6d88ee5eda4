"""What each new container makes anew since it lies in the container's own layer, and what would keep it."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CACHES = re.compile(
    r"(?P<folder>.*?/(?:\.nv|\.triton|torchinductor_[^/]+|\.cache/(?:vllm|flashinfer|torch|huggingface|numba|triton)))/"
)
"""Folders in which engines and drivers keep what they compile or download (host/kernel_caches.py)."""
_LEAST_MODULES = 50


def find_remade(own: Iterable[str]) -> dict[str, int]:
    """Return the known caches among a container's own files: how many files were opened in each folder."""
    found: dict[str, int] = {}
    for path in own:
        cache = _CACHES.match(path)
        if cache:
            found[cache["folder"]] = found.get(cache["folder"], 0) + 1
    return found


def remade_notes(name: str, own: Iterable[str], compiled: int) -> list[str]:
    """Return as sentences what each new container makes anew, with the options that would keep it.

    The options are docker's and podman's; docs/containers.md has them as lines for compose and a Quadlet.
    """
    volumes = [
        f"--volume {name}-{_word(folder)}:{folder} ({count} files)" for folder, count in find_remade(own).items()
    ]
    notes = []
    if volumes:
        notes.append(
            f"container: each new container makes these anew, in a layer that goes with it; what keeps them:"
            f" {', '.join(volumes)}."
        )
    if compiled >= _LEAST_MODULES:
        notes.append(
            f"container: each new container compiles {compiled} modules; compile them in the image (python -m"
            " compileall), or keep them: --env PYTHONPYCACHEPREFIX=/var/cache/pycache"
            f" --volume {name}-pycache:/var/cache/pycache."
        )
    return notes


def _word(folder: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", folder.rpartition("/")[2]).strip("-") or "cache"
