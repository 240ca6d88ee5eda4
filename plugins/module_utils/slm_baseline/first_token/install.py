"""Setting a target up: record its start, then put its plan, its bytecode and its units in place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..containers.runtime import Container
from ..host.caches import drop_host_caches
from ..host.deadline import Deadline
from ..host.errors import SettingError, os_problem
from ..host.files import Host
from ..host.mountinfo import read_mountinfo
from ..host.paths import FIRST_TOKEN, PROGRAMS
from ..host.rmtree import remove_folder_if_empty, remove_tree
from ..host.systemd import reload_units, show
from ..host.trust import require_trusted
from .audit import is_linked
from .bytecode import (
    LEAST_MODULES,
    Filled,
    cache_of,
    find_cached,
    find_compiled,
    find_objection,
    fit_of,
    lacks_times,
    with_cached,
)
from .cache import Cache, find_cache_objection, in_making
from .compile_cost import measure_compiling
from .fit import Fit, fit_text
from .given import (
    Gift,
    compose_command,
    compose_override,
    compose_service,
    find_gift,
    find_mounted,
    find_quadlet,
    quadlet_drop_in,
    run_options,
    to_json,
)
from .kernels import Kernels, find_unkept, kernel_cache, kernel_note, kernels_of, places_of
from .places import MARK
from .plan import Plan, PlanFile, to_text
from .recorder.container import start_container, stop_container
from .recorder.guest import Guest, find_guest
from .recorder.interruption import Stopped, make_good, promised
from .recorder.members import Belongs, in_control_group, in_tree
from .recorder.record import PLANNING_S, Look, Recording, plan_file, record
from .recorder.start import Identity, identity_of, start_command
from .recorder.touched import Touched, processes_of
from .recorder.unit import STOP_S, Unit, find_unit, start_unit, stop_unit
from .remove import read_hashes, remove, remove_files
from .target import Target, recorded_targets
from .unit_files import GIVEN_PROGRAMS, STARTER, STARTER_TEXT, mount_units, recording_drop_in, wanted_files

WRITTEN_TELLS = 10
"""A start that wrote more files than this (bytecode, compiled kernels) differs from later ones, which read them."""
UNATTRIBUTED_TELLS = 10
"""Reported when more than one opened file in this many has no identifiable process."""
_OUT_OF_REACH = (
    "bytecode: the start does not keep it in a cache of ours (python -I or -E, PYTHONPYCACHEPREFIX in its environment"
    " file, or a file system of its own), so there is none."
)


@dataclass(frozen=True)
class Given:
    """What a container is given, as `quadlet`, `compose` or `options`, and the file of ours that gives it, if any.
    `mounted` is what it has from an earlier recording.

    `use` is what the user does for it: a command line, options, or nothing for a Quadlet.
    """

    gift: Gift
    how: str
    identity: Identity | None
    files: tuple[tuple[str, str], ...] = ()
    use: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "how": self.how,
            "volumes": self.gift.volumes,
            "environment": self.gift.environment,
            "file": self.files[0][0] if self.files else None,
            "use": self.use or None,
        }

    @property
    def note(self) -> str:
        """Return as a sentence what is kept, and what the user does for it."""
        what = ", ".join(inside for _, inside in self.gift.places)
        if self.how == "mounted":
            return f"container: what {what} hold is kept; the container has our folders mounted."
        if self.how == "quadlet":
            return f"container: what each new container made anew is kept now ({what}), by {self.files[0][0]}."
        done = "it is made anew by" if self.how == "compose" else "it is made anew with these options:"
        return f"container: each new container makes anew what {what} hold; they are kept once {done} {self.use}"


@dataclass
class Outcome:
    """The result of setting up. `notes` are plain sentences; `plan` and the caches are None where there is none."""

    changed: bool
    plan: Plan | None = None
    bytecode: Filled | None = None
    starts: int = 0
    notes: list[str] = field(default_factory=list)
    kernels: Kernels | None = None
    given: Given | None = None
    remade: dict[str, Any] | None = None

    def summary(self, target: Target) -> str:
        """Return one line for people: what was recorded, what is replayed, and how to start a command with it."""
        plan = self.plan or Plan({"page_bytes": "4096"})
        imports, weights = (f"{plan.bytes_of(is_weights) / 1e6:.0f} MB" for is_weights in (False, True))
        words = [f"{target.name}: recorded {imports} of imports and {weights} of weights in {len(plan.files)} files"]
        if self.bytecode:
            words.append(f"{self.bytecode.compiled} modules were compiled at every start, and are kept now")
        if self.kernels:
            words.append(f"kernels that it compiles are kept now ({', '.join(self.kernels.names)})")
        if target.container and not target.unit and target.replay in ("together", "both"):
            runtime = plan.facts.get("runtime", "docker")
            words.append(f"start it with {STARTER} {target.name} -- {runtime} start {target.container}")
        if target.command:
            # Its arguments are not repeated: they may be long, or nobody else's to read.
            words.append(f"to replay it, put {STARTER} {target.name} -- before the command")
        return "; ".join([*words, *self.notes])

    def to_json(self) -> dict[str, Any]:
        plan = self.plan and {
            "files": len(self.plan.files),
            "folders": len(self.plan.folders),
            "imports_bytes": self.plan.bytes_of(weights=False),
            "resident_bytes": self.plan.resident_bytes,
            "weights_bytes": self.plan.bytes_of(weights=True),
        }
        filled = self.bytecode
        # Nothing is compiled beside the start any more, so there is no time to report, and no failure.
        bytecode = filled and {
            "compiled": filled.compiled,
            "copied": filled.copied,
            "failed": 0,
            "compile_s": None,
            "bytes": filled.bytes,
        }
        kernels = self.kernels and {
            "caches": list(self.kernels.names),
            "files": self.kernels.held.files,
            "bytes": self.kernels.held.bytes,
        }
        return {
            "changed": self.changed,
            "plan": plan,
            "bytecode": bytecode,
            "kernels": kernels,
            "given": self.given and self.given.to_json(),
            "remade": self.remade,
            "starts": self.starts,
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Subject:
    """What is recorded: the target, its unit and its container if it has one, and its user; None for a dynamic one."""

    host: Host
    target: Target
    unit: Unit | None
    identity: Identity | None
    touched: Touched = field(default_factory=Touched, compare=False)
    """The pages that any recorded start touched: a plan has all of them."""
    places: dict[str, str] = field(default_factory=dict, compare=False)
    """Where the target's processes keep kernels without us, by variable."""
    guest: Guest | None = None

    @property
    def stopped(self) -> Stopped | None:
        """Return what is stopped for a recording."""
        return self.unit or (self.guest.started if self.guest else None)

    @property
    def knob(self) -> str:
        return f"first_token.{self.target.name}"


