#!/usr/bin/env python3
"""The loader under test: loads a small language model, makes its first tokens, and reports when each phase ended.

By hand: `python slm_load.py` prints `loaded MODEL on DEVICE`. For the benchmark it writes one JSON object a line to
`--events-fd`, holds the model after the first token until a byte arrives on `--hold-fd`, and continues.

Every instant is CLOCK_MONOTONIC at the end of its phase, on a GPU after every device has finished. Counters (bytes read
by this process, page faults, CPU seconds) are totals since the process started; see proc_pid_io(5) and getrusage(2).
The prompt is decoded greedily with the cache that the model returns, and every token is read back to the host, which
is when a user sees it. A model that returns no cache gets all tokens again for each one, as in `generate`.
`transformers` would import a model's own code when it loads the weights; it is imported before, so that the phase
`weights` is only the weights.

Weight files are recorded as they are opened; what the model holds of them is read outside the measured time.

In a container there are no inherited descriptors: `--channel FOLDER` names a folder with both as named pipes.

As a template (`--template-fd`) it imports everything, then forks a child for each request that comes through that
socket with three descriptors: events, hold and stderr. A child starts at a byte on its hold descriptor, and runs like
any loader from its tokenizer on.

Exit status: 0 done, 1 the observer ended or the device failed, 2 bad arguments or a model that cannot be loaded.
"""

from __future__ import annotations

import time

_INTERPRETER_NS = time.monotonic_ns()

import argparse  # noqa: E402  the instant above must come before every import that costs something
import ctypes  # noqa: E402
import importlib  # noqa: E402
import inspect  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from typing import Any, NamedTuple, NoReturn  # noqa: E402

MODEL = "Qwen/Qwen2.5-0.5B"
PROMPT = "The quick brown fox jumps over the lazy dog. What does the dog do next?"
DTYPES = ("auto", "float32", "bfloat16", "float16")
STOPS = ("loaded", "first_token", "second_token")
READY = b"r"
ADOPTION_S = 10.0
CACHES = ("past_key_values", "cache_params", "state", "mems")
"""Names of models' caches (attention, state-space, rwkv, XLNet); the next call takes a cache by the same name."""
NAMES_TOLD = 8
ALWAYS_IGNORED = r"rotary_emb\.inv_freq$"
"""In old llama and pythia files: transformers computes it, and does not report that it ignores it (5.23)."""
MADV_POPULATE_WRITE = 23


class LoadError(Exception):
    """A model or an environment that cannot be used; the text is the one line that the user sees."""


def parse_read_bytes(io_text: str) -> int | None:
    """Parse `read_bytes` of /proc/PID/io, what this process read from disk; None where the kernel omits it."""
    for line in io_text.splitlines():
        name, _, value = line.partition(":")
        if name == "read_bytes":
            return int(value)
    return None


def counters() -> dict[str, Any]:
    """Return this process's totals: bytes read from disk (None where unknown), faults, CPU seconds."""
    try:
        with open("/proc/self/io", encoding="ascii") as stream:
            read_bytes = parse_read_bytes(stream.read())
    except OSError:
        read_bytes = None
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "read_bytes": read_bytes,
        "minor_faults": usage.ru_minflt,
        "major_faults": usage.ru_majflt,
        "cpu_user_s": usage.ru_utime,
        "cpu_system_s": usage.ru_stime,
    }


class Events:
    """Writer of the event protocol; without an observer it does nothing and costs nothing."""

    def __init__(self, events_fd: int | None, hold_fd: int | None) -> None:
        self._events_fd = events_fd
        self._hold_fd = hold_fd

    def at(self, name: str, t_ns: int, **facts: Any) -> None:
        """Write an event with an instant that was taken before."""
        if self._events_fd is None:
            return
        line = json.dumps({"event": name, "t_ns": t_ns, **counters(), **facts}) + "\n"
        data = line.encode()
        while data:
            data = data[os.write(self._events_fd, data) :]

    def now(self, name: str, **facts: Any) -> None:
        """Write an event with the current instant."""
        self.at(name, time.monotonic_ns(), **facts)

    @property
    def watched(self) -> bool:
        return self._events_fd is not None

    def hold(self) -> None:
        """Block until the observer has read what it needs; this time belongs to no phase."""
        if self._hold_fd is not None:
            if not os.read(self._hold_fd, 1):
                raise BrokenPipeError("the observer closed the hold descriptor")
            self.now("resumed")


