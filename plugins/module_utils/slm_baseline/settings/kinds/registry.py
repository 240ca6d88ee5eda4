"""The kinds of settings, in the order in which the kernel needs them, and functions over all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...host.errors import SettingError
from ...host.files import Host
from ..boot.tmpfiles import tmpfiles_lines
from .kind import Kind, Reading
from .mounts import Mounts
from .overcommit import Overcommit
from .pools import Pools
from .thp import Thp

KINDS: tuple[type[Kind], ...] = (Thp, Pools, Overcommit, Mounts)
"""THP comes first, since switching it on moves vm.min_free_kbytes; mounts come last, since they need a pool's pages.

A restore uses the reverse order.
"""

_WORD = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')

Wanted = Sequence[Kind]
"""A user's whole tuning, or one role's: at most one of each kind."""


def parse_wanted(host: Host, given: Mapping[str, object]) -> list[Kind]:
    """Parse every kind of setting from the user's variables by key; SettingError for the first invalid one."""
    return [kind.parse(host, given.get(kind.key)) for kind in KINDS]


def every_kind(wanted: Wanted) -> list[Kind]:
    """Return what is wanted of each kind, in order; an empty one for those that `wanted` leaves out."""
    return [next((one for one in wanted if type(one) is kind), kind()) for kind in KINDS]


def values_of(wanted: Wanted) -> dict[str, str]:
    """Return the wanted values as text, by flat knob name."""
    return {name: value for kind in wanted for name, value in kind.values().items()}


def knob_of(target: str, default_page_bytes: int) -> str | None:
    """Return the flat knob name of a kernel file's path, or None for a file that no kind sets."""
    return next((name for kind in KINDS for name in [kind.knob_of(target, default_page_bytes)] if name), None)


def boot_values(text: str, default_page_bytes: int) -> dict[str, str]:
    """Return the knobs that a kernel command line sets; Documentation/admin-guide/kernel-parameters.txt."""
    words = command_line_words(text)
    return {knob: value for kind in KINDS for knob, value in kind.boot_values(words, default_page_bytes).items()}


def command_line_words(text: str) -> list[tuple[str, str]]:
    """Return the names and values of a kernel command line, split as by next_arg of lib/cmdline.c.

    Double quotes hold a value together, a dash in a name is an underscore (kernel/params.c), and what follows `--` is
    for init alone.
    """
    words = []
    for word in _WORD.findall(text):
        if word == "--":
            break
        name, _, value = word.strip('"').partition("=")
        words.append((name.replace("-", "_"), value.strip('"')))
    return words


def persisted_values(host: Host) -> dict[str, tuple[str, str]]:
    """Return what the next boot will set: knob -> (value, `path:line`)."""
    lines = tmpfiles_lines(host)
    return {knob: kept for kind in KINDS for knob, kept in kind.persisted(host, lines).items()}


def read_values(host: Host, wanted: Wanted = ()) -> dict[str, Reading]:
    """Return every runtime value on the host, or for a wanted knob the reason why it cannot be read."""
    return {knob: value for kind in every_kind(wanted) for knob, value in kind.read(host).items()}


def runtime_values(host: Host) -> dict[str, str]:
    """Return every runtime value on the host that can be read."""
    return {knob: value for knob, value in read_values(host).items() if not isinstance(value, SettingError)}
