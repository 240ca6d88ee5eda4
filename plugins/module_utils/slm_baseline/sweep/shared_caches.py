"""Caches that all starts of a sweep share, also the unchanged ones: bytecode, and compiled GPU kernels.

Compiling the same modules and kernels at every start takes time on which no memory setting acts: 5.8 s of CPU for
1,735 modules and 0.45 s for the first token's kernels on a GPU host whose image comes without bytecode. The loader
itself fills the caches, as its own user, in folders of that user's within the measurement's home; root neither reads
nor runs what lies in them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..host.errors import SettingError
from ..host.files import Host
from ..host.kernel_caches import CACHES, variables
from ..host.rmtree import remove_tree
from ..measuring.imports.profile import profile_imports
from ..measuring.loader.process import observe
from ..measuring.probes import page_cache
from ..measuring.probes.kernel_cost import profile_kernels
from ..measuring.protocol import Subject
from ..measuring.sample import Trial

LEAST_SAVING_S = {"bytecode": 0.5, "kernels": 0.05}
"""Seconds a start, of CPU for bytecode and of the first token for kernels: with less to save, no cache is made."""
_WARM = Trial(0, "warm")
Shared = Mapping[str, Mapping[str, Any] | None]
"""The caches of a sweep by name, as `share` returned them; None where there is none of that name."""


@dataclass(frozen=True)
class SharedCaches:
    """The wanted caches for a sweep of this subject, in folders below `home` on the host."""

    subject: Subject
    home: str
    wants_bytecode: bool = True
    wants_kernels: bool = False

    def share(self, host: Host) -> dict[str, dict[str, Any] | None]:
        """Fill each cache that saves each start something; return its `folder`, `saving_s`, and size by its name.

        Takes some warm starts. A loader that fails in them reports why in its samples, so nothing is raised here.
        """
        filled: dict[str, dict[str, Any] | None] = {"bytecode": None, "kernels": None}
        for name, is_wanted, look in (
            ("bytecode", self.wants_bytecode, self._lacking_bytecode),
            ("kernels", self.wants_kernels, self._compiled_kernels),
        ):
            folder = f"{self.home}/{name}"
            remove_tree(host.path(folder))
            subject = _extended(host, self.subject, filled)
            found = look(subject) if is_wanted else None
            if found and found["saving_s"] >= LEAST_SAVING_S[name]:
                cache = {"folder": folder, **found, "saving_s": round(found["saving_s"], 3)}
                self._fill(host, subject, name, cache)
                filled[name] = cache
        return filled

    def ensure(self, host: Host, shared: Shared) -> None:
        """Make the caches that the sweep was planned with again, if a purge has removed them since."""
        for name, cache in shared.items():
            if cache and not host.exists(cache["folder"]):
                self._fill(host, self.subject, name, cache)

    @staticmethod
    def _fill(host: Host, subject: Subject, name: str, cache: Mapping[str, Any]) -> None:
        folder, account = host.path(cache["folder"]), subject.loader.account
        os.mkdir(folder, mode=0o700)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
        page_cache.warm(subject.files)
        observe(_extended(host, subject, {name: cache}).loader_of(_WARM), lambda pid: None)

    @staticmethod
    def _lacking_bytecode(subject: Subject) -> dict[str, Any] | None:
        found = profile_imports(subject.loader_of(_WARM), subject.files).get("bytecode")
        if not found:
            return None
        return {"modules": found["missing"] + found["stale"] + found["unreadable"], "saving_s": found["saving_s"]}

    @staticmethod
    def _compiled_kernels(subject: Subject) -> dict[str, Any] | None:
        found = profile_kernels(subject.loader_of(_WARM), subject.files)
        if found["problem"] or not found["kept"]:
            return None
        return {"files": found["files"], "saving_s": found["compiling"]["first_token"] - found["kept"]["first_token"]}


def using(host: Host, subject: Subject, shared: Shared) -> Subject:
    """Return the subject with its starts using these caches, as `share` returned them.

    SettingError where one is gone: some samples of the sweep would compile and others not.
    """
    for name, cache in shared.items():
        if cache and (not host.path(cache["folder"]).is_dir() or host.path(cache["folder"]).is_symlink()):
            raise SettingError(
                f"sweep_share_{name}",
                f"the cache that the sweep was planned with, {cache['folder']}",
                "none",
                "It was removed since, and a start without it is not comparable with those before.",
                "run the sweep again; it fills the cache anew.",
            )
    return _extended(host, subject, shared)


def remove_shared(host: Host, shared: Shared) -> None:
    """Remove the caches from the host."""
    for cache in shared.values():
        if cache:
            remove_tree(host.path(cache["folder"]))


def _extended(host: Host, subject: Subject, caches: Shared) -> Subject:
    """Return the subject with the environment that its starts find these caches by."""
    env: dict[str, str] = {}
    if bytecode := caches.get("bytecode"):
        env["PYTHONPYCACHEPREFIX"] = str(host.path(bytecode["folder"]))
        if subject.loader.launcher.record():
            # An image's own environment may say that none is written.
            env["PYTHONDONTWRITEBYTECODE"] = ""
    if kernels := caches.get("kernels"):
        env |= variables(CACHES, str(host.path(kernels["folder"])))
    if not env:
        return subject
    # A container has these folders of the host only where they are mounted.
    folders = [str(host.path(cache["folder"])) for cache in caches.values() if cache]
    loader = subject.loader
    loader = replace(loader, env=(*loader.env, *env.items()), writable=(*loader.writable, *folders))
    return replace(subject, loader=loader)
