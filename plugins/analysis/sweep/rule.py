"""The rule by which a sweep claims an effect. Real and simulated sweeps use these same functions.

**Pairs.** The unchanged arm, `stock` in documents, has the settings that the host had before the sweep. Within a block
every arm meets the same drift, and the order of the arms is random. So the compared value is the log of an arm over
the unchanged arm in one block (or their difference). The unchanged arm is measured twice a block; for times, an arm is
compared with the mean of the two, which scatters less than either.

**Interval of a time.** Student's, of the mean of the pairs. Eight pairs give a poor estimate of their own scatter, and
all arms of a group are measured in the same blocks by the same loader. So from two arms on, half of the variance is the
arm's own and half is the group's; an arm that truly scatters more keeps its own half. Such a mixture has at least
twice the degrees of freedom of the pairs alone (Satterthwaite). Twice is used, which compensates for noise that is not
normal: tests/unit/control/sweep/test_rule.py has the distributions that were tried.

**Family.** The comparisons of one metric: arms x dtypes x kinds. Their intervals hold jointly with 95 %.

**Hierarchy of the times.** Each arm has a primary endpoint, the time on which it acts: for memory settings weights to
first token; for bytecode and replay, which also act on imports, the whole time to first token. The claims on primary
endpoints share 2 % among the family. The other times consist of the same seconds. An arm may claim one of them at the
same level if it has claimed its primary endpoint in the same direction, and otherwise at a quarter of that level. So
all times together stay below 4 %, where Bonferroni would divide it among eleven metrics.

**Counters.** Faults and memory are nearly deterministic, and an arm's effect on them is large. They have a
stricter rule, which hardly uses the last per cent: an arm is compared with the first unchanged arm alone, with its own
scatter alone, and its interval must lie wholly outside the 95 % interval of the two unchanged arms against each other.

**Control.** If the two unchanged arms differ from each other at the family's level, nothing is claimed in that group.

**Few blocks.** Below 6 pairs nothing is claimed: noise that takes one of two values (a cache hit or not) makes five
differences agree by chance too often.

**Canary.** If each sample has a canary beside it, a fixed piece of work that is timed, its deviation within the
block is used to remove other activity on the host from a time. The slope is that of all arms together.

**Stopping early**, and leaving settled arms out of later blocks, depend on the width of the intervals alone, never on
where they lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE = 0.95
FEWEST_PAIRS = 6
_INTERVAL_ALPHA = 0.03
"""Error rate of the intervals of times: 0.02 below that of 95 %, to compensate for noise that is not normal."""
FIRST_ALPHA = 0.02
DIRECT_ALPHA = 0.005
"""Error rate of the claims of a family: of the primary endpoint, and of each other time where that shows nothing."""
IS_FIRST = np.nan
"""A value in place of a direction: this time is the arm's primary endpoint."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Mean and ends of paired differences, one per comparison; NaN below two pairs. `n` counts the pairs."""

    n: npt.NDArray[np.int64]
    mean: Array
    low: Array
    high: Array

    @property
    def parts(self) -> tuple[npt.NDArray[np.int64], Array, Array, Array]:
        """Return the number of pairs, mean, lower and upper end."""
        return self.n, self.mean, self.low, self.high

    @property
    def half_width(self) -> Array:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Pairs:
    """Mean, squared standard error and degrees of freedom of paired differences, one per comparison."""

    n: npt.NDArray[np.int64]
    mean: Array
    error: Array
    freedom: Array

    def interval(self, alpha: Array | float) -> Interval:
        """Return the interval of level 1 - alpha."""
        reach = self.reach(alpha)
        return Interval(self.n, self.mean, self.mean - reach, self.mean + reach)

    def reach(self, alpha: Array | float) -> Array:
        """Return half of that interval's width."""
        return np.asarray(stats.t.isf(np.asarray(alpha) / 2, np.maximum(self.freedom, 1)) * np.sqrt(self.error))


