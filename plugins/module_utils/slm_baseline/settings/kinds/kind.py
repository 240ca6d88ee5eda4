"""The interface of a kind of setting: all other code loops over the kinds and knows none of them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Union

from ...host.errors import SettingError
from ...host.files import Host
from ..boot.tmpfiles import Line
from ..state.losses import Limits
from ..state.ownership import Ours

if TYPE_CHECKING:  # An audit compiles no code of changes for a name of a type.
    from ..state.changes import Change

Reading = Union[str, SettingError]
"""A knob's value as text, or why it cannot be read."""


class PriorState(Protocol):
    """The prior state of one item: a knob, a pool with its nodes, a mount."""

    def values(self) -> dict[str, str]:
        """Return values as text by flat knob name; a pool has one for each node too."""

    def to_json(self) -> Any:
        """Return the JSON form that `Kind.recorded` reads back."""

    def now(self, host: Host) -> PriorState | None:
        """Return the current state of the same item, None where the host no longer has it; OSError or SettingError."""

    def rollback_target(self, found: Any, ours: Ours) -> PriorState | None:
        """Return the state that a rollback restores: this one where what is `found` is ours, the found one elsewhere.

        None where nothing is ours and a rollback cannot move it.
        """

    def change(self, host: Host, limits: Limits = ...) -> Change | None:
        """Return the change from the found state to this one, None where they are equal; OSError or SettingError.

        LossError where it would cost others what `limits` do not accept.
        """


class Kind(Protocol):
    """What a user wants of one kind of setting. `Thp()`, with nothing wanted, stands for the kind itself."""

    key: ClassVar[str]
    """The kind's name in snapshots, and its option of memory_info."""

    @classmethod
    def parse(cls, host: Host, given: object) -> Kind:
        """Parse the user's variable; SettingError for anything invalid in it."""

    @classmethod
    def recorded(cls, key: str, value: Any) -> PriorState:
        """Parse a state from a snapshot; TypeError, ValueError, KeyError or AttributeError where it is damaged."""

    @classmethod
    def knob_of(cls, target: str, default_page_bytes: int) -> str | None:
        """Return the flat name of a kernel file's knob, None where it is not of this kind."""

    @classmethod
    def boot_values(cls, words: Sequence[tuple[str, str]], default_page_bytes: int) -> dict[str, str]:
        """Return the knobs that a kernel command line (`name`, `value`) sets."""

    @classmethod
    def persisted(cls, host: Host, lines: Sequence[Line]) -> dict[str, tuple[str, str]]:
        """Return what the next boot sets: knob -> (value, `path:line`); `lines` are those of tmpfiles.d."""

    @classmethod
    def facts(cls, host: Host) -> dict[str, Any]:
        """Return the facts of this kind for memory_info, JSON-ready."""

    def values(self) -> dict[str, str]:
        """Return the wanted values as text, by flat knob name."""

    def check(self, host: Host, prior: Mapping[str, Any], ours: Ours = ...) -> None:
        """Raise SettingError, before anything changes, for what this host cannot or should not have."""

    def plan(self, host: Host, prior: Mapping[str, Any], ours: Ours = ...) -> list[Change]:
        """Return the changes for now and for the next boot, in order; `prior` is this kind's recorded state, by key.

        Untouched means as it was before us: what an earlier run of ours set, and is no longer wanted, returns to its
        prior value, unless somebody else has changed it since, as `ours` shows. LossError for what it would cost
        others.
        """

    def read(self, host: Host) -> dict[str, Reading]:
        """Read every current value of this kind on the host, including the wanted knobs."""

    def capture(self, host: Host, known: Container[str] = ()) -> dict[str, PriorState]:
        """Read the current state, by key, of everything that this kind could ever change, without the keys `known`."""

    def places(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return the files that this kind writes for these keys, and the folders that it makes besides theirs."""
