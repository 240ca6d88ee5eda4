"""Bytecode that all starts of a sweep share, also the unchanged ones, where the host has none for the loader's imports.

Compiling the same modules at every start takes time on which no memory setting acts: 5.8 s of CPU for 1,735 modules on
a GPU host whose image comes without bytecode. The loader's own interpreter fills the cache, as the loader's user, in a
folder of that user's within the measurement's home; root neither reads nor runs what lies in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..host.errors import SettingError
from ..host.files import Host
from ..host.rmtree import remove_tree
from ..measuring.imports.profile import profile_imports
from ..measuring.loader.process import observe
from ..measuring.probes import page_cache
from ..measuring.protocol import Subject
from ..measuring.sample import Trial

LEAST_SAVING_S = 0.5
"""CPU seconds a start: with less to save, no cache is made."""
_WARM = Trial(0, "warm")


@dataclass(frozen=True)
class SharedBytecode:
    """The cache for a sweep of this subject; `folder` is its place on the host."""

    subject: Subject
    folder: str

    def share(self, host: Host) -> dict[str, Any] | None:
        """Fill the cache where it saves each start something: `{folder, modules, saving_s}`; None where it does not.

        Takes some warm starts. A loader that fails in them reports why in its samples, so nothing is raised here.
        """
        remove_tree(host.path(self.folder))
        loader = self.subject.loader_of(_WARM)
        lacking = profile_imports(loader, self.subject.files).get("bytecode")
        if not lacking or lacking["saving_s"] < LEAST_SAVING_S:
            return None
        modules = lacking["missing"] + lacking["stale"] + lacking["unreadable"]
        shared = {"folder": self.folder, "modules": modules, "saving_s": round(lacking["saving_s"], 3)}
        self.ensure(host, shared)
        return shared

    def ensure(self, host: Host, shared: Mapping[str, Any] | None) -> None:
        """Make the cache that the sweep was planned with again, if a purge has removed it since."""
        if not shared or host.exists(self.folder):
            return
        folder, account = host.path(self.folder), self.subject.loader.account
        os.mkdir(folder, mode=0o700)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
        page_cache.warm(self.subject.files)
        observe(using(host, self.subject, shared).loader_of(_WARM), lambda pid: None)


def using(host: Host, subject: Subject, shared: Mapping[str, Any] | None) -> Subject:
    """Return the subject with its starts using this cache, as `share` returned it; unchanged where there is none.

    SettingError where it is gone: some samples of the sweep would compile and others not.
    """
    if not shared:
        return subject
    folder = host.path(shared["folder"])
    if not folder.is_dir() or folder.is_symlink():
        raise SettingError(
            "sweep_share_bytecode",
            f"the cache that the sweep was planned with, {shared['folder']}",
            "none",
            "It was removed since, and a start without it is not comparable with those before.",
            "run the sweep again; it fills the cache anew.",
        )
    env = (*subject.loader.env, ("PYTHONPYCACHEPREFIX", str(folder)))
    return replace(subject, loader=replace(subject.loader, env=env))
