"""The cost of compiling kernels at each start: two warm runs share a cache of kernels, which the first one fills.

Every sample begins with an empty home, like a service without a lasting one, so its first token includes that work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...host.errors import SettingError
from ...host.kernel_caches import CACHES, held_in, variables
from ..loader.events import phases
from ..loader.process import Loader, Observation, observe, private_home
from . import page_cache

TOLD = ("first_token", "second_token")
"""The phases in which kernels are compiled and loaded."""


def profile_kernels(
    loader: Loader,
    files: Sequence[page_cache.PathLike],
    run: Callable[[Loader], Observation] = lambda loader: observe(loader, lambda pid: None),
) -> dict[str, Any]:
    """Return the `kernels` of the result document; where it fails in any way, `problem` says why and the run goes on.

    `loader` is the one that makes samples, with its model; `files` are the model's. `compiling` and `kept` have seconds
    by phase; `kept` is null where the first run stored nothing. ControllerGone passes through.
    """
    try:
        # This home of the loader's user holds the cache and is removed afterwards; each run also has an empty one of
        # its own.
        with private_home(loader) as folder:
            sharing = replace(loader, env=(*loader.env, *variables(CACHES, folder).items()), writable=(folder,))
            page_cache.warm(files)
            compiling = _seconds(run(sharing))
            held = held_in(folder)
            kept = _seconds(run(sharing)) if held.files else None
    except (SettingError, OSError) as error:
        return {"problem": str(error)}
    if isinstance(compiling, str) or isinstance(kept, str):
        return {"problem": next(each for each in (compiling, kept) if isinstance(each, str))}
    return {"problem": None, "files": held.files, "bytes": held.bytes, "compiling": compiling, "kept": kept}


def _seconds(run: Observation) -> dict[str, float] | str:
    """Return the seconds of each phase that involves kernels, or why there are none."""
    if run.problem:
        return f"the loader with kept kernels failed: {run.problem}"
    return {phase.name: phase.seconds for phase in phases(run.events) if phase.name in TOLD}
