"""One sweep for analysis, report and pictures; plugins/schemas/sweep.schema.json describes the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from analysis.documents.samples import Sample
from analysis.documents.subject import Image, MeasuredHost, Model, Software
from analysis.render import units


@dataclass(frozen=True)
class StartAid:
    """What an arm does for the whole start: caches of bytecode and of GPU kernels, a replay (none, together, ahead)."""

    bytecode: bool
    replay: str
    kernels: bool = False


@dataclass(frozen=True)
class Arm:
    """One combination of settings: on the host, in the loader's environment, and for a start."""

    name: str
    about: str
    settings: Mapping[str, str]
    env: Mapping[str, str]
    first_token: StartAid | None = None


@dataclass(frozen=True)
class ArmLeftOut:
    """An arm that this host does not support."""

    arm: str
    why: str


@dataclass(frozen=True)
class Stopping:
    """The rules by which a sweep ends: most blocks, most seconds, and a sufficient half-width of intervals.

    The first `full_blocks` measure whole loads, each by a fresh process; 0 if all do.
    """

    blocks: int
    budget_s: float
    precision: float
    full_blocks: int = 0


@dataclass(frozen=True)
class SharedBytecode:
    """The bytecode cache that all starts shared: its number of modules, and their CPU time in a start without it."""

    modules: int
    saving_s: float

    def sentence(self) -> str:
        """Return what a reader of the times has to know about it."""
        return (
            f"{units.counted(self.modules, 'module')} that the loader imports had no bytecode, which costs a start "
            f"{units.seconds(self.saving_s)}: all starts share a cache, stock's too, so that no sample pays for it."
        )


@dataclass(frozen=True)
class SharedKernels:
    """The cache of GPU kernels that all starts shared: its files, and what compiling takes each first token."""

    files: int
    saving_s: float

    def sentence(self) -> str:
        """Return what a reader of the times has to know about it."""
        return (
            f"Each start compiled GPU kernels anew, which costs its first token {units.seconds(self.saving_s)}: "
            "all starts share a cache of them, stock's too, so that no sample pays for it."
        )


@dataclass(frozen=True, kw_only=True)
class SweepProtocol(Stopping):
    """How it was measured: `weights_pairs` per cell by a template in a block of weights; `no_template`: why none."""

    seed: int
    dtypes: tuple[str, ...]
    cold_scope: str
    weights_pairs: int = 0
    no_template: str = ""
    bytecode: SharedBytecode | None = None
    kernels: SharedKernels | None = None


@dataclass(frozen=True)
class Stopped:
    """Why and when the sweep ended."""

    reason: str
    blocks: int
    spent_s: float


@dataclass(frozen=True)
class Measurement:
    """One sample with the sweep's own fields. `abandoned`: from an attempt that was cut short, not used in any result.

    `measurement` is `full` for a fresh process, `weights` for a template's child.
    """

    arm: str
    dtype_asked: str
    abandoned: bool
    sample: Sample
    measurement: str = "full"

    @property
    def is_full(self) -> bool:
        return self.measurement == "full"

    @property
    def is_valid(self) -> bool:
        """Return whether the sample is of a finished block, and of the wanted kind."""
        return not self.abandoned and self.sample.is_valid


@dataclass(frozen=True)
class Comparison:
    """An arm against the unchanged arm, paired within blocks: ratio or difference. None below two pairs."""

    arm: str
    n: int
    dropped: int
    estimate: float | None
    low: float | None
    high: float | None
    verdict: str
    words: str

    @property
    def is_claim(self) -> bool:
        return self.verdict in ("less", "more")


@dataclass(frozen=True)
class ArmComparison(Comparison):
    """An arm's comparison, with the median of the arm's own values."""

    median: float | None


@dataclass(frozen=True)
class Band:
    """The difference between the two unchanged arms."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Group:
    """One metric for one dtype, cold or warm: the control and every arm against the unchanged arm."""

    metric: str
    dtype: str
    kind: str
    scale: str
    stock_median: float | None
    band: Band
    control_moved: bool
    control: Comparison
    arms: tuple[ArmComparison, ...]

    @property
    def is_too_few(self) -> bool:
        return self.control.verdict == "too_few"


@dataclass(frozen=True)
class Rule:
    """The rule of claims, as a report states it."""

    confidence: float
    comparisons: int
    fewest_pairs: int
    family: str
    interval: str


@dataclass(frozen=True)
class Advice:
    """The smallest set of settings that the data supports for a dtype; `arm` None: no change is supported."""

    dtype: str
    arm: str | None
    settings: Mapping[str, str]
    env: Mapping[str, str]
    changes: int


@dataclass(frozen=True)
class Analysis:
    """What a sweep's samples show."""

    rule: Rule
    blocks: int
    counts: Mapping[str, int]
    groups: tuple[Group, ...]
    advice: tuple[Advice, ...]

    def group(self, metric: str, dtype: str, kind: str) -> Group:
        """Return the comparisons of one metric, dtype and kind."""
        wanted = (metric, dtype, kind)
        return next(group for group in self.groups if (group.metric, group.dtype, group.kind) == wanted)


@dataclass(frozen=True)
class Sweep:
    """One sweep of one host, without its analysis."""

    run_id: str
    host: MeasuredHost
    model: Model
    software: Software
    protocol: SweepProtocol
    stock: Mapping[str, str]
    arms: tuple[Arm, ...]
    left_out: tuple[ArmLeftOut, ...]
    stopped: Stopped
    measurements: tuple[Measurement, ...]
    image: Image | None = field(default=None, kw_only=True)

    @property
    def first_token_arms(self) -> tuple[Arm, ...]:
        """Return the arms that act on the whole start."""
        return tuple(arm for arm in self.arms if arm.first_token)


@dataclass(frozen=True)
class AnalysedSweep(Sweep):
    """One sweep of one host, with its analysis."""

    analysis: Analysis
