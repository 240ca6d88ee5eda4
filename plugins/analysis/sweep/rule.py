"""The rule by which a sweep claims an effect. Data and simulated sweeps go through these same functions.

**Pairs.** Within a block every arm meets the same drift, and the order of the arms is drawn at random. So what is
compared is the log of an arm over stock in one block (or arm minus stock). Stock is measured twice a block; for times
an arm is compared with the mean of the two, which scatters less than either.

**Interval of a time.** Student's, of the mean of the pairs. Eight pairs know little of their own scatter, and all arms
of a group are measured in the same blocks by the same loader. So from two arms on, half of the variance is the arm's
own and half is the group's; an arm that truly scatters more keeps the half that is its own. Such a mixture has at least
twice the degrees of freedom of the pairs alone (Satterthwaite). Twice is taken, which makes up for noise that is not
normal: tests/unit/control/sweep/test_rule.py has what it was tried on.

**Family.** The comparisons of one metric: arms x dtypes x kinds. Their intervals hold jointly with 95 %.

**Hierarchy of the times.** Each arm is asked first where it acts: a setting of memory for weights to first token,
bytecode and replay, which act on imports too, for the whole time to first token. The claims on what is asked first
share 2 % among the family. The other times are made of the same seconds. An arm may claim one at the same level where
it has claimed the first in the same direction, and by itself with a quarter of that. So all times together stay below
4 %, where Bonferroni would share it among eleven metrics.

**Counters.** Faults and memory are nearly deterministic, and what an arm does to them is large. They keep a stricter
rule, which hardly uses the last per cent: an arm against the first stock alone, with its own scatter alone, and its
interval has to lie wholly outside of the 95 % interval of stock against stock.

**Control.** Where the two stocks differ from each other at the family's level, nothing is claimed in that group.

**Few blocks.** Below 6 pairs nothing is claimed: noise that takes one of two values (a cache hit or not) makes five
differences agree by chance too often.

**Canary.** Where each sample has a canary beside it, a fixed piece of work that is timed, its deviation within the
block takes out of a time what the host did meanwhile. The slope is that of all arms together.

**Stopping early**, and leaving settled arms out of later blocks, look at the width of the intervals alone, never at
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
"""Of the intervals of times. The two hundredths that 95 % would leave pay for noise that is not normal."""
FIRST_ALPHA = 0.02
DIRECT_ALPHA = 0.005
"""What the claims of a family may err: the time that is asked first, and each other one where that shows nothing."""
IS_FIRST = np.nan
"""In place of a direction: this is the time that is asked first of this arm."""

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
        """Number of pairs, mean, lower and upper end."""
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
        """The interval of level 1 - alpha."""
        reach = self.reach(alpha)
        return Interval(self.n, self.mean, self.mean - reach, self.mean + reach)

    def reach(self, alpha: Array | float) -> Array:
        """Half of that interval's width."""
        return np.asarray(stats.t.isf(np.asarray(alpha) / 2, np.maximum(self.freedom, 1)) * np.sqrt(self.error))


def pairs(differences: Array) -> Pairs:
    """Differences over the last axis (blocks), each comparison by its own scatter; NaN marks a missing pair."""
    n, mean, squares = _moments(differences)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = squares / np.where(n > 1, n - 1, np.nan) / n
    return Pairs(n, mean, error, (n - 1).astype(float))


def pairs_of_times(values: Array) -> tuple[Pairs, Pairs]:
    """Arms and control of a group of times: `values` (..., 2 + arms, blocks) has the two stocks first.

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
    """Whether so many arms are enough to know the scatter of a group by."""
    return arms >= 2


def _freedom(arms: int) -> int:
    """Degrees of freedom per one of a difference's own. Half its own variance and half that of k differences would give
    4 / (1 + 3/k) by Satterthwaite's formula: 2 with two arms and the control, more with more arms.
    """
    return 2 if is_shared(arms) else 1


def _moments(differences: Array) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Count, mean and sum of squared deviations over the last axis, without what is missing."""
    present = np.isfinite(differences)
    n = present.sum(axis=-1)
    filled = np.where(present, differences, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=-1) / np.where(n > 0, n, np.nan)
    spread = np.where(present, differences - mean[..., None], 0.0)
    return n, mean, (spread**2).sum(axis=-1)


@dataclass(frozen=True)
class GroupJudgement:
    """Arms of one metric, dtype and kind. `direction` is -1 (below stock), 1 (above), 0 (nothing claimed).

    `band` is the 95 % interval of stock against itself, widened to the smallest effect worth a word.
    """

    arms: Interval
    control: Interval
    band_low: Array
    band_high: Array
    control_moved: npt.NDArray[np.bool_]
    direction: npt.NDArray[np.int64]


def judge_times(values: Array, comparisons: int, floor: float, first: npt.ArrayLike = IS_FIRST) -> GroupJudgement:
    """Apply the rule of times to values of shape (..., 2 + arms, blocks), the two stocks first.

    `comparisons` is the size of the metric's family, `floor` the smallest effect worth a word, `first` the direction
    that each arm claims in the same group for the time that is asked first of it, IS_FIRST where that is this one.
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
    """Apply the rule of counters to values of shape (..., 2 + arms, blocks), the two stocks first."""
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
    """Which arms may be judged at all, the band of stock against itself, and whether the two stocks differ."""
    strict, loose = control.interval((1 - CONFIDENCE) / comparisons), control.interval(1 - CONFIDENCE)
    moved = (control.n >= FEWEST_PAIRS) & ((strict.low > floor) | (strict.high < -floor))
    gate = (arms.n >= FEWEST_PAIRS) & (control.n >= FEWEST_PAIRS)[..., None] & ~moved[..., None]
    return gate, np.minimum(loose.low, -floor), np.maximum(loose.high, floor), moved


def is_settled(values: Array, comparisons: int, precision: float) -> npt.NDArray[np.bool_]:
    """Which arms of a group of times have an interval of at most the half-width `precision`, from enough pairs."""
    found = pairs_of_times(values)[0].interval(_INTERVAL_ALPHA / comparisons)
    return np.asarray((found.n >= FEWEST_PAIRS) & (found.half_width <= precision))


def expected_half_width(scatter: float, blocks: int, arms: int, comparisons: int) -> float:
    """The half-width that an interval of a time has after so many blocks, where single samples scatter by `scatter`."""
    freedom = (blocks - 1) * _freedom(arms)
    return float(stats.t.isf(_INTERVAL_ALPHA / comparisons / 2, freedom) * scatter * np.sqrt(1.5 / blocks))


def scatter_within_blocks(values: Array) -> float:
    """How much single samples of one group (arms, blocks) scatter within blocks, without what the arms themselves do.

    One block cannot tell the two apart: then it is the scatter of the arms, which is not less. NaN where nothing can be
    told.
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
    """Values of one group (arms, blocks) less what their canaries tell of the host; unchanged where one has none.

    The slope is taken within blocks and within arms, over all arms, so that no arm's effect enters it, and so from the
    blocks alone in which every arm was measured.
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
    """What is left of (arms, blocks) without the means of arms and of blocks."""
    across = values - values.mean(axis=0)
    return np.asarray(across - across.mean(axis=1, keepdims=True))