def synchronize(torch: Any) -> None:
    """Wait until every device has finished; only then has a phase ended."""
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            torch.cuda.synchronize(index)


def prepare_devices(torch: Any) -> None:
    """Create every device's context, which `device_map="auto"` would otherwise do within the weights phase."""
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            torch.empty(1, device=f"cuda:{index}")


def silence() -> None:
    """Turn off progress bars, advice and telemetry of the libraries, which would cost time and mix with the output."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        # Only this warning says why a host with GPUs loads on its CPU: torch asks the driver, warns and continues.
        warnings.filterwarnings("default", message="CUDA initialization")


def import_package(name: str) -> Any:
    """Import a package of the host's environment; LoadError in one line where this Python lacks it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LoadError(f"{sys.executable} cannot import {name}: {one_line(error)}") from error


def note_opened_weights() -> list[str]:
    """Wrap safetensors' open function; return the list to which each opened file's path is appended.

    transformers opens all weights by this function, whatever the config says. Call this before transformers imports the
    function by name.
    """
    opened: list[str] = []
    for module in (import_package("safetensors"), sys.modules.get("safetensors.torch")):
        original = getattr(module, "safe_open", None)
        if original is not None:
            module.safe_open = _noting(original, opened)  # type: ignore[union-attr]  # it has one
    return opened


