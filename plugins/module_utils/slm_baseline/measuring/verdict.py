"""The verdict on a sample, cold, warm or lukewarm, by rules that each have one threshold and one reason.

docs/measuring.md lists the same rules in the same order; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .loader.replay import ReplayRecord

COLD_RESIDENT_SHARE = 0.01
COLD_OWN_SHARE = 0.95
COLD_NEEDED_SHARE = 0.01
WARM_RESIDENT_SHARE = 0.99
WARM_READ_SHARE = 0.01
WARM_READ_FLOOR_BYTES = 8 << 20
"""1 % of a tiny model is less than one stray fault reads: a whole read-ahead window of the disk."""
_LONGEST_PATH = 200


@dataclass(frozen=True)
class Verdict:
    """A sample's kind, and why it differs from the wanted one."""

    kind: str
    reason: str | None = None


@dataclass(frozen=True)
class Evidence:
    """The basis of a verdict, in bytes of the model's weight files.

    `resident_before_bytes` were in the page cache before the loader started, `resident_bytes` when it had its first
    token. `read_bytes` is everything the loader read by then, `weights_read_bytes` what it read after its tokenizer was
    ready, so that reading libraries never counts as reading weights; None where the kernel does not report it. Both
    include what a replay read; `replay_problem` says why it was not the one planned. `checked` are the real paths of
    the weight files that were checked, `loaded` of those that the loader opened. `app_resident` is the libraries' share
    0..1, measured only in scope `app`.
    """

    weight_bytes: int
    resident_before_bytes: int
    resident_bytes: int
    read_bytes: int | None
    weights_read_bytes: int | None
    checked: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()
    app_resident: float | None = None
    replay_problem: str | None = None

    @property
    def before_share(self) -> float:
        """Return the share 0..1 of the weights that was resident before."""
        return self.resident_before_bytes / self.weight_bytes

    @property
    def became_resident_bytes(self) -> int:
        """Return what came into the page cache between the start and the first token."""
        return max(0, self.resident_bytes - self.resident_before_bytes)

    @property
    def needed_share(self) -> float:
        """Return the share 0..1 of the weights that became resident by the first token, read-ahead included."""
        return self.became_resident_bytes / self.weight_bytes

    def with_replay(self, replay: ReplayRecord | None) -> Evidence:
        """Add what a replay read beside the loader: one of them has to read the model.

        A plan treats files of a few megabytes as imports. Where the model is that small, all that the replay read
        counts.
        """
        if replay is None or self.read_bytes is None or self.weights_read_bytes is None:
            return self
        is_apart = replay.weights_bytes >= COLD_OWN_SHARE * self.weight_bytes
        weights = replay.weights_read_bytes if is_apart else replay.read_bytes
        return replace(
            self,
            read_bytes=self.read_bytes + replay.read_bytes,
            weights_read_bytes=self.weights_read_bytes + weights,
            replay_problem=replay.problem,
        )


@dataclass(frozen=True)
class Rule:
    """One condition of a verdict. `broken` says in words how the evidence violates it; None where it holds.

    `threshold` is a share 0..1; None where the condition has none.
    """

    name: str
    threshold: float | None
    broken: Callable[[Evidence], str | None]


def verdict_of(wanted: str, seen: Evidence) -> Verdict:
    """Return `wanted` (cold, warm) where all its rules hold, else lukewarm with the first that does not."""
    for rule in RULES[wanted]:
        reason = rule.broken(seen)
        if reason is not None:
            return Verdict("lukewarm", reason)
    return Verdict(wanted)


def _reads_untold(seen: Evidence) -> str | None:
    if seen.read_bytes is None or seen.weights_read_bytes is None:
        return "the kernel does not tell what the loader read, so nothing is verified"
    return None


def _other_files(seen: Evidence) -> str | None:
    if not seen.loaded:
        return "the loader named no weight file that it opened: what was loaded is not known"
    others, unopened = sorted(seen.loaded - seen.checked), sorted(seen.checked - seen.loaded)
    if others:
        return f"the loader opened {_shown(others)}: what was loaded is not what was checked"
    return f"the loader never opened {_shown(unopened)}: what was checked is not what was loaded" if unopened else None


def _another_replay(seen: Evidence) -> str | None:
    return f"the replay was not the one planned: {seen.replay_problem}" if seen.replay_problem else None


def _resident_before(seen: Evidence) -> str | None:
    if seen.before_share >= COLD_RESIDENT_SHARE:
        return f"{seen.before_share:.1%} of the model was resident before"
    return None


def _libraries_stayed(seen: Evidence) -> str | None:
    if seen.app_resident is not None and seen.app_resident >= COLD_RESIDENT_SHARE:
        return f"{seen.app_resident:.1%} of the libraries stayed resident: other processes use them"
    return None


def _nothing_came(seen: Evidence) -> str | None:
    if seen.needed_share < COLD_NEEDED_SHARE:
        came = f"only {seen.needed_share:.1%} of the model came into the page cache by the first token"
        return f"{came}: its file system does not use it, or others evict it"
    return None


def _others_read(seen: Evidence) -> str | None:
    came, read = seen.became_resident_bytes, seen.weights_read_bytes or 0
    if read < COLD_OWN_SHARE * came:
        return f"the loader read only {read / came:.1%} of what came into the page cache: others read the rest"
    return None


def _not_all_before(seen: Evidence) -> str | None:
    if seen.before_share < WARM_RESIDENT_SHARE:
        return f"only {seen.before_share:.1%} of the model was resident before"
    return None


def _read_from_disk(seen: Evidence) -> str | None:
    read = seen.read_bytes or 0
    if read >= max(WARM_READ_SHARE * seen.weight_bytes, WARM_READ_FLOOR_BYTES):
        return f"{read / 2**20:.1f} MiB were read from disk during the run"
    return None


_BOTH = (
    Rule("reads are told", None, _reads_untold),
    Rule("files are those checked", None, _other_files),
    Rule("replay is the one planned", None, _another_replay),
)
RULES = {
    "cold": (
        *_BOTH,
        Rule("resident before", COLD_RESIDENT_SHARE, _resident_before),
        Rule("libraries resident before", COLD_RESIDENT_SHARE, _libraries_stayed),
        Rule("became resident", COLD_NEEDED_SHARE, _nothing_came),
        Rule("read by the loader itself", COLD_OWN_SHARE, _others_read),
    ),
    "warm": (
        *_BOTH,
        Rule("resident before", WARM_RESIDENT_SHARE, _not_all_before),
        Rule("read from disk", WARM_READ_SHARE, _read_from_disk),
    ),
}


def _shown(paths: list[str]) -> str:
    first = ascii(paths[0])[:_LONGEST_PATH]
    return first + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
