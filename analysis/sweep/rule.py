"""The rule by which a sweep claims an effect. Data and simulated sweeps go through these same functions.

**Interval.** Within a block every arm meets the same drift, so what is compared is the pair: log of arm over stock (or
arm minus stock) in one block. With stock and arm alike, and their order drawn at random, that difference is symmetric
around 0 whatever the noise. Student's interval of its mean keeps its level under symmetric noise, heavy tails included
(those make it wide), from few pairs. A bootstrap does not: a percentile or BCa bootstrap of 8 pairs never leaves the
observed range and is far too narrow at the levels that many comparisons need. A sign or permutation test cannot reach
those levels at all: with 8 pairs no p-value lies below 2/256.

**Family.** The comparisons of one metric: arms x dtypes x kinds. Each interval has the level 1 - 0.05/comparisons
(Bonferroni), so all intervals of a metric hold jointly with 95 %.

**Control.** Stock is measured twice a block. The 95 % interval of that A/A pair, widened to the smallest effect worth
a word, is the noise band. An effect is claimed only where its own interval lies wholly outside of the band; both share
the first stock sample, so a block that happened to have a slow stock moves both. Where the A/A pair itself differs at
the family's level, nothing is claimed in that group.

**Few blocks.** Below 6 pairs nothing is claimed: noise that takes one of two values (a cache hit or not) makes five
differences agree by chance too often.

**Stopping early** looks at the width of the intervals alone, never at where they lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE = 0.95
FEWEST_PAIRS = 6

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


def interval(differences: Array, alpha: float) -> Interval:
    """Student's interval of level 1 - alpha over the last axis (blocks); NaN marks a missing pair."""
    present = np.isfinite(differences)
    n = present.sum(axis=-1)
    filled = np.where(present, differences, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=-1) / np.where(n > 0, n, np.nan)
        spread = np.where(present, differences - mean[..., None], 0.0)
        error = np.sqrt((spread**2).sum(axis=-1) / np.where(n > 1, n - 1, np.nan) / n)
    reach = stats.t.isf(alpha / 2, np.maximum(n - 1, 1)) * error
    return Interval(n, mean, mean - reach, mean + reach)


@dataclass(frozen=True)
class Judgement:
    """Arms of one metric, dtype and kind. `direction` is -1 (below stock), 1 (above), 0 (nothing claimed)."""

    arms: Interval
    control: Interval
    band_low: Array
    band_high: Array
    control_moved: npt.NDArray[np.bool_]
    direction: npt.NDArray[np.int64]


def judge_arms(arms: Array, control: Array, comparisons: int, floor: float) -> Judgement:
    """Apply the rule to differences from stock: `arms` of shape (..., arms, blocks), `control` of (..., blocks).

    `comparisons` is the size of the metric's family, `floor` the smallest effect worth a word.
    """
    alpha = (1 - CONFIDENCE) / comparisons
    found = interval(arms, alpha)
    strict = interval(control, alpha)
    loose = interval(control, 1 - CONFIDENCE)
    band_low, band_high = np.minimum(loose.low, -floor), np.maximum(loose.high, floor)
    moved = (strict.n >= FEWEST_PAIRS) & ((strict.low > floor) | (strict.high < -floor))
    may_claim = (found.n >= FEWEST_PAIRS) & (strict.n >= FEWEST_PAIRS)[..., None] & ~moved[..., None]
    below = found.high < band_low[..., None]
    above = found.low > band_high[..., None]
    direction = np.where(may_claim, above.astype(np.int64) - below.astype(np.int64), 0)
    return Judgement(found, strict, band_low, band_high, moved, direction)


def is_tight(arms: Array, comparisons: int, precision: float) -> npt.NDArray[np.bool_]:
    """Whether every interval of `arms` (..., arms, blocks) has at most the half-width `precision` from enough pairs."""
    found = interval(arms, (1 - CONFIDENCE) / comparisons)
    tight = (found.n >= FEWEST_PAIRS) & (found.half_width <= precision)
    return np.asarray(tight.all(axis=-1))