@dataclass(frozen=True)
class Kept:
    """The caches that are kept, bytecode or kernels or both: what they were made for, and the plan with them."""

    fit: Fit
    plan: Plan
    caches: tuple[Cache, ...]
    filled: Filled | None
    kernels: Kernels | None


def set_up(host: Host, target: Target, programs: Mapping[str, bytes]) -> Outcome:
    """Record the target's start and put plan, bytecode and units in place; SettingError, with nothing left behind.

    `programs` are GIVEN_PROGRAMS by path. The target is started once or twice, cold: the whole host's page cache is
    dropped before each start. Afterwards a unit runs if it ran before, and so do the units that were stopped with it.
    If this fails, what an earlier recording put in place stays in effect.
    """
    knob = f"first_token.{target.name}"
    is_new = not host.exists(target.folder)
    try:
        require_trusted(host, os.path.dirname(os.path.dirname(FIRST_TOKEN)), knob)
        put_programs(host, target, programs)
        # Before the unit is inspected: it ran before an earlier recording was interrupted.
        make_good(host)
        subject = find_subject(host, target)
        refuse_foreign(host, target, subject.unit)
        os.makedirs(host.path(target.folder), mode=0o755, exist_ok=True)
        return _set_up(subject)
    except OSError as error:
        _clear(host, target, is_new)
        raise os_problem(knob, "its files in place", error) from error
    except BaseException:
        _clear(host, target, is_new)
        raise


