"""The design of a sweep: arms as data, which of them this host can run, and the random order of each block."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..host.errors import SettingError
from ..host.files import Host
from ..host.validate import suggest
from ..settings.kernel.hugetlb import PoolSpec, parse_pool_name, read_pool
from ..settings.kinds.memory_guard import Guard
from ..settings.kinds.pools import check_pools, parse_pools, plan_pools
from ..settings.kinds.thp import parse_thp, plan_knobs
from ..settings.state.changes import Change

REFERENCE = "stock"
CONTROL = "stock-again"
WANTED = ("cold", "warm")
"""Within a cell the warm run follows the cold one, so it reads the page cache that its own arm's load left."""

MEASUREMENTS = ("full", "weights")
"""Each sample is of a fresh process, from its start on, or of a template's child, which only loads the weights."""

DTYPES = ("auto", "float32", "float16", "bfloat16")

_POOL_PREFIX = "hugepages."
_KEYS = ("name", "about", "thp", "pool", "env", "first_token")
_REPLAY = ("none", "together", "ahead")
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]{0,39}", re.ASCII)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
_GLIBC_HUGETLB = "glibc.malloc.hugetlb"
_GLIBC_HUGETLB_SINCE = (2, 35)


class Cell(NamedTuple):
    """One arm with one dtype: the unit that a block orders at random."""

    arm: str
    dtype: str


@dataclass(frozen=True)
class BlockDesign:
    """What one block measures: how, which cells, and how many pairs of cold and warm a cell."""

    measurement: str
    cells: tuple[Cell, ...]
    pairs: int = 1

    def trials(self) -> Counter[tuple[str, str, str, str]]:
        """Count the samples of each arm, dtype, wanted kind and measurement in a complete block."""
        return Counter(
            {(cell.arm, cell.dtype, wanted, self.measurement): self.pairs for cell in self.cells for wanted in WANTED}
        )


@dataclass(frozen=True)
class Arm:
    """One setting under test; what it does not name stays as the host had it before the sweep.

    `thp` maps knob names to values, `env` is given only to the loader's process. `bytecode` gives it a cache for
    modules that have none, `kernels` one for the GPU kernels that it compiles; `replay` reads what it will read:
    `together` with it, or `ahead` of it.
    """

    name: str
    about: str = ""
    thp: Mapping[str, str] = field(default_factory=dict)
    pools: list[PoolSpec] = field(default_factory=list)
    env: Mapping[str, str] = field(default_factory=dict)
    bytecode: bool = False
    replay: str = "none"
    kernels: bool = False

    @property
    def is_first_token(self) -> bool:
        """Return whether it acts on the whole start, imports included."""
        return self.bytecode or self.kernels or self.replay != "none"

    def settings(self) -> dict[str, str]:
        """Return the knobs this arm sets, by flat name, with their values as text."""
        return {**self.thp, **{pool.name: str(pool.count) for pool in self.pools}}

    def as_dict(self) -> dict[str, Any]:
        told = {"name": self.name, "about": self.about, "settings": self.settings(), "env": dict(self.env)}
        if self.is_first_token:
            told["first_token"] = {"bytecode": self.bytecode, "kernels": self.kernels, "replay": self.replay}
        return told

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> Arm:
        """Parse what `as_dict` returned; ValueError, TypeError, KeyError or SettingError for anything else."""
        settings = stored["settings"].items()
        pools = [parse_pool_name(name, int(count)) for name, count in settings if name.startswith(_POOL_PREFIX)]
        thp = {name: value for name, value in settings if not name.startswith(_POOL_PREFIX)}
        start = _first_token(stored["name"], stored.get("first_token"))
        return Arm(stored["name"], stored["about"], thp, pools, dict(stored["env"]), **start)


