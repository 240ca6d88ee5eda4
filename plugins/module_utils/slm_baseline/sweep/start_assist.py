"""The needs of first-token arms: the subject's start, recorded only for the sweep, and the bytecode it lacks.

It is stored like every recorded start, under names reserved for the sweep, and no service uses it. So a rollback
removes it like any other, and an interrupted sweep finds it again; the end of the sweep removes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..first_token.audit import is_set_up, rows_of
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


@dataclass(frozen=True)
class Recorder:
    """How the subject is started for a recording, and the programs that belong to a recorded start, by path."""

    target: Target
    programs: Mapping[str, bytes]

    @staticmethod
    def of(subject: Subject, programs: Mapping[str, str]) -> Recorder:
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
            # An arm is told of bytecode alone.
            kernels=False,
        )
        return Recorder(target, {f"{PROGRAMS}/{name}": text.encode() for name, text in programs.items()})

    def ensure(self, host: Host, with_bytecode: bool) -> None:
        """Record the start, unless that is done already and nothing has changed since."""
        target = self.target
        if with_bytecode:
            target = replace(target, name=WITH_BYTECODE, bytecode=True)
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
    """The recorded starts: the unchanged one, and the one with bytecode; None where it is missing or gains nothing."""

    as_found: Target | None = None
    with_bytecode: Target | None = None

    @staticmethod
    def on(host: Host) -> Starts:
        """Read what this host has recorded for a sweep."""
        targets = recorded_targets(host)
        plain, other = targets.get(AS_FOUND), targets.get(WITH_BYTECODE)
        if other and not host.exists(other.fit):
            # Bytecode gained nothing, so this is the unchanged start.
            return Starts(other)
        return Starts(plain, other)

    def of(self, arm: Arm) -> Target | None:
        """Return the recorded start that an arm uses."""
        return self.with_bytecode if arm.bytecode else self.as_found

    def aid(self, arm: Arm) -> StartAssist:
        """Return what this arm adds to a start. SettingError where the recording it needs is missing."""
        if not arm.is_first_token:
            return StartAssist()
        target = self.of(arm)
        if target is None:
            raise SettingError(
                f"sweep_arms.{arm.name}",
                "a recorded start with bytecode" if arm.bytecode else "a recorded start",
                "none",
                "It was removed, or its modules have bytecode by now, since the sweep was planned.",
                "start a new sweep with -e sweep_new=true.",
            )
        env = {"PYTHONPYCACHEPREFIX": target.pycache} if arm.bytecode else {}
        replay = None if arm.replay == "none" else Replay((PYTHON, "-IS", REPLAYER, target.plan), arm.replay)
        return StartAssist(env, replay)


def record_starts(host: Host, arms: Sequence[Arm], recorder: Recorder | None) -> Starts:
    """Record only what these arms need: one to three cold starts where it is missing."""
    aided = [arm for arm in arms if arm.is_first_token]
    if not aided or recorder is None:
        forget_starts(host)
        return Starts()
    if any(arm.bytecode for arm in aided):
        recorder.ensure(host, with_bytecode=True)
    else:
        forget_starts(host, WITH_BYTECODE)
    found = Starts.on(host)
    if any(not arm.bytecode for arm in aided) and (found.as_found is None or found.as_found.name == AS_FOUND):
        recorder.ensure(host, with_bytecode=False)
    return Starts.on(host)


def without_gain(arms: Iterable[Arm], starts: Starts) -> tuple[list[Arm], list[dict[str, str]]]:
    """Return the arms that have something to test, and `{arm, why}` for those whose bytecode the host has already."""
    kept, left_out = [], []
    for arm in arms:
        if arm.bytecode and starts.with_bytecode is None:
            same = "stock" if arm.replay == "none" else f"a replay {arm.replay} without it"
            why = f"The modules that the loader imports have bytecode already: it is {same}."
            left_out.append({"arm": arm.name, "why": why})
        else:
            kept.append(arm)
    return kept, left_out


def require_recorded(host: Host, arms: Iterable[Arm]) -> Starts:
    """Return the recordings that these arms use. SettingError where something in them has changed since."""
    starts = Starts.on(host)
    for name in sorted({target.name for arm in arms if arm.is_first_token for target in [starts.of(arm)] if target}):
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
