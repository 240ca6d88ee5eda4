"""Whether a replay harms a start that has nothing to gain: warm, it may be at most one per cent slower."""

from __future__ import annotations

from analysis.sweep.sweep import Analysis, Arm, ArmComparison

HARM = 1.01
"""The limit of the warm TTFT over the unchanged arm's: slower than this beyond noise is harm."""


def harm_words(analysis: Analysis, arm: Arm, dtype: str) -> str:
    """Return what the warm TTFT of an arm with a replay shows, in words.

    The bound holds if the whole interval lies below it. An interval that begins below the bound and ends above it shows
    neither.
    """
    group = analysis.group("time_to_first_token_s", dtype, "warm")
    found = next(result for result in group.arms if result.arm == arm.name)
    if found.verdict in ("too_few", "untrusted") or found.low is None or found.high is None:
        return f"cannot be said: {found.words}"
    if found.low > HARM:
        return (
            f"**does not hold**: a warm start is {_slower(found.low)} slower at least, {_slower(found.estimate)} likely"
        )
    if found.high <= HARM:
        return f"holds: a warm start is {_at_most(found)}"
    possible = f"up to {_slower(found.high)} slower is possible"
    return f"is not shown either way: {possible} ({found.words}); more blocks would tell"


def _at_most(found: ArmComparison) -> str:
    assert found.high is not None
    return f"{_slower(found.high)} slower at most" if found.high > 1 else "not slower"


def _slower(ratio: float | None) -> str:
    return f"{((ratio or 1.0) - 1) * 100:.1f} %"