def parse_arms(settings: object) -> list[Arm]:
    """Parse the user's `sweep_arms`: a list of `{name, about, thp, pool, env, first_token}`.

    The arms `stock` and `stock-again` are required and must set nothing: they are the reference and the control. Raises
    SettingError for anything else.
    """
    if not isinstance(settings, Sequence) or isinstance(settings, str):
        raise SettingError("sweep_arms", "a list of arms", repr(settings), "Each arm is one entry.", "write a list.")
    arms = [_parse_arm(item) for item in settings]
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingError(
            "sweep_arms", "each name once", ", ".join(twice), "Samples are told apart by it.", "rename one of them."
        )
    for name in (REFERENCE, CONTROL):
        arm = next((arm for arm in arms if arm.name == name), None)
        if arm is None or arm.settings() or arm.env or arm.is_first_token:
            raise SettingError(
                "sweep_arms",
                f"an arm named {name} that sets nothing",
                "none" if arm is None else "one that sets something",
                "Every arm is compared with the host as it was, which is measured twice to know the noise.",
                f"add `- name: {name}` to sweep_arms.",
            )
    return arms


def _parse_arm(item: object) -> Arm:
    if not isinstance(item, Mapping):
        raise SettingError("sweep_arms", "{name, ...}", repr(item), "An arm is a mapping.", "give it a name.")
    name = item.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SettingError(
            "sweep_arms",
            "a name of lower-case letters, digits, dots, dashes and plus signs, up to 40",
            repr(name),
            "It names the arm in samples, tables and pictures.",
            "rename the arm.",
        )
    knob = f"sweep_arms.{name}"
    unknown = sorted(set(map(str, item)) - set(_KEYS))
    if unknown:
        raise SettingError(
            knob,
            f"only {', '.join(_KEYS)}",
            ", ".join(unknown),
            f"An arm has no such key{suggest(unknown, _KEYS)}.",
            "correct it.",
        )
    about = item.get("about") or ""
    if not isinstance(about, str) or len(about) > 200:
        raise SettingError(
            knob, "a sentence of up to 200 characters", repr(about)[:80], "`about` is text.", "shorten it."
        )
    pool = item.get("pool")
    return Arm(
        name=name,
        about=about,
        thp=parse_thp(item.get("thp")),
        pools=parse_pools([pool] if pool else []),
        env=_env(knob, item.get("env")),
        **_first_token(name, item.get("first_token")),
    )


def _first_token(arm: str, value: object) -> dict[str, Any]:
    """Parse `{bytecode, kernels: true|false, replay: none|together|ahead}`; an omitted entry is off."""
    off = {"bytecode": False, "kernels": False, "replay": "none"}
    if value is None:
        return off
    if isinstance(value, Mapping) and not set(value) - set(off):
        asked = {**off, **value}
        are_flags = isinstance(asked["bytecode"], bool) and isinstance(asked["kernels"], bool)
        if are_flags and asked["replay"] in _REPLAY and asked != off:
            return asked
    raise SettingError(
        f"sweep_arms.{arm}.first_token",
        f"bytecode or kernels (true, false) or replay ({', '.join(_REPLAY)}), one of them at least",
        repr(value)[:80],
        "These are what can make a start sooner without another setting.",
        "correct it.",
    )