def _noting(original: Any, opened: list[str]) -> Any:
    def safe_open(filename: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(os.fspath(filename))
        return original(filename, *arguments, **options)

    return safe_open


def is_offline(model: str, environment: dict[str, str]) -> bool:
    """Return whether nothing may be downloaded: for a local folder, or where the environment says so."""
    asked = (environment.get(name, "").upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return os.path.isdir(model) or any(value in {"1", "ON", "YES", "TRUE"} for value in asked)


def device_names(placement: Any) -> str:
    """Return `cpu` or `cuda:0,cuda:1`: the distinct devices of a placement, in the order first used.

    `placement` yields the values of accelerate's device map: an index, a name or a torch device.
    """
    names: list[str] = []
    for place in placement:
        name = f"cuda:{place}" if isinstance(place, int) else str(place)
        name = "cuda:0" if name == "cuda" else name
        if name not in names:
            names.append(name)
    return ",".join(names)


def device_of(model: Any) -> str:
    """Return the devices that hold a model's weights."""
    device_map = getattr(model, "hf_device_map", None)
    return device_names(device_map.values() if device_map else (p.device for p in model.parameters()))


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text, truncated, or its type where it has none."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0].strip()[:300] or type(error).__name__


def import_model_code(transformers: Any, options: argparse.Namespace) -> None:
    """Import what `from_pretrained` would import while loading this model: 1,000 modules, most of a warm load.

    Errors of a model that cannot be used are left to the load itself.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(
            options.model,
            revision=options.revision,
            trust_remote_code=False,
            local_files_only=is_offline(options.model, dict(os.environ)),
        )
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    # A damaged file can make the underlying parsers raise anything.
    except Exception:
        return


def load_tokenizer(transformers: Any, options: argparse.Namespace) -> Any:
    """Load the model's tokenizer; LoadError where none works."""
    try:
        return transformers.AutoTokenizer.from_pretrained(
            options.model,
            revision=options.revision,
            trust_remote_code=False,
            local_files_only=is_offline(options.model, dict(os.environ)),
        )
    # A damaged file can make the underlying parsers raise anything.
    except Exception as error:
        raise LoadError(f"the tokenizer of {options.model!r} cannot be loaded: {one_line(error)}") from error


def load_model(torch: Any, transformers: Any, options: argparse.Namespace) -> tuple[Any, list[str]]:
    """Load the model on its devices; return it and the stored names for which it has no place.

    LoadError for files that are missing, unreadable, damaged or incomplete.
    """
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            options.model,
            revision=options.revision,
            dtype=options.dtype if options.dtype == "auto" else getattr(torch, options.dtype),
            device_map=options.device_map,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=is_offline(options.model, dict(os.environ)),
            output_loading_info=True,
        )
    except (MemoryError, getattr(torch, "OutOfMemoryError", MemoryError)):
        raise
    except Exception as error:
        raise LoadError(f"{options.model!r} cannot be loaded: {one_line(error)}") from error
    missing = sorted(info["missing_keys"])
    # transformers initialises weights that the files lack at random and only warns: the run would measure another
    # model.
    if missing:
        raise LoadError(f"{options.model!r} lacks {len(missing)} of its weights, {missing[0]!r} among them")
    return model, sorted(info["unexpected_keys"])


class Decoder:
    """Greedy decoding with the cache that the model returns, one token a step, each read back to the host."""

    def __init__(self, torch: Any, model: Any) -> None:
        self._torch = torch
        self._model = model
        self._accepted = inspect.signature(model.forward).parameters
        self._cache: dict[str, Any] = {}
        self._fed: Any = None

    @property
    def is_cached(self) -> bool:
        """Return whether the last step left a cache; without one every step computes all tokens again."""
        return bool(self._cache)

    def step(self, token_ids: Any) -> int:
        """Return the id of the token after `token_ids` (shape 1 x n) and everything fed before them."""
        with self._torch.inference_mode():
            if not self._cache:
                # Needed only for a model without a cache.
                token_ids = self._fed = token_ids if self._fed is None else self._torch.cat([self._fed, token_ids], 1)
            options = {"use_cache": True} if "use_cache" in self._accepted else {}
            try:
                output = self._model(input_ids=token_ids, **options, **self._cache)
            # A device error or out of memory: not the model's fault.
            except (RuntimeError, MemoryError):
                raise
            except Exception as error:
                raise LoadError(f"{type(self._model).__name__} makes no token: {one_line(error)}") from error
            self._cache = self._cache_of(output)
            return int(output.logits[0, -1].argmax().item())

    def _cache_of(self, output: Any) -> dict[str, Any]:
        for name in CACHES:
            cache = getattr(output, name, None)
            if cache is not None and name in self._accepted:
                return {name: cache}
        return {}


def gpu_facts(torch: Any) -> list[dict[str, Any]] | None:
    """Return what torch reports of every CUDA device, or None where there is none."""
    if not torch.cuda.is_available():
        return None
    facts = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        facts.append(
            {
                "index": index,
                "name": properties.name,
                # In the form of NVML and nvidia-smi.
                "uuid": f"GPU-{properties.uuid}",
                "capability": f"{properties.major}.{properties.minor}",
                "total_bytes": properties.total_memory,
                "allocated_bytes": torch.cuda.memory_allocated(index),
                "reserved_bytes": torch.cuda.memory_reserved(index),
                "peak_allocated_bytes": torch.cuda.max_memory_allocated(index),
                "cuda": torch.version.cuda,
            }
        )
    return facts


def memory_facts() -> dict[str, int]:
    """Return this process's memory in bytes, as psutil reads it from /proc/self/smaps_rollup or smaps."""
    memory = import_package("psutil").Process().memory_full_info()
    return {"rss_bytes": memory.rss, "vsz_bytes": memory.vms, "uss_bytes": memory.uss, "pss_bytes": memory.pss}


def software_versions() -> dict[str, str]:
    """Return the versions of Python and of every package that takes part."""
    packages = ("torch", "transformers", "accelerate", "safetensors", "tokenizers", "psutil")
    versions = {name: str(getattr(import_package(name), "__version__", "unknown")) for name in packages}
    return {"python": sys.version.split()[0], **versions}


def held_facts(torch: Any, held: Held) -> dict[str, Any]:
    """Return everything about the held model, outside the measured time. Memory first: the rest allocates some."""
    return {
        "memory": memory_facts(),
        "device": device_of(held.model),
        "dtype": held_dtype(held.model),
        "parameters": sum(parameter.numel() for parameter in held.model.parameters()),
        "gpu": gpu_facts(torch),
        "software": software_versions(),
        "loaded": loaded_facts(held),
    }


class Held(NamedTuple):
    """A model that has made its first token. `unexpected` are stored names for which transformers found no place."""

    model: Any
    unexpected: list[str]
    opened: list[str]
    is_cached: bool


def held_dtype(model: Any) -> str:
    """Return the dtype of most parameter bytes, or the quantiser's name where these are packed integers."""
    by_dtype: dict[str, int] = {}
    for parameter in model.parameters():
        name = str(parameter.dtype).replace("torch.", "")
        by_dtype[name] = by_dtype.get(name, 0) + parameter.numel() * parameter.element_size()
    most = max(by_dtype, key=lambda name: by_dtype[name], default="none")
    is_plain = most.startswith(("float", "bfloat")) and not most.startswith(("float8", "float4"))
    return most if is_plain else quantization_of(model.config) or most


def quantization_of(config: Any) -> str | None:
    """Return a quantiser's name and bits, such as `bitsandbytes 4-bit`; None for a model without one."""
    asked = getattr(config, "quantization_config", None)
    if asked is None:
        return None
    facts = asked if isinstance(asked, dict) else vars(asked)
    method = str(getattr(facts.get("quant_method"), "value", facts.get("quant_method")) or "quantised")
    bits = 4 if facts.get("load_in_4bit") or facts.get("_load_in_4bit") else facts.get("bits")
    bits = 8 if facts.get("load_in_8bit") or facts.get("_load_in_8bit") else bits
    return f"{method} {bits}-bit" if bits else method


def loaded_facts(held: Held) -> dict[str, Any]:
    """Return what the model holds of which file: elements of parameters and buffers, tied and unplaced names.

    No count of these has to agree: experts are fused, packed weights unpacked, and one class drops what another keeps.
    Only the first few names are kept, `count` is of all. Buffers are the persistent ones.
    """
    model = held.model
    stored = stored_elements(held.opened)
    tied: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(parameter), []).append(name)
    # A file of the model without its head has names without this prefix, as gpt2's has.
    prefix = f"{getattr(model, 'base_model_prefix', '')}."

    def is_stored(name: str) -> bool:
        return name in stored or name.removeprefix(prefix) in stored

    twice = [name for names in tied.values() for name in names[1:] if is_stored(name) and is_stored(names[0])]
    patterns = (*(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()), ALWAYS_IGNORED)
    ignored = [re.compile(pattern) for pattern in patterns]
    # `attn.bias`, an old buffer, is part of `c_attn.bias`, a parameter: only what has no place is ignored.
    placed = {each for names in tied.values() for name in names for each in (name, name.removeprefix(prefix))}
    unplaced = {name for name in stored if name not in placed and any(pattern.search(name) for pattern in ignored)}
    unplaced |= set(held.unexpected)
    return {
        "class": type(model).__name__,
        "files": sorted({os.path.realpath(path) for path in held.opened}),
        "stored_elements": sum(stored.values()),
        "buffer_elements": sum(buffer.numel() for buffer in persistent_buffers(model)),
        "tied": _told([name for names in tied.values() for name in names[1:]]),
        "stored_twice": _told(twice),
        "unplaced": _told(sorted(unplaced)),
        "unplaced_elements": sum(stored.get(name, 0) for name in unplaced),
        "quantization": quantization_of(model.config),
        "is_cached": held.is_cached,
    }


