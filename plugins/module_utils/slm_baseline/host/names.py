"""One machine under two inventory names: a run must want the same values under both."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any

from .errors import SettingError, os_problem
from .files import Host
from .paths import NAMES, VOLATILE


def refuse_second_tuning(
    host: Host, run: Mapping[str, Any] | None, wanted: Mapping[str, str], whole: bool = False
) -> None:
    """Record what `run` wants of this machine; SettingError where it wants other values under another inventory name.

    `wanted` maps settings to values: everything that is wanted where it is `whole`, else what one setter knows. It is
    stored in /run under the run's own `host` before anything is set. The second name is refused, so that no name
    undoes what another one set.
    """
    name = str((run or {}).get("host") or "")
    if not run or not name:
        return
    try:
        os.makedirs(host.path(VOLATILE), mode=0o755, exist_ok=True)
        lock = os.open(host.path(f"{NAMES}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise os_problem("run lock", NAMES, error) from error
    try:
        # Held only while one small file is read and written.
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _known(host, str(run["id"]))
        for other, theirs in known.items():
            if other != name:
                _compare(name, wanted, other, theirs["values"], whole and theirs["whole"])
        own = known.get(name, {"values": {}, "whole": False})
        known[name] = {"values": {**own["values"], **wanted}, "whole": whole or own["whole"]}
        host.write_durably(NAMES, json.dumps({"run_id": run["id"], "names": known}).encode(), mode=0o600)
    finally:
        os.close(lock)


def _known(host: Host, run_id: str) -> dict[str, dict[str, Any]]:
    """Return what this run wants of the machine, by name; nothing of another run or of a damaged record."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        found = json.loads(host.read(NAMES))
        if found["run_id"] == run_id:
            return {
                str(name): {"values": dict(each["values"]), "whole": bool(each["whole"])}
                for name, each in found["names"].items()
            }
    return {}


def _compare(name: str, wanted: Mapping[str, str], other: str, theirs: Mapping[str, str], whole: bool) -> None:
    """Raise SettingError where two names want different values.

    A setting that one of them does not mention differs only where both are whole.
    """
    knobs = wanted.keys() | theirs.keys() if whole else wanted.keys() & theirs.keys()
    differ = sorted(knob for knob in knobs if wanted.get(knob) != theirs.get(knob))
    if differ:
        knob = differ[0]
        more = f" ({len(differ) - 1} more differ)" if len(differ) > 1 else ""
        raise SettingError(
            "inventory",
            "one tuning for one machine",
            f"{knob} {theirs.get(knob, 'unset')} as {other}, {wanted.get(knob, 'unset')} as {name}{more}",
            "Both names lead to this machine, and the last one would win. Nothing was changed under this name.",
            "take one name out of the group, or give both the same variables.",
        )
