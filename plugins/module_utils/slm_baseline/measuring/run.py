"""The measurement that a user asked for: checked before any change on the host, then run block by block."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..host.accounts import Account, find_account
from ..host.errors import SettingError
from ..host.files import Host
from ..host.sizes import tell_size
from ..host.trust import acting_as
from .imports.profile import profile_imports
from .install.environment import (
    Environment,
    absolute_path,
    find_base_python,
    fresh_scratch,
    is_built,
    parse_environment,
)
from .install.image import (
    find_launcher,
    remove_left_containers,
    require_gpus_inside,
    with_layers,
    with_real_path,
)
from .install.install_dir import require_home
from .install.interpreter import PACKAGES, Interpreter, require_packages
from .install.trial import require_known, try_model
from .loader.events import LoaderReport
from .loader.process import BARE, Loader
from .model.files import EMBEDDED_MODEL_BYTES, PASS, Model, ModelPlace, Reader, barrier, read_config, resolve_model
from .probes.canary import best_canary
from .probes.copy_bandwidth import SCRIPT, measure_copy_rates
from .probes.gpu import DRIVER_VERSION, GpuFacts, read_gpus
from .probes.headroom import needed_bytes, require_free_gpus, require_memory
from .probes.host_facts import host_facts
from .probes.kernel_cost import profile_kernels
from .protocol import NEW_TOKENS, SCOPES, WANTED, Progress, Subject, ceiling_passes, ceiling_record, measure_sample
from .sample import CeilingRecord, Sample, Shared, Trial, to_document
from .store import Block, append_sample, close_block, finished_blocks, samples_path

_DTYPES = ("auto", "float32", "bfloat16", "float16")
LOADER = "slm_load.py"
_SPARE_BYTES = 512 << 20
_ENVIRONMENT_BYTES = 3 << 30
_CUDA_ENVIRONMENT_BYTES = 12 << 30
"""A CUDA build of torch brings its libraries as packages, and pip unpacks them beside its downloads."""


@dataclass(frozen=True)
class Request:
    """What to measure and how, checked for validity; nothing about the host is known yet.

    `trial` is the text of files/try_model.py; if empty, nothing is tried. `allow_busy_gpu` measures even if others use
    a GPU.
    """

    environment: Environment
    place: ModelPlace
    dtype: str
    scope: str
    blocks: int
    timeout_s: float
    user: str
    trial: str = ""
    allow_busy_gpu: bool = False


def parse_request(params: Mapping[str, Any]) -> Request:
    """Parse a module's parameters to a request; SettingError names the role's variable that holds a bad one."""
    return Request(
        environment=parse_environment(params),
        place=parse_model(params),
        dtype=_choice("slm_benchmark_dtype", params["dtype"], _DTYPES),
        scope=_choice("slm_benchmark_cold_scope", params["scope"], SCOPES),
        blocks=int(_number("slm_benchmark_runs", params["blocks"], 1, 10_000, whole=True)),
        timeout_s=_number("slm_benchmark_timeout_s", params["timeout_s"], 1, 86_400),
        user=str(params["user"] or ""),
        trial=str(params.get("trial") or ""),
        allow_busy_gpu=bool(params.get("allow_busy_gpu")),
    )


def parse_model(params: Mapping[str, Any]) -> ModelPlace:
    """Parse a module's parameters to the place of a model."""
    home = absolute_path("slm_benchmark_home", params["home"])
    hf_home = params["hf_home"]
    return ModelPlace(
        home=home,
        model=str(params["model"] or ""),
        revision=str(params["revision"] or ""),
        hf_home=absolute_path("slm_benchmark_hf_home", hf_home) if hf_home else f"{home}/huggingface",
        offline=bool(params["offline"]),
    )


def parse_block(value: object, blocks: int) -> int:
    """Parse the number of a block of a run, from 1."""
    return int(_number("block", value, 1, blocks, whole=True))


