"""The needs of first-token arms: the subject's start, recorded only for the sweep, and the caches it lacks.

It is stored like every recorded start, under names reserved for the sweep, and no service uses it. So a rollback
removes it like any other, and an interrupted sweep finds it again; the end of the sweep removes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..first_token.audit import is_set_up, rows_of
from ..first_token.fit import parse_fit
from ..first_token.install import set_up
from ..first_token.recorder.interruption import PYTHON
from ..first_token.remove import remove
from ..first_token.target import SWEEP_PREFIX, Ready, Target, recorded_targets
from ..first_token.unit_files import GIVEN_PROGRAMS, REPLAYER
from ..host.errors import SettingError
from ..host.files import Host
from ..host.paths import PROGRAMS
from ..measuring.loader.process import clean_environment
from ..measuring.loader.replay import Replay
from ..measuring.protocol import Subject
from ..measuring.sample import Trial
from .design import Arm

AS_FOUND = SWEEP_PREFIX
"""The unchanged start, which a replay without bytecode reads."""
WITH_BYTECODE = f"{SWEEP_PREFIX}-bytecode"
WITH_KERNELS = f"{SWEEP_PREFIX}-kernels"


@dataclass(frozen=True)
class Recorder:
    """How the subject is started for a recording, and the programs that belong to a recorded start, by path.

    Without a GPU no start compiles kernels, so none is recorded for them.
    """

    target: Target
    programs: Mapping[str, bytes]
    has_gpu: bool = False

    @staticmethod
    def of(subject: Subject, programs: Mapping[str, str], has_gpu: bool) -> Recorder:
        """Build the recorder of a subject; `programs` are texts by file name."""
        loader = subject.loader_of(Trial(0, "cold"))
        environment = clean_environment(loader, "/nonexistent")
        target = Target(
            AS_FOUND,
            command=(loader.python, loader.script, *loader.arguments, "--until", "first_token", "--linger-s", "1"),
            user=loader.account.name if loader.account else "",
            environment=tuple(sorted(environment.items())),
            ready=Ready(timeout_s=loader.timeout_s),
            replay="none",
            bytecode=False,
            kernels=False,
        )
        return Recorder(target, {f"{PROGRAMS}/{name}": text.encode() for name, text in programs.items()}, has_gpu)

    def ensure(self, host: Host, name: str) -> None:
        """Record the start under that name, unless that is done already and nothing has changed since."""
        target = replace(self.target, name=name, bytecode=name == WITH_BYTECODE, kernels=name == WITH_KERNELS)
        self._require_programs()
        if not (self._has_programs(host) and is_set_up(host, target)):
            set_up(host, target, self.programs)

    def _has_programs(self, host: Host) -> bool:
        """Return whether the host's programs are these: an older replay would be another arm."""
        return all(host.read_or_none(path) == content.decode() for path, content in self.programs.items())

    def _require_programs(self) -> None:
        missing = sorted(set(GIVEN_PROGRAMS) - set(self.programs))
        if missing:
            raise SettingError(
                "programs",
                ", ".join(missing),
                "not given",
                "Arms of the first token replay with them.",
                "give the module `programs`, as roles/sweep does.",
            )


@dataclass(frozen=True)
class StartAssist:
    """What a first-token arm adds to one start."""

    env: Mapping[str, str] = field(default_factory=dict)
    replay: Replay | None = None


