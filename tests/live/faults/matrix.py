"""Every changing system call of a sequence of modules, killed at and failed, and what became of the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.live.faults import stage
from tests.live.faults.modules import Ended, Modules, Step
from tests.live.faults.strace import Call

KILL = "kill"
_FILE = ("EIO", "EROFS", "ENOSPC")
_ERRORS: dict[str, tuple[str, ...]] = {
    "openat": _FILE,
    "write": ("EIO", "ENOSPC"),
    "fsync": ("EIO", "ENOSPC"),
    "rename": _FILE,
    "fchmod": ("EIO", "EROFS"),
    "fchown": ("EIO", "EROFS"),
    "mkdir": _FILE,
    "symlink": _FILE,
    "unlink": ("EIO", "EROFS"),
    "rmdir": ("EIO", "EROFS", "EBUSY"),
    "mount": ("EIO", "EBUSY"),
    "umount2": ("EIO", "EBUSY"),
}
_KERNEL_ERRORS: dict[str, tuple[str, ...]] = {"openat": ("EIO", "EROFS"), "write": ("EIO", "EBUSY")}
_LASTING = ("fsync", "rename", "fchmod", "mkdir", "symlink", "unlink", "rmdir", "mount", "umount2")
"""Calls that can go on failing to the end of the module: not those by which Python itself reads and reports."""

ROLLBACK = Step("memory_snapshot", {"state": "restored"})


@dataclass(frozen=True)
class Fault:
    """One fault: the process is killed before the call is made, or the call fails, once or from then on."""

    call: Call
    kind: str
    lasting: bool = False

    @property
    def tries_again(self) -> bool:
        """Whether the user's next try is tried too."""
        return self.kind in (KILL, _errors_of(self.call)[0])

    @property
    def inject(self) -> str:
        """As strace's -e inject= wants it."""
        what = "signal=KILL" if self.kind == KILL else f"error={self.kind}"
        return f"{self.call.name}:{what}:when={self.call.number}{'+' if self.lasting else ''}"

    def hit(self, ended: Ended) -> bool:
        """Whether the run came to the very call that was meant, and the fault struck there."""
        same = [call for call in ended.calls if (call.name, call.number) == (self.call.name, self.call.number)]
        if not same or same[0].path != self.call.path:
            # The time of the snapshot is part of its name in the archive.
            return bool(same) and "/archive/" in self.call.path and "/archive/" in same[0].path
        return ended.signal == 9 if self.kind == KILL else same[0].injected

    def __str__(self) -> str:
        often = " from then on" if self.lasting else ""
        return f"{self.kind}{often} at {self.call.name} #{self.call.number} {self.call.path}"


def _errors_of(call: Call) -> tuple[str, ...]:
    return _KERNEL_ERRORS[call.name] if call.on_kernel else _ERRORS[call.name]


def faults_of(call: Call) -> Iterator[Fault]:
    """Everything that is tried at one call."""
    yield Fault(call, KILL)
    for error in _errors_of(call):
        yield Fault(call, error)
    if call.name in _LASTING:
        yield Fault(call, "EIO", lasting=True)


@dataclass(frozen=True)
class Scenario:
    """Steps that are faulted one by one, after `before` has run without a fault. `again` is the user's next try."""

    name: str
    before: Sequence[Step]
    steps: Sequence[Step]
    again: Sequence[Step]


@dataclass
class Tally:
    """What was tried in one module of one sequence, and what came of it."""

    sequence: str
    step: str
    points: int = 0
    kills: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    converged: int = 0
    exact: int = 0
    tried_converge: int = 0
    tried_restore: int = 0
    whole: int = 0
    tried_whole: int = 0