def require_measurable(host: Host, request: Request) -> dict[str, Any]:
    """Check, before anything on the host changes, all that would stop the measurement; reads only.

    Raises the first SettingError: not root, an unknown or privileged user, a home that is another user's or that the
    user cannot reach, an interpreter that lacks packages or that the user cannot run, a model that is missing, damaged
    or unreadable, one that this interpreter has no class, quantiser or tokenizer for, too little space for what is
    still to be made, too little memory for the model, a GPU that others use, an image that cannot run the loader.
    """
    _require_root(host)
    account = find_account(request.user)
    needed = 0
    environment = request.environment
    require_home(host, environment.home)
    launcher = find_launcher(host, environment)
    if is_built(host, environment):
        _require_way(host, environment, account)
        interpreter = require_packages(environment.interpreter, account, launcher)
        with_layers(host, interpreter, launcher, request.scope)
        require_gpus_inside(environment.interpreter, account, launcher)
    else:
        find_base_python(host, environment, account)
        needed += _CUDA_ENVIRONMENT_BYTES if host.exists(DRIVER_VERSION) else _ENVIRONMENT_BYTES
    if request.place.model in EMBEDDED_MODEL_BYTES:
        embedded = request.place.embedded_path
        size = EMBEDDED_MODEL_BYTES[request.place.model]
        needed += max(0, size - _size_of(host, embedded))
        # Assumes that all elements have two bytes.
        memory = needed_bytes(size, size // 2, request.dtype)
        model = None
    else:
        model = find_model(host, request.place, account)
        memory = needed_bytes(model.weight_bytes, model.parameters, request.dtype)
    if needed:
        _require_room(host, request, needed)
    require_memory(host, memory)
    require_idle_gpus(host, request)
    tried = False
    if model is not None and is_built(host, environment):
        tried = require_loadable(host, environment, request.trial, model, account)
    elif model is not None:
        with acting_as(account.uid, account.gid):
            config, names = read_config(host, model), host.names(model.path)
        require_known(config, names, model.path, environment)
    return {
        "interpreter": environment.interpreter,
        "to_make_bytes": needed,
        "tried": request.place.model if tried else "",
    }


def require_loadable(host: Host, environment: Environment, program: str, model: Model, account: Account | None) -> bool:
    """Raise SettingError for a model for which the loader's Python has no class, quantiser or tokenizer.

    `program` is the text of files/try_model.py. Return whether it ran: not where it is empty, nor for an embedded
    model, which we make ourselves. The environment must be there.
    """
    if not program or model.source == "embedded":
        return False
    launcher = find_launcher(host, environment, model)
    path = str(host.path(model.path)) if launcher is BARE else with_real_path(host, model).path
    try_model(program, environment, path, account, launcher)
    return True


def require_model_memory(host: Host, model: Model, dtypes: Sequence[str]) -> None:
    """Raise SettingError where there is too little memory to load the model in one of these dtypes."""
    require_memory(host, max(needed_bytes(model.weight_bytes, model.parameters, dtype) for dtype in dtypes))


def require_idle_gpus(host: Host, request: Request) -> GpuFacts:
    """Return what the driver tells; SettingError where others use a GPU, unless the request allows it.

    Takes seconds on an idle driver.
    """
    gpus = read_gpus(host) if host.is_live else GpuFacts(None)
    require_free_gpus(gpus, request.allow_busy_gpu)
    return gpus


def find_model(host: Host, place: ModelPlace, account: Account) -> Model:
    """Find the model with the loader user's rights; every file must exist and be readable by that user.

    Any user may own it, and a link in it may lead anywhere: root would follow it to files that this user may not see.
    """
    with acting_as(account.uid, account.gid):
        return resolve_model(host, place, _reader(account))


def _reader(account: Account) -> Reader:
    """Return that user as the loader runs it, without supplementary groups."""
    return Reader(account.name, account.uid, (account.gid,))


def make_subject(host: Host, request: Request) -> Subject:
    """Look up and check on the host what a sample needs."""
    account = find_account(request.user)
    environment = request.environment
    model = find_model(host, request.place, account)
    launcher = find_launcher(host, environment, model)
    remove_left_containers(host, launcher)
    interpreter = with_layers(
        host, require_packages(environment.interpreter, account, launcher), launcher, request.scope
    )
    home = str(host.path(environment.home))
    scratch = fresh_scratch(host, environment)
    loader = Loader(
        python=environment.interpreter,
        script=f"{home}/{LOADER}",
        arguments=(),
        account=account,
        timeout_s=request.timeout_s,
        scratch=scratch,
        launcher=launcher,
    )
    if launcher is not BARE:
        # In a container there are only the paths without links, and the kernel wants a whole one to execute.
        home, scratch = os.path.realpath(home), os.path.realpath(scratch)
        model = with_real_path(host, model)
        loader = replace(loader, python=interpreter.executable, script=f"{home}/{LOADER}", scratch=scratch)
    return Subject(loader, model, interpreter, request.scope)


@dataclass(frozen=True)
class SettingsWatch:
    """How a measurement reads the host's settings without importing them.

    `read` returns their values by flat name, `changed` says in words how two such readings differ, empty where equal.
    """

    read: Callable[[Host], dict[str, str]]
    changed: Callable[[Mapping[str, str], Mapping[str, str]], str]


def measure_block(host: Host, request: Request, run_id: str, number: int, watch: SettingsWatch) -> dict[str, Any]:
    """Measure one block, cold then warm, unless this run has finished it already; return its samples and its line.

    A finished block has the same subject, settings and request: one process may tune and measure twice. The settings
    are those at the start of the first block; a sample under others has failed. Every sample is on the host's disk
    before the next one starts. The result of the last block has `benchmark`: the whole run for the result document.
    """
    _require_root(host)
    samples_path(run_id)
    done = finished_blocks(host, run_id)
    progress = Progress(number, request.blocks)
    subject = replace(make_subject(host, request), new_tokens=NEW_TOKENS)
    identity = _identity(host, request, subject)
    first = done[1].shared if number > 1 and 1 in done else Shared()
    settings = first.settings or {}
    if not first.fingerprint or first.fingerprint != _fingerprint(identity, settings):
        settings = watch.read(host)
    fingerprint = _fingerprint(identity, settings)
    done = {each: block for each, block in done.items() if block.shared.fingerprint == fingerprint}
    is_new = number not in done
    if is_new:
        about = Shared(settings=settings, fingerprint=fingerprint)
        earlier = [sample for block in done.values() for sample in block.samples]
        # Checked again, since tuning may have taken memory for pools meanwhile.
        require_model_memory(host, subject.model, [request.dtype])
        done[number] = _measure(host, _Work(request, subject, run_id, watch), number, about, earlier)
    block = done[number]
    line = progress.line(block.samples) if is_new else f"block {number} of {request.blocks}: measured before"
    samples = [sample.to_json() for sample in block.samples]
    result: dict[str, Any] = {"changed": is_new, "msg": line, "samples": samples}
    if number == request.blocks:
        blocks = [done[each] for each in sorted(done) if each <= request.blocks]
        result["benchmark"] = whole_run(host, request, subject, blocks)
        loader = subject.loader_of(Trial(number, "warm", dtype=request.dtype))
        result["benchmark"]["imports"] = profile_imports(loader, subject.files)
        # Only GPU hosts compile kernels for their first token.
        has_gpu = bool(result["benchmark"]["host"]["gpus"])
        result["benchmark"]["kernels"] = profile_kernels(loader, subject.files) if has_gpu else None
    return result


def subject_record(host: Host, request: Request, subject: Subject) -> dict[str, Any]:
    """Return what is measured and how: what must stay the same for samples to be comparable."""
    return {
        "model": subject.model.as_dict(),
        "python": request.environment.interpreter,
        "packages": subject.interpreter.packages,
        "scope": subject.scope,
        "timeout_s": subject.loader.timeout_s,
        "user": request.user,
        # A reboot in between may have started another kernel.
        "kernel": platform.release(),
        "gpu_driver": (host.read_or_none(DRIVER_VERSION) or "").partition("\n")[0],
        "loader_sha256": loader_sha256(host, request),
        **({"image": image} if (image := subject.loader.launcher.record()) else {}),
    }


def _identity(host: Host, request: Request, subject: Subject) -> dict[str, Any]:
    """Return the identity of subject and request; a model that was written again is another one."""
    written = {file.name: os.stat(host.path(file.path)).st_mtime_ns for file in subject.model.files}
    return {**subject_record(host, request, subject), "dtype": request.dtype, "written": written}


def _fingerprint(identity: Mapping[str, Any], settings: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([identity, settings], sort_keys=True).encode()).hexdigest()


def whole_run(host: Host, request: Request, subject: Subject, blocks: Sequence[Block]) -> dict[str, Any]:
    """Return the measurement's part of the result document: host, model, software, protocol, ceiling, samples."""
    shared = [block.shared for block in blocks]
    return {
        **run_facts(host, request, subject, shared),
        "samples": [sample.to_json() for block in blocks for sample in block.samples],
    }


def run_facts(host: Host, request: Request, subject: Subject, shared: Sequence[Shared]) -> dict[str, Any]:
    """Return a document's facts of a run besides its samples: host, model, software, protocol, ceiling.

    `shared` is in the order of blocks. A sweep that died between a block's last sample and its closing line has one
    less: the ceiling is unknown where no line has it.
    """
    ceilings = [each.ceiling for each in shared if each.ceiling]
    first = ceilings[0] if ceilings else CeilingRecord((), None, None)
    software = next((each.software for each in shared if each.software), None)
    loaded = next((each.loaded for each in shared if each.loaded), None)
    gpus = read_gpus(host)
    return {
        "host": {
            **host_facts(host, subject.model.path),
            "gpus": [gpu.as_dict() for gpu in gpus.gpus],
            "gpu_driver": gpus.driver,
            "cuda": gpus.cuda,
        },
        "model": {**subject.model.as_dict(), "loaded": to_document(loaded) if loaded else None},
        "software": software or package_versions(subject.interpreter),
        "image": subject.loader.launcher.record(),
        "protocol": {
            "blocks": request.blocks,
            "cold_scope": request.scope,
            "timeout_s": request.timeout_s,
            "user": request.user,
            "dtype": request.dtype,
            "loader_sha256": loader_sha256(host, request),
        },
        "ceiling": {
            "bytes_per_s": [rate for each in ceilings for rate in each.bytes_per_s],
            "streams": first.streams,
            "trials": [to_document(trial) for each in ceilings for trial in each.trials],
            "guest_cold": first.guest_cold,
            "host_to_device": measure_copy_rates(subject.loader, f"{os.path.dirname(subject.loader.script)}/{SCRIPT}")
            if gpus.gpus
            else [],
        },
    }


def loader_sha256(host: Host, request: Request) -> str:
    """Return the hash of the loader that measures."""
    return hashlib.sha256(host.path(f"{request.environment.home}/{LOADER}").read_bytes()).hexdigest()


def package_versions(interpreter: Interpreter) -> dict[str, Any]:
    """Return versions from package metadata, for a run in which no loader came far enough to report them."""
    return {
        "python": ".".join(map(str, interpreter.version)),
        **{name: interpreter.packages[name] for name in PACKAGES},
    }


@dataclass(frozen=True)
class _Work:
    """What is the same for every block of a run."""

    request: Request
    subject: Subject
    run_id: str
    watch: SettingsWatch


def _measure(host: Host, work: _Work, number: int, about: Shared, earlier: Sequence[Sample]) -> Block:
    """Measure one block; `earlier` are the run's samples so far."""
    # A second pass, only in the first block, shows whether a layer below this host caches.
    passes = ceiling_passes(work.subject, 2 if number == 1 else 1)
    samples: list[Sample] = []
    report: LoaderReport | None = None
    wanted_settings = about.settings or {}
    for order, wanted in enumerate(WANTED):
        before = work.watch.changed(wanted_settings, work.watch.read(host))
        trial = Trial(number, wanted, order, work.request.dtype)
        best = best_canary(each.canary for each in (*earlier, *samples))
        sample, told = measure_sample(host, work.subject, trial, passes[0], best)
        changed = before or work.watch.changed(wanted_settings, work.watch.read(host))
        if changed:
            sample = replace(sample, kind="failed", reason=f"another writer changed {changed} meanwhile")
        append_sample(host, work.run_id, sample)
        samples.append(sample)
        report = told or report
    shared = replace(
        about,
        ceiling=ceiling_record(passes),
        software=report.software if report else None,
        loaded=report.loaded if report else None,
    )
    close_block(host, work.run_id, number, shared)
    return Block(number, tuple(samples), shared)


def _require_root(host: Host) -> None:
    if host.is_live and os.geteuid() != 0:
        raise SettingError(
            "slm_benchmark",
            "root",
            f"user id {os.geteuid()}",
            "Only root may drop caches and read their true state; the loader itself runs unprivileged.",
            "connect as root, or give become a way to it (--become, --ask-become-pass).",
        )


def _require_way(host: Host, environment: Environment, account: Account) -> None:
    """Check that the loader's user can enter `home` as far as it exists: the script and each run's home lie there."""
    folder = host.path(environment.home)
    while not folder.exists():
        folder = folder.parent
    closed = barrier(folder, _reader(account), PASS)
    if closed:
        raise SettingError(
            "slm_benchmark_home",
            f"a folder that {account.name} can reach",
            environment.home,
            f"{closed} is closed to {account.name}, and the loader runs as {account.name}.",
            f"open {closed} to {account.name}, or choose another folder, such as /opt/slm-baseline.",
        )


def _require_room(host: Host, request: Request, needed: int) -> None:
    folder = host.path(request.environment.home)
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise SettingError(
            "slm_benchmark_home",
            f"{tell_size(needed + _SPARE_BYTES)} free for {request.environment.home}",
            tell_size(free),
            "The environment and the model need this room.",
            "make room, or set slm_benchmark_home to a folder on another disk.",
        )


def _size_of(host: Host, folder: str) -> int:
    return sum(host.path(f"{folder}/{name}").lstat().st_size for name in host.names(folder))


def _choice(knob: str, value: object, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise SettingError(
            knob, " or ".join(choices), repr(value), "No other value is supported.", f"set {knob} to one of them."
        )
    return str(value)


def _number(knob: str, value: object, least: float, most: float, whole: bool = False) -> float:
    """Parse a number from YAML or from `-e name=3`, which gives text."""
    kind = "a whole number" if whole else "a number"
    try:
        number = float(str(value)) if not whole else int(str(value))
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not least <= number <= most:
        raise SettingError(
            knob,
            f"{kind} from {least:g} to {most:g}",
            repr(value),
            "Other values are not supported.",
            f"correct {knob}.",
        )
    return number