def pairs(differences: Array) -> Pairs:
    """Return pairs from differences over the last axis (blocks), each with its own scatter; NaN: a missing pair."""
    n, mean, squares = _moments(differences)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = squares / np.where(n > 1, n - 1, np.nan) / n
    return Pairs(n, mean, error, (n - 1).astype(float))


def pairs_of_times(values: Array) -> tuple[Pairs, Pairs]:
    """Return arms and control of a group of times: `values` (..., 2 + arms, blocks) has the two unchanged arms first.

    Half of each arm's variance is that of the whole group, the control included.
    """
    stock, again, arms = values[..., :1, :], values[..., 1:2, :], values[..., 2:, :]
    n, mean, squares = _moments(arms - (stock + again) / 2)
    control = again - stock
    # The control's difference has the variance of two samples, an arm's that of one and a half.
    control_n, _, control_squares = _moments(control * np.sqrt(0.75))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = squares / np.where(n > 1, n - 1, np.nan)
        if is_shared(arms.shape[-2]):
            freedom = np.maximum(n - 1, 0).sum(axis=-1, keepdims=True) + np.maximum(control_n - 1, 0)
            common = (squares.sum(axis=-1, keepdims=True) + control_squares) / np.where(freedom > 0, freedom, np.nan)
            variance = (variance + common) / 2
        error = variance / np.where(n > 0, n, np.nan)
    return Pairs(n, mean, error, (n - 1).astype(float) * _freedom(arms.shape[-2])), pairs(control[..., 0, :])


def is_shared(arms: int) -> bool:
    """Return whether so many arms are enough to estimate the scatter of a group."""
    return arms >= 2


def _freedom(arms: int) -> int:
    """Return degrees of freedom per one of a difference's own.

    Half its own variance and half that of k differences would give 4 / (1 + 3/k) by Satterthwaite's formula: 2 with two
    arms and the control, more with more arms.
    """
    return 2 if is_shared(arms) else 1