class Matrix:
    """Runs sequences on the stage, at every `every`-th point. `problems` collects what went wrong, a sentence each."""

    def __init__(self, modules: Modules, pristine: stage.State, every: int = 1) -> None:
        self.modules = modules
        self.pristine = pristine
        self.every = every
        self.tallies: list[Tally] = []
        self.problems: list[str] = []

    def play(self, sequence: Scenario) -> None:
        """Try every fault of every step."""
        for index, step in enumerate(sequence.steps):
            title = step.module if step is not ROLLBACK else f"{step.module} (restored)"
            tally = Tally(sequence.name, title)
            self.tallies.append(tally)
            self._prepare(sequence, index)
            before = _settings(stage.state())
            clean = self._fine(step, trace=True)
            states = (before, _settings(stage.state()))
            self._start_over()
            # From another point in each step: calls of the same kind stand at the same distance from its begin.
            points = [call for call in clean.calls if call.changes][len(self.tallies) % self.every :: self.every]
            tally.points = len(points)
            for fault in (fault for call in points for fault in faults_of(call)):
                if fault.kind == KILL:
                    tally.kills += 1
                else:
                    tally.errors[fault.kind] += 1
                self._trial(sequence, index, fault, tally, states)

    def _trial(
        self, sequence: Scenario, index: int, fault: Fault, tally: Tally, states: tuple[stage.State, stage.State]
    ) -> None:
        """The fault twice: followed by a rollback at once, and by the user's next try and a rollback.

        The latter is left out where a call fails once with another error than its first: the module's way is the same.
        """
        step = sequence.steps[index]
        where = f"{sequence.name}, {tally.step}, {fault}"
        for converge in (False, True) if fault.tries_again else (False,):
            self._prepare(sequence, index)
            ended = self.modules.run(step, inject=fault.inject)
            if not fault.hit(ended):
                self.problems.append(f"{where}: the fault did not strike ({ended.output[-300:]})")
            if fault.kind != KILL:
                self._check_told(where, fault, ended)
                if not converge and not fault.lasting and step is not ROLLBACK:
                    tally.tried_whole += 1
                    tally.whole += self._is_whole(where, states)
            if converge:
                tally.tried_converge += 1
                tally.converged += self._converges(where, sequence.again)
            tally.tried_restore += 1
            tally.exact += self._restores(f"{where}, {'next run, ' if converge else ''}rollback")

    def _prepare(self, sequence: Scenario, index: int) -> None:
        self.modules.new_run()
        for step in [*sequence.before, *sequence.steps[:index]]:
            self._fine(step)
        self.modules.new_run()

    def _fine(self, step: Step, trace: bool = False) -> Ended:
        ended = self.modules.run(step, trace=trace)
        if not ended.is_fine:
            raise AssertionError(f"{step.module} fails without a fault: {ended.output[-2000:]}")
        return ended

    def _check_told(self, where: str, fault: Fault, ended: Ended) -> None:
        """A failed call must lead to a typed error, or to a result that is true: never to a traceback."""
        typed = "problem" in ended.result or "problems" in ended.result
        if not ended.result or (ended.result.get("failed") and not typed):
            self.problems.append(f"{where}: no typed error but {ended.output[-600:]!r}")

    def _is_whole(self, where: str, states: tuple[stage.State, stage.State]) -> bool:
        """After a call that failed once, all of the module's settings took or none did."""
        found = _settings(stage.state())
        if found not in states:
            self.problems.append(f"{where}: half applied: {_difference(states[0], found)}")
            return False
        return True

    def _converges(self, where: str, again: Sequence[Step]) -> bool:
        self.modules.new_run()
        for round_ in ("next run", "run after it"):
            for step in again:
                ended = self.modules.run(step)
                if not ended.is_fine:
                    self.problems.append(f"{where}, {round_}: {step.module} says {ended.output[-600:]}")
                    return False
                if round_ == "run after it" and ended.result["changed"]:
                    self.problems.append(f"{where}, {round_}: {step.module} changed {ended.result.get('changes')}")
                    return False
        return True

    def _restores(self, where: str) -> bool:
        self.modules.new_run()
        first, second = self.modules.run(ROLLBACK), self.modules.run(ROLLBACK)
        difference = _difference(self.pristine, stage.state())
        good = first.is_fine and second.is_fine and second.result["status"] == "nothing" and not difference
        if not good:
            said = first.output[-600:] if not first.is_fine else second.output[-600:]
            self.problems.append(f"{where}: not exact: {difference} ({said if not difference else ''})")
        self._start_over(force=not good)
        return good

    def _start_over(self, force: bool = True) -> None:
        """Back to pristine for the next trial: by force where the rollback left something."""
        if force:
            stage.clear_folders()
            stage.put_kernel_back(
                {path: value for path, value in self.pristine.items() if path in stage.kernel_state()}
            )
        else:
            stage.forget_runs()


def _settings(state: stage.State) -> stage.State:
    """Knobs, pools, mounts, and files and links in /etc: what a setter promises to change whole or not at all."""
    return {
        path: value
        for path, value in state.items()
        if path.startswith(("/sys/", "/proc/", "mount ")) or (path.startswith("/etc/") and not value.startswith("d"))
    }


def _difference(wanted: stage.State, found: stage.State) -> dict[str, tuple[str | None, str | None]]:
    return {
        path: (wanted.get(path), found.get(path))
        for path in sorted({*wanted, *found})
        if wanted.get(path) != found.get(path)
    }