def _env(knob: str, value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingError(f"{knob}.env", "a mapping", repr(value), "It maps names to values.", "write NAME: value.")
    env = {}
    for name, content in value.items():
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise SettingError(
                f"{knob}.env",
                "a name of letters, digits and underscores",
                repr(name),
                "No process could read it.",
                "rename.",
            )
        if isinstance(content, int) and not isinstance(content, bool):
            content = str(content)
        if not isinstance(content, str) or not content.isprintable() or len(content) > 1000:
            raise SettingError(
                f"{knob}.env.{name}",
                "one line of text",
                repr(content)[:80],
                "YAML turns some unquoted words into booleans, and a value is one line.",
                "put the value in quotes.",
            )
        env[name] = content
    return env


def parse_dtypes(value: object) -> list[str]:
    """Parse the user's `sweep_dtypes`; `auto` is the dtype that the weights are stored in."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if isinstance(value, Sequence) and is_list and value and all(item in DTYPES for item in value):
        return list(dict.fromkeys(map(str, value)))
    raise SettingError(
        "sweep_dtypes",
        f"a list of {', '.join(DTYPES)}",
        repr(value)[:80],
        "The loader knows these.",
        "correct the list.",
    )


def distinct_dtypes(dtypes: Sequence[str], stored: str) -> tuple[list[str], list[dict[str, str]]]:
    """Return dtypes that are different loads of a model stored as `stored`, and `{arm, why}` for one that is not.

    In the dtype that they are stored in, the weights stay a mapping of their file, as with `auto`.
    """
    if "auto" not in dtypes or stored not in dtypes:
        return list(dtypes), []
    why = f"This model's weights are stored as {stored}: it is the same load as `auto`."
    return [dtype for dtype in dtypes if dtype != stored], [{"arm": stored, "why": why}]


def feasible_arms(
    host: Host, arms: Iterable[Arm], guard: Guard, glibc: str | None = None
) -> tuple[list[Arm], list[dict[str, str]]]:
    """Return the arms worth measuring on this host, and `{arm, why}` for each that is not. Reads only.

    Left out is what the host cannot do, and what would equal `stock` under another name: an arm whose settings are in
    force already and that gives the loader nothing. `glibc` is a version as text, this process's own by default.
    """
    possible, left_out = [], []
    for arm in arms:
        try:
            check_pools(host, arm.pools)
            guard.check(host, arm.pools)
            refuse_smaller_pools(host, arm.pools)
            _check_allocator(arm, glibc_version() if glibc is None else glibc)
            changes = changes_to(host, arm)
        except SettingError as error:
            left_out.append(
                {"arm": arm.name, "why": f"{error.knob}: wanted {error.wanted}; found {error.found}. {error.why}"}
            )
        else:
            if arm.name in (REFERENCE, CONTROL) or changes or arm.env or arm.is_first_token:
                possible.append(arm)
            else:
                left_out.append({"arm": arm.name, "why": f"This host has its settings already: it is {REFERENCE}."})
    return possible, left_out


def refuse_smaller_pools(host: Host, pools: Iterable[PoolSpec]) -> None:
    """Raise SettingError where an arm would shrink a pool: programs that rely on its pages would get none meanwhile."""
    for spec in pools:
        pool = read_pool(host, spec.size_bytes, spec.node)
        if spec.count < pool.persistent:
            raise SettingError(
                spec.name,
                f"{spec.count} pages",
                f"{pool.persistent} pages, {pool.total - pool.free} of them in use",
                "No arm makes a pool smaller, since others count on its pages.",
                "give the arm at least as many pages, or leave it out.",
            )


def changes_to(host: Host, arm: Arm) -> list[Change]:
    """Return the changes from the host's state to the arm's settings; its pools must have passed check_pools.

    Raises SettingError for a THP value that the kernel does not offer, and for a pool that would shrink.
    """
    refuse_smaller_pools(host, arm.pools)
    return [*plan_knobs(host, arm.thp), *plan_pools(host, arm.pools)]


def glibc_version() -> str:
    """Return the version, such as `2.36`; empty where the C library is not glibc and so has no tunables of glibc's."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return ""
    return version if name == "glibc" else ""


def _check_allocator(arm: Arm, glibc: str) -> None:
    """Raise SettingError where glibc does not know the arm's tunable: it ignores it, so the arm would equal `stock`."""
    tunables = arm.env.get("GLIBC_TUNABLES", "")
    found = tuple(int(part) for part in glibc.split(".")[:2] if part.isdigit())
    if _GLIBC_HUGETLB in tunables and found < _GLIBC_HUGETLB_SINCE:
        raise SettingError(
            "GLIBC_TUNABLES",
            tunables,
            f"glibc {glibc}" if glibc else "a C library that is not glibc",
            "The tunable came with glibc 2.35 and is ignored before.",
            "leave the arm out.",
        )


def cells(arms: Iterable[Arm], dtypes: Iterable[str]) -> list[Cell]:
    """Return every arm with every dtype."""
    dtypes = list(dtypes)
    return [Cell(arm.name, dtype) for arm in arms for dtype in dtypes]


def order(seed: int, block: int, cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells of a block in random order, from the seed and the block's number alone.

    So a block that is repeated or resumed, under any Python, has the same order, and no interruption can choose another
    one.
    """

    def ticket(cell: Cell) -> bytes:
        return hashlib.sha256(f"{seed}\n{block}\n{cell.arm}\n{cell.dtype}".encode()).digest()

    return sorted(cells, key=ticket)