def _told(names: list[str]) -> dict[str, Any]:
    """Return how many names there are and the first few as one line of text: a model's author chooses them."""
    shown = ["".join(char if char.isprintable() else "?" for char in name)[:200] for name in names[:NAMES_TOLD]]
    return {"count": len(names), "names": shown}


def stored_elements(paths: list[str]) -> dict[str, int]:
    """Read the elements by tensor name of these safetensors files, from their headers alone."""
    found = {}
    for path in dict.fromkeys(paths):
        with import_package("safetensors").safe_open(path, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  no mapping
                count = 1
                for size in stored.get_slice(name).get_shape():
                    count *= size
                found[name] = count
    return found


def persistent_buffers(model: Any) -> Iterator[Any]:
    """Yield the buffers that a checkpoint holds, as a state dict has them."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield buffer


def finish() -> NoReturn:
    """Exit at once: tearing down the interpreter and the device is not part of a load."""
    sys.stdout.flush()
    os._exit(0)


def import_libraries(options: argparse.Namespace, events: Events) -> tuple[Any, Any, list[str]]:
    """Import torch, transformers and all that later phases use; return both and the still empty list of weights."""
    silence()
    torch = import_package("torch")
    events.now("import_torch")
    opened = note_opened_weights()
    transformers = import_package("transformers")
    # The package loads lazily: unless these names are used here, later phases would pay for their import.
    for name in ("AutoTokenizer", "AutoModelForCausalLM"):
        getattr(transformers, name)
    import_model_code(transformers, options)
    events.now("import_transformers")
    return torch, transformers, opened


def run(options: argparse.Namespace, events: Events) -> None:
    """Run every phase in order, up to `options.until`. Raises LoadError for what a user can fix."""
    torch, transformers, opened = import_libraries(options, events)
    if options.template_fd is not None:
        tokenizer = load_tokenizer(transformers, options)
        # This returns only in a child.
        events = serve(options.template_fd)
        prepare_devices(torch)
        synchronize(torch)
    else:
        prepare_devices(torch)
        synchronize(torch)
        events.now("device_ready")
        tokenizer = load_tokenizer(transformers, options)
    events.now("tokenizer")
    answer(Libraries(torch, transformers, tokenizer, opened), options, events)


class Libraries(NamedTuple):
    """What a load needs besides its weights; `opened` lists the weight files as they are opened."""

    torch: Any
    transformers: Any
    tokenizer: Any
    opened: list[str]


def answer(libraries: Libraries, options: argparse.Namespace, events: Events) -> NoReturn:
    """Load the weights and make the tokens, up to `options.until`."""
    torch = libraries.torch
    model, unexpected = load_model(torch, libraries.transformers, options)
    synchronize(torch)
    loaded_ns = time.monotonic_ns()
    print(f"loaded {options.model} on {device_of(model)}", flush=True)
    events.at("weights", loaded_ns)
    if options.until == "loaded":
        time.sleep(options.linger_s)
        finish()

    decoder = Decoder(torch, model)
    device = input_device(model)
    prompt_ids = libraries.tokenizer(options.prompt, return_tensors="pt")["input_ids"]
    if prompt_ids.shape[-1] == 0:
        raise LoadError(f"the prompt {options.prompt!r} has no tokens")
    token = decoder.step(prompt_ids.to(device))
    synchronize(torch)
    events.now("first_token")
    if events.watched:
        events.now("held", **held_facts(torch, Held(model, unexpected, libraries.opened, decoder.is_cached)))
    events.hold()

    instants: list[int] = []
    if options.until == "second_token":
        for step in range(1, options.new_tokens):
            token = decoder.step(torch.tensor([[token]], device=device))
            synchronize(torch)
            instants.append(time.monotonic_ns())
            if step == 1:
                events.at("second_token", instants[0])
    events.now("done", tokens_ns=instants)
    time.sleep(options.linger_s)
    finish()


def input_device(model: Any) -> Any:
    """Return the prompt's device: the embedding's, or the first weight's where a model does not name its embedding."""
    try:
        return model.get_input_embeddings().weight.device
    except (AttributeError, NotImplementedError):
        return next(iter(model.parameters())).device


def serve(template_fd: int) -> Events:
    """Serve as a template: fork a child for each request, and return in the child once its observer starts it.

    A request is one byte with the descriptors of the child's events, hold and stderr. The answer is one byte, sent once
    the child's only parent is the observer. The template ends when the observer closes the socket.
    """
    observer = os.getppid()
    with socket.socket(fileno=template_fd) as channel:
        channel.sendall(READY)
        while True:
            request, descriptors, _, _ = socket.recv_fds(channel, 1, 3)
            if not request:
                finish()
            between = os.fork()
            if between == 0:
                # Fork twice: the child loses its parent and is reparented to the observer, which is a subreaper.
                if os.fork():
                    os._exit(0)
                break
            os.waitpid(between, 0)
            for each in descriptors:
                os.close(each)
            channel.sendall(READY)
    events_fd, hold_fd, error_fd = descriptors
    os.setsid()
    os.dup2(error_fd, 2)
    os.close(error_fd)
    tie_to(observer)
    own_memory()
    if not os.read(hold_fd, 1):
        raise BrokenPipeError("the observer closed the hold descriptor")
    return Events(events_fd, hold_fd)


def tie_to(observer: int) -> None:
    """Wait until the observer is our parent, and have the kernel kill us when it ends (prctl(2), PR_SET_PDEATHSIG)."""
    deadline = time.monotonic() + ADOPTION_S
    while os.getppid() != observer:
        if time.monotonic() > deadline:
            raise BrokenPipeError("the observer has not adopted this process")
        time.sleep(0.001)
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)


