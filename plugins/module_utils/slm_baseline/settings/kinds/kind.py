"""What a kind of setting offers: everything else loops over the kinds and knows none of them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Union

from ...host.errors import SettingError
from ...host.files import Host
from ..boot.tmpfiles import Line
from ..state.changes import Change
from ..state.losses import Limits
from ..state.ownership import Ours

Reading = Union[str, SettingError]
"""A knob's value as text, or why it cannot be read."""


class PriorState(Protocol):
    """The prior state of one thing: a knob, a pool with its nodes, a mount."""

    def values(self) -> dict[str, str]:
        """Flat knob names and values as text; a pool has one for each node too."""

    def to_json(self) -> Any:
        """What `Kind.recorded` reads back."""

    def now(self, host: Host) -> PriorState | None:
        """The same thing as it is, None where the host has it no more; OSError or SettingError."""

    def rollback_target(self, found: Any, ours: Ours) -> PriorState | None:
        """What a rollback leads to: this state where what is `found` is ours, and the found one elsewhere.

        None where nothing is ours, and nothing that a rollback does can move it.
        """

    def change(self, host: Host, limits: Limits = ...) -> Change | None:
        """What leads from the state found to this one, None where it is found; OSError or SettingError.

        LossError where it would cost others what `limits` do not accept.
        """


class Kind(Protocol):
    """What a user wants of one kind of setting. `Thp()`, with nothing wanted, stands for the kind itself."""

    key: ClassVar[str]
    """Its name in snapshots, and its option of memory_info."""

    @classmethod
    def parse(cls, host: Host, given: object) -> Kind:
        """From the user's variable; SettingError for anything odd in it."""

    @classmethod
    def recorded(cls, key: str, value: Any) -> PriorState:
        """From a snapshot; TypeError, ValueError, KeyError or AttributeError where it is damaged."""

    @classmethod
    def knob_of(cls, target: str, default_page_bytes: int) -> str | None:
        """The flat name of the knob that a kernel file is, None where it is none of this kind."""

    @classmethod
    def boot_values(cls, words: Sequence[tuple[str, str]], default_page_bytes: int) -> dict[str, str]:
        """Knobs that a kernel command line (`name`, `value`) sets."""

    @classmethod
    def persisted(cls, host: Host, lines: Sequence[Line]) -> dict[str, tuple[str, str]]:
        """What the next boot sets: knob -> (value, `path:line`); `lines` are those of tmpfiles.d."""

    @classmethod
    def facts(cls, host: Host) -> dict[str, Any]:
        """What memory_info tells of this kind, JSON-ready."""

    def values(self) -> dict[str, str]:
        """The wanted values as text, by flat knob name."""

    def check(self, host: Host, prior: Mapping[str, Any], ours: Ours = ...) -> None:
        """SettingError, before anything is done, for what this host cannot or should not have."""

    def plan(self, host: Host, prior: Mapping[str, Any], ours: Ours = ...) -> list[Change]:
        """What is to be done now and for the next boot, in order; `prior` is this kind's recorded state, by key.

        Untouched means as it was before us: what an earlier run of ours set, and nobody wants any more, returns to its
        prior value, unless somebody else has changed it since: `ours` tells. LossError for what it would cost others.
        """

    def read(self, host: Host) -> dict[str, Reading]:
        """Every value of this kind that the host has now, the wanted ones among them."""

    def capture(self, host: Host, known: Container[str] = ()) -> dict[str, PriorState]:
        """The state now, by key, of all that this kind could ever change; without the keys `known`."""

    def places(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        """Files that this kind writes for these keys, and folders that it makes beside those of the files."""