@dataclass(frozen=True)
class Starts:
    """The recorded starts: the unchanged one, and those with bytecode and with kernels; None where one is missing or
    gains nothing. `kernels` is the environment by which the last one finds its kernels.
    """

    as_found: Target | None = None
    with_bytecode: Target | None = None
    with_kernels: Target | None = None
    kernels: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def on(host: Host) -> Starts:
        """Read what this host has recorded for a sweep."""
        targets = recorded_targets(host)
        plain, compiled, kept = (targets.get(name) for name in (AS_FOUND, WITH_BYTECODE, WITH_KERNELS))
        kernels = _kernels_of(host, kept)
        if compiled and not host.exists(compiled.fit):
            # Bytecode gained nothing, so this is the unchanged start.
            plain, compiled = compiled, None
        return Starts(plain, compiled, kept if kernels else None, kernels)

    def of(self, arm: Arm) -> Target | None:
        """Return the recorded start that an arm replays, or has its bytecode from; kernels change little in it."""
        return self.with_bytecode if arm.bytecode else self.as_found

    def used_by(self, arm: Arm) -> list[Target | None]:
        """Return every recorded start that an arm needs."""
        return [
            *([self.of(arm)] if arm.bytecode or arm.replay != "none" else []),
            *([self.with_kernels] if arm.kernels else []),
        ]

    def aid(self, arm: Arm) -> StartAssist:
        """Return what this arm adds to a start. SettingError where the recording it needs is missing."""
        if not arm.is_first_token:
            return StartAssist()
        if None in self.used_by(arm):
            raise SettingError(
                f"sweep_arms.{arm.name}",
                " and ".join(["a recorded start", *_caches(arm)]),
                "none",
                "It was removed, or what it compiles is kept by now, since the sweep was planned.",
                "start a new sweep with -e sweep_new=true.",
            )
        target, env = self.of(arm), dict(self.kernels) if arm.kernels else {}
        if target and arm.bytecode:
            env["PYTHONPYCACHEPREFIX"] = target.pycache
        replay = None
        if target and arm.replay != "none":
            replay = Replay((PYTHON, "-IS", REPLAYER, target.plan), arm.replay)
        return StartAssist(env, replay)


def record_starts(host: Host, arms: Sequence[Arm], recorder: Recorder | None) -> Starts:
    """Record only what these arms need: one to three cold starts for each that is missing."""
    aided = [arm for arm in arms if arm.is_first_token]
    if not aided or recorder is None:
        forget_starts(host)
        return Starts()
    wants_kernels = recorder.has_gpu and any(arm.kernels for arm in aided)
    for name, is_wanted in ((WITH_BYTECODE, any(arm.bytecode for arm in aided)), (WITH_KERNELS, wants_kernels)):
        if is_wanted:
            recorder.ensure(host, name)
        else:
            forget_starts(host, name)
    found = Starts.on(host)
    replays_alone = any(arm.replay != "none" and not arm.bytecode for arm in aided)
    if replays_alone and (found.as_found is None or found.as_found.name == AS_FOUND):
        recorder.ensure(host, AS_FOUND)
    return Starts.on(host)


def without_gain(arms: Iterable[Arm], starts: Starts) -> tuple[list[Arm], list[dict[str, str]]]:
    """Return the arms that have something to test, and `{arm, why}` for those whose caches the host has already."""
    kept, left_out = [], []
    for arm in arms:
        reasons = []
        if arm.bytecode and starts.with_bytecode is None:
            reasons.append("The modules that the loader imports have bytecode already")
        if arm.kernels and starts.with_kernels is None:
            reasons.append("The loader compiles no GPU kernels here, or they are kept already")
        if reasons:
            why = ". ".join(reasons)
            left_out.append({"arm": arm.name, "why": f"{why}: it is {_without_caches(arm)}."})
        else:
            kept.append(arm)
    return kept, left_out


def _without_caches(arm: Arm) -> str:
    """Return what is left of an arm whose cache gives nothing."""
    if len(_caches(arm)) > 1:
        return "an arm with less"
    return "stock" if arm.replay == "none" else f"a replay {arm.replay} without it"


def _caches(arm: Arm) -> list[str]:
    return [name for name, is_asked in (("bytecode", arm.bytecode), ("kernels", arm.kernels)) if is_asked]


def _kernels_of(host: Host, target: Target | None) -> dict[str, str]:
    """Return the environment by which a recorded start finds its kernels; empty where it keeps none."""
    text = host.read_or_none(target.fit) if target else None
    fit = parse_fit(text) if text else None
    return dict(fit.variables) if fit and fit.kernels else {}


def require_recorded(host: Host, arms: Iterable[Arm]) -> Starts:
    """Return the recordings that these arms use. SettingError where something in them has changed since."""
    starts = Starts.on(host)
    for name in sorted({target.name for arm in arms if arm.is_first_token for target in starts.used_by(arm) if target}):
        for row in rows_of(host, name):
            if row["verdict"] != "clean":
                raise SettingError(
                    "sweep_arms",
                    "the start that was recorded for this sweep",
                    row["detail"],
                    "A replay would read what the loader no longer asks for.",
                    "run the sweep again; it records the start anew.",
                )
    return starts


def forget_starts(host: Host, name_begins: str = SWEEP_PREFIX) -> None:
    """Remove what was recorded for a sweep, or that of one name."""
    for name in recorded_targets(host):
        if name.startswith(name_begins):
            remove(host, name)