def own_memory() -> None:
    """Copy every page shared with the template before the clock starts: a fresh process has none to copy.

    Only resident pages are copied (mincore(2)), or untouched memory would be faulted in as well. File mappings are left
    out: few of their pages are written, and mincore answers for them only to root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    page = os.sysconf("SC_PAGESIZE")
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as stream:
        mappings = [line.split(None, 5) for line in stream]
    for each in mappings:
        is_file = len(each) == 6 and each[5].startswith("/") and not each[5].startswith("/anon_hugepage")
        if each[1] == "rw-p" and not is_file:
            start, end = (int(part, 16) for part in each[0].split("-"))
            present = (ctypes.c_ubyte * ((end - start) // page))()
            if libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(end - start), present):
                continue
            for first, count in runs(bytes(present)):
                where, length = ctypes.c_void_p(start + first * page), ctypes.c_size_t(count * page)
                if libc.madvise(where, length, MADV_POPULATE_WRITE):
                    raise LoadError(f"the kernel copies no memory ahead: {os.strerror(ctypes.get_errno())}")


def runs(present: bytes) -> Iterator[tuple[int, int]]:
    """Yield first index and length of each run of resident pages; the lowest bit of each byte says so."""
    first = 0
    for is_there, group in itertools.groupby(present, key=lambda byte: byte & 1):
        count = sum(1 for _ in group)
        if is_there:
            yield first, count
        first += count


def descriptor(text: str) -> int:
    """Parse the number of an open descriptor."""
    try:
        number = int(text)
        os.fstat(number)
    except (ValueError, OSError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an open descriptor") from error
    return number


def open_channel(folder: str) -> tuple[int, int]:
    """Open the named pipes `events` and `hold` of a folder; OSError where nobody reads the events."""
    # Without waiting: an observer that has ended would never come.
    events_fd = os.open(f"{folder}/events", os.O_WRONLY | os.O_NONBLOCK)
    hold_fd = os.open(f"{folder}/hold", os.O_RDONLY | os.O_NONBLOCK)
    for each in (events_fd, hold_fd):
        os.set_blocking(each, True)
    return events_fd, hold_fd


def token_count(text: str) -> int:
    """Parse a whole number of at least 2: a first token and a second."""
    if not text.isascii() or not text.isdecimal() or not 2 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 2 to 100000, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Parse seconds, from 0 to 60."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 60:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 to 60, not {text!r}")
    return number


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"slm_load: {message}\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with status 2 and one line for a bad one."""
    parser = OneLineParser(description="Load a small language model and make its first tokens.")
    parser.add_argument("--model", default=MODEL, help="hub id or folder (default: %(default)s)")
    parser.add_argument("--revision", default=None, help="branch, tag or commit of a hub id")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="auto: its config's, else the stored one")
    parser.add_argument("--device-map", default="auto", help="as in transformers (default: %(default)s)")
    parser.add_argument("--until", choices=STOPS, default="second_token", help="where to stop (default: %(default)s)")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--new-tokens", type=token_count, default=2, metavar="N", help="tokens to make (default: 2)")
    parser.add_argument(
        "--linger-s",
        type=seconds,
        default=0.0,
        metavar="S",
        help="stay so many seconds once all is done: what it touched can be asked while it lives (default: 0)",
    )
    parser.add_argument("--events-fd", type=descriptor, metavar="N", help="open descriptor for events")
    parser.add_argument("--hold-fd", type=descriptor, metavar="M", help="open descriptor to wait on after the hold")
    parser.add_argument("--channel", metavar="FOLDER", help="folder with the named pipes events and hold, instead")
    parser.add_argument("--template-fd", type=descriptor, metavar="T", help="open socket for requests; see above")
    options = parser.parse_args(arguments)
    if not options.model or "\0" in options.model:
        parser.error("--model must name a hub id or a folder")
    if options.model.startswith(("/", "./", "../")) and not os.path.isdir(options.model):
        parser.error(f"--model {options.model!r} is not a folder that can be read")
    return options


def main() -> int:
    options = parse_arguments()
    try:
        channel = open_channel(options.channel) if options.channel else (options.events_fd, options.hold_fd)
    except OSError as error:
        print(f"slm_load: --channel {options.channel!r} cannot be opened: {error}", file=sys.stderr)
        return 2
    events = Events(*channel)
    # Counters cannot be read before the imports above, so what these add counts for the interpreter.
    events.at("interpreter", _INTERPRETER_NS)
    try:
        run(options, events)
    except LoadError as error:
        print(f"slm_load: {error}", file=sys.stderr)
        return 2
    # torch raises RuntimeError for a device that is out of memory or in a bad state.
    except (BrokenPipeError, MemoryError, RuntimeError) as error:
        print(f"slm_load: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