def _clear(host: Host, target: Target, is_new: bool) -> None:
    """Remove everything of a failed first recording; ignore errors, since the first one counts."""
    if is_new:
        with contextlib.suppress(OSError):
            remove(host, target.name)


def find_subject(host: Host, target: Target) -> Subject:
    """Return the target with what the host knows of it; SettingError where it cannot be recorded. Changes nothing."""
    if target.command:
        return Subject(host, target, None, identity_of(target, target.user))
    unit = find_unit(target) if target.unit else None
    for name, other in recorded_targets(host).items():
        if name != target.name and other and _is_same_start(target, unit, other):
            raise SettingError(
                f"first_token.{target.name}.{'unit' if unit else 'container'}",
                "one target a unit or container",
                f"{name}, which has {other.unit or other.container} too",
                "Each recording of the one would undo the other's.",
                f"give this target another one, or take the other away: {{name: {name}, state: absent}}.",
            )
    guest = find_guest(host, target, unit)
    if unit is None:
        return Subject(host, target, None, None, guest=guest)
    if guest:
        unit = replace(unit, guests=guest.users, may_listen=guest.may_listen)
    identity = None if unit.has_dynamic_user else identity_of(target, unit.user or "root", unit.group)
    return Subject(host, target, unit, identity, guest=guest)


def _is_same_start(target: Target, unit: Unit | None, other: Target) -> bool:
    if unit:
        return other.unit in (target.unit, unit.name)
    return not other.unit and other.container == target.container


def put_programs(host: Host, target: Target, programs: Mapping[str, bytes]) -> bool:
    """Write the programs to the host; return whether any of them differed. SettingError where one is not given."""
    missing = [os.path.basename(path) for path in GIVEN_PROGRAMS if path not in programs and not host.exists(path)]
    if missing:
        raise SettingError(
            f"first_token.{target.name}.programs",
            ", ".join(missing),
            "not given",
            "They replay, look whether bytecode fits, and start again what was stopped.",
            "give the module `programs`, as roles/first_token does; nothing was stopped or changed.",
        )
    os.makedirs(host.path(PROGRAMS), mode=0o755, exist_ok=True)
    changed = False
    for path, content in {**programs, STARTER: STARTER_TEXT.encode()}.items():
        if (host.read_or_none(path) or "").encode("utf-8", "surrogateescape") != content:
            host.write_durably(path, content, mode=0o755)
            changed = True
    return changed


def refuse_foreign(host: Host, target: Target, unit: Unit | None) -> None:
    """Raise SettingError where a file at one of our paths belongs to somebody else."""
    quadlet = find_quadlet(unit.fact("SourcePath")) if unit else ""
    for path in (*wanted_files(target, [cache_of(target, unit)]), *filter(None, [quadlet])):
        text = host.read_or_none(path)
        if text is not None and not text.startswith(MARK):
            raise SettingError(
                f"first_token.{target.name}",
                f"{path} to be ours",
                "a file that somebody else wrote",
                "It would be overwritten now, and removed by a rollback.",
                "move it away, or choose another name; nothing was stopped or changed.",
            )


