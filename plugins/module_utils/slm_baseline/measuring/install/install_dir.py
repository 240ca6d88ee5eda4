"""The folder that the measurement works in: whose it is, and what of it may be emptied and removed.

A home has a mark, a file that is written when we make the folder or take an empty one. Only marked folders are emptied
or removed. The host keeps a record of its homes, so that a purge finds each, wherever it was put.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from ...host.errors import SettingError
from ...host.files import Host, missing_folders, temporary_name
from ...host.paths import INSTALL_DIRS, STATE
from ...host.rmtree import remove_folder_if_empty
from ...host.trust import require_trusted

HOME_KNOB = "slm_benchmark_home"
HOME_MARK = ".slm-baseline"
_MARK_TEXT = b"Made by slm-baseline, which empties and removes what it put into this folder.\n"


def require_home(host: Host, home: str) -> None:
    """Raise SettingError unless `home` is or may become ours: missing or empty, on a path that only root can write."""
    require_trusted(host, home, HOME_KNOB)
    found = [name for name in _entries(host, home) if name != temporary_name(HOME_MARK)]
    if found and not is_marked(host, home):
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise SettingError(
            HOME_KNOB,
            "a folder of slm-baseline's own: a new one, an empty one, or one with its mark",
            f"{home}, which holds {shown} and no {HOME_MARK}",
            "What lies in it is removed before a measurement and by a purge, so it must belong to nobody else.",
            f"name a new folder in it, such as {home}/slm-baseline.",
        )


def is_marked(host: Host, home: str) -> bool:
    """Return whether a folder has our mark: a plain file of root's."""
    try:
        status = os.lstat(host.path(f"{home}/{HOME_MARK}"))
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid in (0, os.geteuid())


def make_home(host: Host, home: str) -> None:
    """Make `home` on the host, recorded, marked and open to the loader's user, however strict our umask is.

    SettingError for one that is not ours. It is recorded before it is made and marked before anything is put into it,
    so after an interruption a purge finds everything, and nothing is mistaken for another user's.
    """
    require_home(host, home)
    if is_marked(host, home) and home in recorded_homes(host):
        return
    missing = missing_folders(host, home)
    record = _read_record(host)
    made = record.get(home, [])
    _write_record(host, {**record, home: [*made, *(folder for folder in missing if folder not in made)]})
    for folder in map(host.path, missing):
        # Fails where another process made it first, as anybody may in a shared folder.
        folder.mkdir()
        folder.chmod(0o755)
    # Whoever may write the folder above may have made a missing one, and removed it again, since we looked.
    require_trusted(host, home, HOME_KNOB, must_exist=True)
    # Rejects an empty folder that was filled since we checked.
    require_home(host, home)
    host.write_durably(f"{home}/{HOME_MARK}", _MARK_TEXT)


def recorded_homes(host: Host) -> list[str]:
    """Return every home that was made on this host and not removed since."""
    return sorted(_read_record(host))


def homes_of(host: Host, named: str) -> list[str]:
    """Return what a purge has to empty: the recorded homes and the named one, as far as they are ours."""
    homes = [home for home in dict.fromkeys((*recorded_homes(host), named)) if is_marked(host, home)]
    for home in homes:
        require_trusted(host, home, HOME_KNOB)
    return homes


def remove_home(host: Host, home: str) -> None:
    """Remove our mark, and the folders that we made where they are empty."""
    for name in (temporary_name(HOME_MARK), HOME_MARK):
        host.remove_durably(f"{home}/{name}")
    for folder in sorted(_read_record(host).get(home, []), key=len, reverse=True):
        remove_folder_if_empty(host.path(folder))


def forget_homes(host: Host, homes: Sequence[str]) -> None:
    """Remove homes from the record, and the record with the last one."""
    record = {home: folders for home, folders in _read_record(host).items() if home not in homes}
    if record:
        _write_record(host, record)
    else:
        host.remove_durably(INSTALL_DIRS)


def _entries(host: Host, home: str) -> list[str]:
    """List a folder; SettingError where the path is something else, since that is not ours either."""
    try:
        return sorted(os.listdir(host.path(home)))
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        why = "The measurement puts its files into it."
        raise SettingError(
            HOME_KNOB, "a folder", f"{home} or a part of it is a file", why, "name another one."
        ) from error


def _read_record(host: Host) -> dict[str, list[str]]:
    """Read homes and the folders made for each; SettingError for a damaged record, which must not be discarded."""
    text = host.read_or_none(INSTALL_DIRS)
    if text is None:
        return {}
    try:
        document: Any = json.loads(text)
        if isinstance(document, Mapping) and all(_is_entry(host, *entry) for entry in document.items()):
            return {str(home): list(folders) for home, folders in document.items()}
    except (ValueError, RecursionError):
        pass
    raise SettingError(
        INSTALL_DIRS,
        "the folders that slm-baseline made on this host",
        "a damaged file",
        "Without it a purge cannot tell what to remove.",
        "remove the file, and name each slm_benchmark_home that was in use when you purge.",
    )


def _is_entry(host: Host, home: object, folders: object) -> bool:
    """Return whether an entry names folders as we write them: the home itself or above it."""
    if not isinstance(home, str) or not home.startswith("/") or not isinstance(folders, list):
        return False
    return all(isinstance(folder, str) and f"{home}/".startswith(f"{folder}/") for folder in folders)


def _write_record(host: Host, record: Mapping[str, Sequence[str]]) -> None:
    host.path(STATE).mkdir(mode=0o755, parents=True, exist_ok=True)
    host.write_durably(INSTALL_DIRS, json.dumps(record, indent=1).encode() + b"\n", mode=0o600)