def _moments(differences: Array) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Return count, mean and sum of squared deviations over the last axis, without missing values."""
    present = np.isfinite(differences)
    n = present.sum(axis=-1)
    filled = np.where(present, differences, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=-1) / np.where(n > 0, n, np.nan)
    spread = np.where(present, differences - mean[..., None], 0.0)
    return n, mean, (spread**2).sum(axis=-1)


@dataclass(frozen=True)
class GroupJudgement:
    """Arms of one metric, dtype and kind. `direction` is -1 (below unchanged), 1 (above), 0 (nothing claimed).

    `band` is the 95 % interval of the unchanged arms against each other, widened to the smallest relevant effect.
    """

    arms: Interval
    control: Interval
    band_low: Array
    band_high: Array
    control_moved: npt.NDArray[np.bool_]
    direction: npt.NDArray[np.int64]


def judge_times(values: Array, comparisons: int, floor: float, first: npt.ArrayLike = IS_FIRST) -> GroupJudgement:
    """Apply the rule of times to values of shape (..., 2 + arms, blocks), the two unchanged arms first.

    `comparisons` is the size of the metric's family, `floor` the smallest relevant effect, `first` the direction
    that each arm claims in the same group for its primary endpoint, IS_FIRST if that is this time.
    """
    arms, control = pairs_of_times(values)
    gate, low, high, moved = _control(arms, control, comparisons, floor)
    sign = np.where(np.isfinite(arms.mean), np.sign(np.nan_to_num(arms.mean)), 0).astype(np.int64)
    alpha = np.where(np.isnan(first) | (np.asarray(first) == sign), FIRST_ALPHA, DIRECT_ALPHA)
    claimed = gate & (np.abs(arms.mean) > np.maximum(arms.reach(alpha / comparisons), floor))
    found = arms.interval(_INTERVAL_ALPHA / comparisons)
    strict = control.interval((1 - CONFIDENCE) / comparisons)
    return GroupJudgement(found, strict, low, high, moved, np.where(claimed, sign, 0))


def judge_counters(values: Array, comparisons: int, floor: float) -> GroupJudgement:
    """Apply the rule of counters to values of shape (..., 2 + arms, blocks), the two unchanged arms first."""
    stock = values[..., :1, :]
    arms, control = pairs(values[..., 2:, :] - stock), pairs(values[..., 1, :] - stock[..., 0, :])
    gate, low, high, moved = _control(arms, control, comparisons, floor)
    alpha = (1 - CONFIDENCE) / comparisons
    found = arms.interval(alpha)
    above, below = found.low > high[..., None], found.high < low[..., None]
    direction = np.where(gate, above.astype(np.int64) - below.astype(np.int64), 0)
    return GroupJudgement(found, control.interval(alpha), low, high, moved, direction)


def _control(
    arms: Pairs, control: Pairs, comparisons: int, floor: float
) -> tuple[npt.NDArray[np.bool_], Array, Array, npt.NDArray[np.bool_]]:
    """Return which arms may be judged at all, the band of the unchanged arms, and whether these two differ."""
    strict, loose = control.interval((1 - CONFIDENCE) / comparisons), control.interval(1 - CONFIDENCE)
    moved = (control.n >= FEWEST_PAIRS) & ((strict.low > floor) | (strict.high < -floor))
    gate = (arms.n >= FEWEST_PAIRS) & (control.n >= FEWEST_PAIRS)[..., None] & ~moved[..., None]
    return gate, np.minimum(loose.low, -floor), np.maximum(loose.high, floor), moved


def is_settled(values: Array, comparisons: int, precision: float) -> npt.NDArray[np.bool_]:
    """Return which arms of a group of times have enough pairs and a half-width of at most `precision`."""
    found = pairs_of_times(values)[0].interval(_INTERVAL_ALPHA / comparisons)
    return np.asarray((found.n >= FEWEST_PAIRS) & (found.half_width <= precision))


def expected_half_width(scatter: float, blocks: int, arms: int, comparisons: int) -> float:
    """Return the half-width of a time's interval after so many blocks, if single samples scatter by `scatter`."""
    freedom = (blocks - 1) * _freedom(arms)
    return float(stats.t.isf(_INTERVAL_ALPHA / comparisons / 2, freedom) * scatter * np.sqrt(1.5 / blocks))


def scatter_within_blocks(values: Array) -> float:
    """Return how much single samples of one group (arms, blocks) scatter within blocks, without the arms' own effects.

    One block cannot separate the two: then it is the scatter of the arms, which is not less. NaN if nothing is known.
    """
    whole = values[:, np.isfinite(values).all(axis=0)]
    arms, blocks = whole.shape
    if arms < 2 or blocks < 1:
        return float("nan")
    residual = whole - whole.mean(axis=0)
    if blocks > 1:
        residual = residual - residual.mean(axis=1, keepdims=True)
    return float(np.sqrt((residual**2).sum() / ((arms - 1) * max(1, blocks - 1))))


def without_canary(values: Array, canary: Array) -> Array:
    """Return values of one group (arms, blocks) less what their canaries show of the host; unchanged if one has none.

    The slope is taken within blocks and within arms, over all arms, so that no arm's effect enters it. So it uses only
    the blocks in which every arm was measured.
    """
    present = np.isfinite(values)
    whole = present.all(axis=0)
    if whole.sum() < FEWEST_PAIRS or not np.isfinite(canary[present]).all():
        return values
    deviation, response = _two_way(canary[:, whole]), _two_way(values[:, whole])
    power = (deviation**2).sum()
    if power <= 0:
        return values
    slope = (deviation * response).sum() / power
    return np.asarray(values - slope * (canary - canary[present].mean()))


def _two_way(values: Array) -> Array:
    """Return the remainder of (arms, blocks) without the means of arms and of blocks."""
    across = values - values.mean(axis=0)
    return np.asarray(across - across.mean(axis=1, keepdims=True))