def _set_up(subject: Subject) -> Outcome:
    host, target = subject.host, subject.target
    outcome = Outcome(changed=True)
    with promised(host, target, subject.stopped) if subject.stopped else contextlib.nullcontext():
        # The start that is recorded first is one without us, whatever an earlier start was told.
        host.path(target.fit_environment).unlink(missing_ok=True)
        with _without_former_gift(subject):
            first = recording = _record(subject)
        outcome.starts = 1
        kept = None
        if subject.guest:
            recording, outcome.given = _with_gift(subject, subject.guest, recording, outcome)
        else:
            recording, kept = _with_caches(subject, recording, outcome)
        if outcome.starts == 1 and recording.written > WRITTEN_TELLS:
            outcome.notes.append(
                f"plan: the first start wrote {recording.written} files, so one that reads them is recorded, too."
            )
            outcome.starts = 2
            recording = _record(subject)
    if outcome.given:
        recording = replace(recording, plan=outcome.given.gift.left_out_of(recording.plan))
    outcome.plan = recording.plan
    if kept:
        outcome.bytecode, outcome.kernels = kept.filled, kept.kernels
    outcome.notes += notes_of(recording)
    if subject.guest:
        compiled = find_compiled(host, first.seen.opened)
        given = [outcome.given.note] if outcome.given else []
        outcome.notes += subject.guest.notes(target, first, len(compiled), given)
        # What runs again has the host's processors again, and the pages that are read here are in its plan.
        cost = measure_compiling(host, compiled) if len(compiled) >= LEAST_MODULES else None
        outcome.notes += [cost.note] if cost else []
        outcome.remade = {
            "caches": {folder: each.to_json() for folder, each in first.placed.written.items()},
            "bytecode": cost and cost.to_json(),
        }
    _put_in_place(subject, recording.plan, kept, outcome.given)
    return outcome


def _record(subject: Subject, environment: Mapping[str, str] | None = None) -> Recording:
    """Record one cold start. A command gets the environment; a unit gets it by a drop-in."""
    host, target, unit, guest = subject.host, subject.target, subject.unit, subject.guest
    deadline = Deadline.after(STOP_S + target.ready.timeout_s + PLANNING_S)

    def prepare() -> None:
        if unit:
            # Pages that a running process has mapped stay in memory, and would count as read by the start.
            stop_unit(target, unit, deadline)
            if guest:
                guest.require_stopped()
        elif guest and guest.started:
            stop_container(target, guest.started, deadline)
        drop_host_caches(host)

    own = in_control_group(unit.control_group) if unit else in_tree(os.getpid())
    belongs: Belongs = guest.members(own if unit else None) if guest else own

    def start(look: Look) -> None:
        def look_at_places_too() -> None:
            look()
            if environment is None and not guest:
                subject.places.update(places_of(processes_of(belongs)))

        if unit:
            start_unit(target, unit, deadline, look_at_places_too)
        elif guest and guest.started:
            start_container(target, guest.started, deadline, look)
        else:
            start_command(target, environment or {}, look_at_places_too)

    if guest is None:
        return record(host, belongs, prepare, start, deadline, subject.touched)
    return guest.complete(record(host, belongs, prepare, start, deadline, subject.touched, guest.look))


def _with_caches(subject: Subject, first: Recording, outcome: Outcome) -> tuple[Recording, Kept | None]:
    """Record a second start that fills the target's caches, if there are any that are worthwhile.

    Returns the recording that counts, and what is kept.
    """
    target, unit = subject.target, subject.unit
    compiled = _find_compiled(subject, first, outcome.notes) if target.bytecode else []
    kernels = _find_kernels(subject, first, outcome.notes)
    if not compiled and not kernels:
        return first, None
    bytecode = cache_of(target, unit)
    environment: dict[str, str] = {}
    folders: list[tuple[Cache, Sequence[str]]] = []
    if compiled:
        environment = {"PYTHONPYCACHEPREFIX": bytecode.path, "PYTHONDONTWRITEBYTECODE": ""}
        folders.append((bytecode, ()))
    if kernels:
        environment.update(kernels.environment)
        folders.append((kernels.cache, kernels.names))
    outcome.starts = 2
    try:
        with _caches_in_making(subject, folders, environment):
            second = _record(subject, environment)
            kept = _keep(subject, second, compiled, kernels, outcome.notes)
    except (SettingError, OSError) as error:
        # The plan of the first start is still valid.
        kinds = [kind for kind, wanted in (("bytecode", compiled), ("kernels", kernels)) if wanted]
        reason = error.found if isinstance(error, SettingError) else f"{error.filename}: {error.strerror}"
        failed = f"no cache, since the start that fills it failed: {reason}"
        outcome.notes += [f"{kind}: {failed}" for kind in kinds]
        return first, None
    if kept is None:
        return first, None
    return replace(second, plan=kept.plan), kept


def _quadlet(subject: Subject) -> str:
    """Return the path of our drop-in for the target's Quadlet; empty where its unit is none."""
    return find_quadlet(subject.unit.fact("SourcePath")) if subject.unit and subject.guest else ""


