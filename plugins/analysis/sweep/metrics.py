"""The metrics of a sweep: each one's meaning, how two of its values are compared, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from analysis.documents.samples import Sample
from analysis.render import units

REFERENCE = "stock"
CONTROL = "stock-again"
KINDS = ("cold", "warm")
DTYPES = {"auto": "as stored", "float32": "cast to float32"}
"""Dtypes requested of the loader, with words for people; any other dtype is shown as `cast to DTYPE`."""


def dtype_words(dtype: str) -> str:
    """Return `as stored` or `cast to float32`."""
    return DTYPES.get(dtype, f"cast to {dtype}")


Value = Callable[[Sample], float | None]


@dataclass(frozen=True)
class Metric:
    """One compared metric of a sample.

    A ratio metric is compared on the log scale, arm over unchanged arm; a metric that may be 0 is compared as a
    difference in its own unit. `floor` is the smallest relevant effect, on the scale of comparison: deterministic
    counters can show differences of a part in ten thousand, which are true but of no use.
    """

    name: str
    title: str
    value: Value
    is_ratio: bool
    floor: float
    less: str
    more: str
    unit: Callable[[float | None], str]
    is_time: bool = False

    def compared(self, value: float | None) -> float:
        """Return the value on the scale of comparison; NaN if there is none, so that its pair drops out."""
        if value is None or (self.is_ratio and value <= 0):
            return math.nan
        return math.log(value) if self.is_ratio else float(value)

    def effect(self, difference: float) -> float:
        """Convert a difference on the scale of comparison to a reader's terms: arm over, or minus, unchanged arm."""
        return math.exp(difference) if self.is_ratio else difference


def _field(name: str) -> Value:
    def value(sample: Sample) -> float | None:
        found: float | None = getattr(sample, name)
        return found

    return value


def _sum(*names: str) -> Value:
    def value(sample: Sample) -> float | None:
        parts = [_field(name)(sample) for name in names]
        known = [part for part in parts if part is not None]
        return float(sum(known)) if known else None

    return value


def _phases(*names: str) -> Value:
    def value(sample: Sample) -> float | None:
        parts = [sample.phase_seconds(name) for name in names]
        return None if None in parts else sum(part for part in parts if part is not None)

    return value


def _counter(name: str) -> Value:
    return lambda sample: (sample.vmstat or {}).get(name)


FLOOR = math.log(1.01)
"""The smallest relevant ratio, on the log scale."""
_HUGE_PAGE = float(2 << 20)


def _time(name: str, title: str, value: Value) -> Metric:
    return Metric(name, title, value, True, FLOOR, "faster", "slower", units.seconds, is_time=True)


METRICS = (
    _time("time_to_first_token_s", "time to first token", _field("time_to_first_token_s")),
    _time("load_real_s", "load", _field("load_real_s")),
    # The phases that load weights and grow with the model. Interpreter, imports and tokenizer do not, and on a fast GPU
    # host they are most of the TTFT and nearly all of its scatter.
    _time("weights_to_first_token_s", "weights to first token", _phases("weights", "first_token")),
    Metric("minor_faults", "minor faults", _field("minor_faults"), True, FLOOR, "fewer", "more", units.count),
    # Not `file_pmd_bytes`: a file system with large folios has such mappings by itself, whatever THP is set to.
    Metric(
        "anon_huge_bytes",
        "THP-backed anonymous memory",
        _field("anon_huge_bytes"),
        False,
        4 * _HUGE_PAGE,
        "less",
        "more",
        units.size,
    ),
    Metric("rss_bytes", "RSS", _field("rss_bytes"), True, FLOOR, "less", "more", units.size),
    Metric("pss_bytes", "PSS", _field("pss_bytes"), True, FLOOR, "less", "more", units.size),
    Metric("cpu_s", "CPU time", _sum("cpu_user_s", "cpu_system_s"), True, FLOOR, "less", "more", units.seconds),
    Metric("thp_fault_alloc", "THP faults", _counter("thp_fault_alloc"), False, 8.0, "fewer", "more", units.count),
    Metric(
        "thp_fault_fallback", "THP fallbacks", _counter("thp_fault_fallback"), False, 8.0, "fewer", "more", units.count
    ),
    Metric("compact_stall", "compaction stalls", _counter("compact_stall"), False, 8.0, "fewer", "more", units.count),
)
"""Times come first, because they are the sweep's purpose; the rest explains them."""

WEIGHTS = next(metric for metric in METRICS if metric.name == "weights_to_first_token_s")
"""The time on which memory settings act: their primary endpoint."""
TOKEN = next(metric for metric in METRICS if metric.name == "time_to_first_token_s")
"""The time on which bytecode and replay act, imports included."""
TIMES = tuple(metric for metric in METRICS if metric.is_time)
TOTALS = tuple(metric for metric in TIMES if metric.name in ("time_to_first_token_s", "load_real_s"))
"""The times that begin with the start of the process."""


def canary(sample: Sample) -> float:
    """Return how slow the canary beside a sample was: the mean of the logs of its times. NaN if there is none.

    Its memory part is left out: an arm's effect on memory would be taken for other activity on the host.
    """
    found = sample.noise.canary if sample.noise else None
    times = [seconds for name, seconds in (found or {}).items() if "memory" not in name and seconds > 0]
    return math.fsum(math.log(seconds) for seconds in times) / len(times) if times else math.nan


def percent_bound(*ratios: float) -> int:
    """Return the largest distance of these ratios from 1, in whole per cent.

    It is rounded up, because a claim must not be narrower than its data.
    """
    return math.ceil(round(max(abs(ratio - 1) for ratio in ratios) * 100, 6))
