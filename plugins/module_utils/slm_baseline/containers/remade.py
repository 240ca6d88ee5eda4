"""What each new container makes anew since it lies in the container's own layer, and what would keep it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_CACHES = re.compile(
    r"(?P<folder>.*?/(?:\.nv|\.triton|torchinductor_[^/]+|\.cache/(?:vllm|flashinfer|torch|huggingface|numba|triton)))/"
)
"""Folders in which engines and drivers keep what they compile or download (host/kernel_caches.py)."""
_LEAST_MODULES = 50


@dataclass(frozen=True)
class Written:
    """What a start wrote in a folder: the files, and the seconds of the start in which the first and last was written.

    Other work lies between, and what was computed before the first file was complete lies before: this says when, not
    how long. 0 files have no seconds.
    """

    files: int
    first_s: float = 0.0
    last_s: float = 0.0

    @property
    def words(self) -> str:
        """Return it as part of a sentence."""
        if not self.files:
            return "nothing written in the recorded start"
        what = "1 file" if self.files == 1 else f"{self.files} files"
        return f"{what}, written between second {self.first_s:.1f} and {self.last_s:.1f} of the start"

    def to_json(self) -> dict[str, Any]:
        """Return it as the module's result has it."""
        seconds = (self.first_s, self.last_s) if self.files else (None, None)
        return {"files": self.files, "first_written_s": seconds[0], "last_written_s": seconds[1]}


def find_remade(own: Iterable[str]) -> list[str]:
    """Return the folders of the known caches among a container's own files, each once."""
    found = (_CACHES.match(path) for path in own)
    return list(dict.fromkeys(cache["folder"] for cache in found if cache))


def remade_notes(name: str, written: Mapping[str, Written], compiled: int) -> list[str]:
    """Return as sentences what each new container makes anew, with the options that would keep it.

    The options are docker's and podman's; docs/containers.md has them as lines for compose and a Quadlet.
    """
    volumes = [f"--volume {name}-{_word(folder)}:{folder} ({each.words})" for folder, each in written.items()]
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


def seconds_notes(written: Mapping[str, Written]) -> list[str]:
    """Return as one sentence when each of these caches was written in the recorded start; none where nothing was."""
    told = [f"{folder}: {each.words}" for folder, each in written.items()]
    return [f"container: in the recorded start without them, {'; '.join(told)}."] if told else []


def _word(folder: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", folder.rpartition("/")[2]).strip("-") or "cache"