@contextlib.contextmanager
def _without_former_gift(subject: Subject) -> Iterator[None]:
    """Take back within the block what a Quadlet was given: the start that is recorded first is one without us.

    If the block fails, it has it again.
    """
    host, path = subject.host, _quadlet(subject)
    text = host.read_or_none(path) if path else None
    if text is None:
        yield
        return
    host.remove_durably(path)
    reload_units(host)
    try:
        yield
    except BaseException:
        write_files(host, {path: text})
        reload_units(host)
        raise


def _with_gift(subject: Subject, guest: Guest, first: Recording, outcome: Outcome) -> tuple[Recording, Given | None]:
    """Give the container folders for what each start makes anew; return the recording that counts, and what is given.

    A Quadlet has them from the next start on, which is recorded and fills them.
    """
    host, target, container = subject.host, subject.target, first.container
    mounted = find_mounted(target.given, container)
    if mounted:
        # It was made with our options: its caches are filled, and lie where they stay.
        return first, Given(mounted, "mounted", None, _former_override(host, target))
    caches = [folder for folder, is_shipped in first.placed.caches.items() if not is_shipped] if target.kernels else []
    compiled = find_compiled(host, first.seen.opened) if target.bytecode else []
    compiles = len(compiled) >= LEAST_MODULES and not lacks_times(host, compiled)
    gift = find_gift(target.given, caches, compiles)
    if gift is None or container is None:
        return first, None
    owner = guest.owners[-1] if guest.owners else "nobody saw which user it is"
    if isinstance(owner, str):
        outcome.notes.append(f"container: no cache is given to {guest.name}, since {owner}.")
        return first, None
    quadlet = _quadlet(subject)
    try:
        with in_making(host, [(target.given, gift.names)], owner):
            if not quadlet:
                return first, _given_by_hand(target, guest, container, gift, owner)
            given = Given(gift, "quadlet", owner, ((quadlet, quadlet_drop_in(target.name, gift)),))
            with _given_to_quadlet(subject, given):
                outcome.starts = 2
                return _record(subject), given
    except (SettingError, OSError) as error:
        # The plan of the first start is still valid.
        reason = error.found if isinstance(error, SettingError) else f"{error.filename}: {error.strerror}"
        outcome.notes.append(f"container: no cache is given, since the start with it failed: {reason}")
        return first, None


def _given_by_hand(target: Target, guest: Guest, container: Container, gift: Gift, owner: Identity) -> Given:
    """Return what is given once the user makes the container anew with it."""
    service = compose_service(container)
    if service:
        files = ((target.override, compose_override(target.name, service, gift)),)
        return Given(gift, "compose", owner, files, compose_command(guest.runtime.name, container, target.override))
    return Given(gift, "options", owner, (), run_options(gift))


def _former_override(host: Host, target: Target) -> tuple[tuple[str, str], ...]:
    text = host.read_or_none(target.override)
    return ((target.override, text),) if text is not None else ()


@contextlib.contextmanager
def _given_to_quadlet(subject: Subject, given: Given) -> Iterator[None]:
    """Write the drop-in for a Quadlet, and see that its unit has it; if that or the block fails, remove it again."""
    host, ((path, text),) = subject.host, given.files
    assert subject.unit
    try:
        write_files(host, {path: text})
        reload_units(host)
        shown = show([subject.unit.name], ["ExecStartEx"]).get(subject.unit.name, {}).get("ExecStartEx", "")
        if not given.gift.is_in(shown):
            raise SettingError(
                f"{subject.knob}.unit",
                f"{subject.unit.name} with the volumes of {path}",
                "Podman's generator does not read the drop-in (it does since Podman 5)",
                "Without it the container has no cache of ours.",
                "see docs/containers.md for what to write by hand.",
            )
        yield
    except BaseException:
        host.remove_durably(path)
        remove_folder_if_empty(host.path(path).parent)
        reload_units(host)
        raise


