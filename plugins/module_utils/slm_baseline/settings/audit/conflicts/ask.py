"""Asking the programs themselves: TuneD for the result of its profiles, systemd for the files and units that it uses.

Only on a running machine, only programs that nobody but root can replace, and only where our own reading has found
something: most hosts need no such call.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from subprocess import SubprocessError

from ....host.files import Host
from ....host.subprocesses import run_bounded
from ....host.trust import find_program, search_path, untrusted
from . import tuned_probe
from .conflict import Conflict

_LIMIT_S = 5.0
_HEADER = re.compile(r"^# (/\S+)$", re.MULTILINE)
_LISTED = {"sysctl": "sysctl.d", "tmpfiles.d": "tmpfiles.d"}
_UNIT = re.compile(r"unit ([^/\s]+\.service)", re.ASCII)
_GONE = frozenset(("masked", "not-found"))


def ask_tuned(host: Host, names: Sequence[str]) -> list[Mapping[str, object]] | None:
    """Return the units that TuneD's own loader makes of these profiles here; None where it cannot be asked."""
    program = find_program(host, "tuned")
    shebang = host.read_or_none(program).partition("\n")[0] if program else ""  # type: ignore[union-attr]
    interpreter = shebang[2:].split()[0] if shebang.startswith("#!/") else ""
    if not interpreter or untrusted(host, interpreter):
        return None
    source = inspect.getsource(tuned_probe)
    answer = _answer(host, [interpreter, "-I", "-c", source, *names])
    try:
        units = json.loads(answer or "null")
    except ValueError:
        return None
    return units if isinstance(units, list) and all(_is_unit(unit) for unit in units) else None


def _is_unit(unit: object) -> bool:
    return isinstance(unit, dict) and {"name", "type", "options"} <= set(unit)


def disproved(host: Host, found: Sequence[Conflict]) -> set[Conflict]:
    """Return the conflicts that systemd refutes: a file that it does not read, a unit that it would not start."""
    wrong: set[Conflict] = set()
    for kind, name in _LISTED.items():
        ours = [one for one in found if one.kind == kind and f"/{name}/" in one.path]
        files = _files(host, name) if ours else None
        wrong |= {one for one in ours if files is not None and one.path not in files}
    for one in found:
        match = _UNIT.fullmatch(one.kind)
        if match and one.path.endswith((".service", ".conf")):
            unit = _unit(host, match[1])
            paths = f"{unit.get('FragmentPath', '')} {unit.get('DropInPaths', '')}".split()
            if unit.get("LoadState") in _GONE or (unit.get("LoadState") == "loaded" and one.path not in paths):
                wrong.add(one)
    return wrong


def _files(host: Host, name: str) -> set[str] | None:
    """Return the files of a folder such as sysctl.d that systemd reads; None where it does not answer."""
    answer = _asked(host, "systemd-analyze", "cat-config", name)
    return set(_HEADER.findall(answer)) if answer else None


def _unit(host: Host, name: str) -> dict[str, str]:
    shown = _asked(host, "systemctl", "show", "--property=LoadState,FragmentPath,DropInPaths", "--", name)
    return dict(line.partition("=")[::2] for line in (shown or "").splitlines())


def _asked(host: Host, name: str, *arguments: str) -> str | None:
    program = find_program(host, name)
    return _answer(host, [program, *arguments]) if program else None


def _answer(host: Host, command: Sequence[str]) -> str | None:
    try:
        done = run_bounded(command, None, {"PATH": search_path(host), "LC_ALL": "C"}, _LIMIT_S)
    except (OSError, SubprocessError):
        return None
    return done.output.decode("utf-8", errors="surrogateescape") if done.returncode == 0 else None
