"""One sweep as its analysis, report and pictures read it. plugins/schemas/sweep.schema.json describes the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.documents.samples import Sample
from analysis.documents.subject import MeasuredHost, Model, Software
from analysis.render import units


@dataclass(frozen=True)
class StartAid:
    """What an arm does for the whole start: bytecode where modules lack it, and a replay (none, together, ahead)."""

    bytecode: bool
    replay: str


@dataclass(frozen=True)
class Arm:
    """One setting under test: what it sets on the host, in the loader's environment, and what it does for a start."""

    name: str
    about: str
    settings: Mapping[str, str]
    env: Mapping[str, str]
    first_token: StartAid | None = None


@dataclass(frozen=True)
class ArmLeftOut:
    """An arm that this host cannot do."""

    arm: str
    why: str


@dataclass(frozen=True)
class Stopping:
    """The rules by which a sweep ends: most blocks, most seconds, and the half-width of intervals that is enough.

    The first `full_blocks` measure whole loads, each by a fresh process; 0 where all do.
    """

    blocks: int
    budget_s: float
    precision: float
    full_blocks: int = 0


@dataclass(frozen=True)
class SharedBytecode:
    """The cache that all starts shared: for so many modules, which cost a start without it so much CPU time."""

    modules: int
    saving_s: float

    def sentence(self) -> str:
        """What a reader of the times has to know of it."""
        return (
            f"{units.counted(self.modules, 'module')} that the loader imports had no bytecode, which costs a start "
            f"{units.seconds(self.saving_s)}: all starts share a cache, stock's too, so that no sample pays for it."
        )


@dataclass(frozen=True, kw_only=True)
class SweepProtocol(Stopping):
    """How it was measured: `weights_pairs` by a template a cell of a block of weights; `no_template` says why none."""

    seed: int
    dtypes: tuple[str, ...]
    cold_scope: str
    weights_pairs: int = 0
    no_template: str = ""
    bytecode: SharedBytecode | None = None


@dataclass(frozen=True)
class Stopped:
    """Why and when it ended."""

    reason: str
    blocks: int
    spent_s: float


@dataclass(frozen=True)
class Measurement:
    """One sample, with what the sweep knows of it. `abandoned`: from an attempt that was cut short, in no figure.

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
        """Whether it is of a finished block, and is what was wanted."""
        return not self.abandoned and self.sample.is_valid


@dataclass(frozen=True)
class Comparison:
    """An arm against stock, paired within blocks: arm over stock, or arm minus stock. None below two pairs."""

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
    """The same, with the median of the arm's own values."""

    median: float | None


@dataclass(frozen=True)
class Band:
    """What stock shows against itself."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Group:
    """One metric as one dtype, cold or warm: the control and every arm against stock."""

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
    """What a sweep's samples say."""

    rule: Rule
    blocks: int
    counts: Mapping[str, int]
    groups: tuple[Group, ...]
    advice: tuple[Advice, ...]

    def group(self, metric: str, dtype: str, kind: str) -> Group:
        """The comparisons of one metric, dtype and kind."""
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

    @property
    def first_token_arms(self) -> tuple[Arm, ...]:
        """The arms that act on the whole start."""
        return tuple(arm for arm in self.arms if arm.first_token)


@dataclass(frozen=True)
class AnalysedSweep(Sweep):
    """One sweep of one host, with its analysis."""

    analysis: Analysis