def _find_compiled(subject: Subject, first: Recording, notes: list[str]) -> list[str]:
    """Return the modules that each start compiles, where a cache of them is worthwhile and allowed; else none."""
    host, unit = subject.host, subject.unit
    objection = find_objection(unit) if unit else ""
    if objection:
        notes.append(f"bytecode: no cache, since {objection}")
        return []
    compiled = find_compiled(host, first.seen.opened)
    if len(compiled) < LEAST_MODULES:
        notes.append("bytecode: nothing to gain, its modules are compiled already")
        return []
    if lacks_times(host, compiled):
        notes.append("bytecode: no cache, since the sources have no times of their own (OSTree, Nix).")
        return []
    return compiled


def _find_kernels(subject: Subject, first: Recording, notes: list[str]) -> Kernels | None:
    """Return the caches of kernels that a start fills in vain, where we may keep them; else None."""
    host, target, unit = subject.host, subject.target, subject.unit
    unkept = find_unkept(host, first.seen.opened, target, unit, subject.identity, subject.places)
    objection = find_cache_objection(unit) if unit else ""
    if not unkept or (target.kernels and not objection):
        return kernels_of(target, unit, unkept) if unkept else None
    notes.append(kernel_note(unkept, target, unit, objection))
    return None


def _keep(
    subject: Subject, second: Recording, compiled: Sequence[str], kernels: Kernels | None, notes: list[str]
) -> Kept | None:
    """Return what of the filled caches is kept, and the plan of a start with them; None for nothing. OSError."""
    host, target, unit = subject.host, subject.target, subject.unit
    caches: list[Cache] = []
    plan, cached, filled = second.plan, {}, None
    if compiled:
        bytecode = cache_of(target, unit)
        cached = find_cached(host, bytecode.folder, list(second.seen.opened))
        if len(cached) < LEAST_MODULES:
            notes.append(_OUT_OF_REACH)
            cached = {}
        else:
            files = _plan_files(cached)
            stored = sum(file.size_bytes for file in files.values())
            filled = Filled(len(set(compiled) & set(cached)), len(set(cached) - set(compiled)), stored)
            plan = with_cached(plan, files)
            caches.append(bytecode)
    if kernels:
        kernels = kernels.with_held(host)
        notes += filter(None, [kernels.note])
        plan = kernels.left_out_of(plan)
        kernels = None if kernels.held.is_too_large else kernels
    if kernels:
        caches.append(kernels.cache)
    if not caches:
        return None
    uid = subject.identity.uid if subject.identity else None
    fit = fit_of(host, target, unit, uid, caches[0] if filled else None, cached)
    return Kept(kernels.added_to(host, fit, unit) if kernels else fit, plan, tuple(caches), filled, kernels)


@contextlib.contextmanager
def _caches_in_making(
    subject: Subject, caches: Sequence[tuple[Cache, Sequence[str]]], environment: Mapping[str, str]
) -> Iterator[None]:
    """Create new caches and tell the unit of them, within the block. If the block fails, restore the former ones."""
    host, target, unit = subject.host, subject.target, subject.unit
    with in_making(host, [(cache.folder, below) for cache, below in caches], subject.identity):
        if unit:
            text = recording_drop_in(environment, [cache for cache, _ in caches])
            write_files(host, {target.recording_drop_in: text})
            reload_units(host)
        yield


def _plan_files(cached: Mapping[str, str]) -> dict[str, PlanFile]:
    deadline = Deadline.after(PLANNING_S)
    found = {}
    for source, path in cached.items():
        with contextlib.suppress(OSError):
            file = plan_file(path, deadline)
            if file:
                found[source] = file
    return found


def _put_in_place(subject: Subject, plan: Plan, kept: Kept | None, given: Given | None = None) -> None:
    """Write the record first, so that all that follows is known to be ours; then the files in it, units last."""
    host, target, unit = subject.host, subject.target, subject.unit
    former = read_hashes(host, target.name)
    caches = kept.caches if kept else ()
    files = wanted_files(target, caches, mount_units(plan, read_mountinfo(host)))
    files.update(given.files if given else ())
    hashes = {path: digest_of(text) for path, text in files.items()}
    document: dict[str, Any] = {"schema_version": 1, "target": target.to_json(), "files": hashes}
    if given:
        found = os.lstat(host.path(target.given))
        document["given"] = to_json(given.gift, found.st_ino, found.st_uid)
    host.write_durably(target.record, json.dumps(document, indent=1).encode() + b"\n", mode=0o600)
    # Names of files that others may not list: for root, which replays a unit's plan, and a command's own group.
    gid = subject.identity.gid if target.command and subject.identity else 0
    text = to_text(plan).encode("utf-8", "surrogateescape")
    host.write_durably(target.plan, text, mode=0o640, gid=gid)
    if kept:
        text = fit_text(kept.fit).encode("utf-8", "surrogateescape")
        host.write_durably(target.fit, text, mode=0o640, gid=gid)
    else:
        host.remove_durably(target.fit)
    for cache in (cache_of(target, unit), kernel_cache(target, unit)):
        if cache.folder not in [each.folder for each in caches]:
            remove_tree(host.path(cache.folder))
    if not given:
        remove_tree(host.path(target.given))
    remove_files(host, {path: digest for path, digest in former.items() if path not in files})
    write_files(host, files)
    _set_link(host, target)
    reload_units(host)


def write_files(host: Host, files: Mapping[str, str]) -> None:
    """Write these texts durably, with the folders that they need. OSError."""
    for path, text in files.items():
        os.makedirs(host.path(path).parent, mode=0o755, exist_ok=True)
        host.write_durably(path, text.encode())


def _set_link(host: Host, target: Target) -> None:
    """Enable our unit for the next boot, or disable it."""
    link = host.path(target.boot_link)
    if target.has_boot_link and not os.path.lexists(link):
        os.makedirs(link.parent, mode=0o755, exist_ok=True)
        os.symlink(target.replay_unit, link)
    elif not target.has_boot_link and is_linked(host, target):
        host.remove_durably(target.boot_link)
        remove_folder_if_empty(link.parent)


def digest_of(text: str) -> str:
    """Return the digest by which a file of ours is recognized."""
    return hashlib.sha256(text.encode()).hexdigest()


def notes_of(recording: Recording) -> list[str]:
    """Return what a user should know of a recording, as plain sentences."""
    seen, notes = recording.seen, []
    if not recording.plan.files:
        notes.append("plan: nothing to replay; the start left nothing in the page cache (O_DIRECT, or no disk below).")
    if recording.plan.facts["spinning"] == "1":
        notes.append("plan: the disk has to seek, so one reader replays it, in the order of the start.")
    if seen.overflowed:
        notes.append("plan: the kernel dropped events, or others opened so much that not all could be read in time.")
    if recording.unasked:
        notes.append(f"plan: {recording.unasked} files did not answer in time, or lie with another user's program.")
    if recording.refused:
        notes.append(
            f"plan: page tables could not be read in {recording.refused} looks, so what the kernel read around touched"
            " pages is in the plan, too."
        )
    notes += [f"plan: not watched: {mount}." for mount in seen.unwatched]
    if seen.elsewhere * UNATTRIBUTED_TELLS > len(seen.opened):
        notes.append(
            f"plan: {seen.elsewhere} opened files lie where only the unit sees them (a container's, or mounts"
            " of its own), and are not in the plan."
        )
    # On a busy host these are mostly processes of others; only a large number can leave a gap in the plan.
    if seen.unattributed * UNATTRIBUTED_TELLS > len(seen.opened):
        notes.append(
            f"plan: {seen.unattributed} opened files belong to processes that ended before they could be"
            " asked who they are; those of the target among them are missing."
        )
    return notes


def stops_of(subject: Subject) -> list[dict[str, Any]]:
    """Return what recording this target stops and restarts, how often at most, and what is stopped with it."""
    stopped = subject.stopped
    if stopped is None:
        return []
    return [
        {
            "target": subject.target.name,
            "unit": subject.target.starts if subject.unit is None else stopped.name,
            "runs": stopped.ran,
            "times": 2,
            "with": list(subject.unit.others) if subject.unit else [],
        }
    ]
