"""The files of a model: an embedded shape, a local folder or a snapshot in the hub's cache.

Finds and checks them without torch, so that a wrong or damaged model is reported before anything on the host changes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...host.errors import SettingError
from ...host.files import Host, open_plain
from .safetensors import PREFIX_BYTES, Header, header_length, parse_header

MODEL_KNOB = "slm_benchmark_model"
REVISION_KNOB = "slm_benchmark_model_revision"

# Bytes of all files that files/build_model.py writes per shape, without the manifest. The builder's own plan must
# agree.
EMBEDDED_MODEL_BYTES = {
    "qwen2.5-0.5b": 994_164_693,
    "qwen2.5-1.5b": 3_093_537_481,
    "phi-3-mini": 7_643_941_984,
    "tiny": 523_270,
}

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_ADAPTER = "adapter_config.json"
_CONFIGS = ("config.json", "generation_config.json", _INDEX)
_TOKENIZERS = re.compile(
    r"tokenizer\.json|tokenizer\.model(\.v[0-9]+)?|vocab\.(json|txt)|tekken\.json|[a-z_.-]+\.(tiktoken|spm)"
    r"|(spiece|sentencepiece|sentencepiece\.bpe|spm|bpe)\.model|dict\.txt"
)
"""Any of these can be a tokenizer by itself; the trial checks whether this one is."""
_TOKENIZER_EXTRAS = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "bpe.codes"),
    *("chat_template.jinja", "chat_template.json"),
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_OTHER_FORMATS = (
    (r"(.*/)?adapter_(config\.json|model\..*)", "an adapter, which changes another model and is none by itself"),
    (r".*\.gguf", "GGUF, which llama.cpp reads"),
    (
        r"consolidated.*\.safetensors|params\.json",
        "weights in their author's own layout",
    ),
    (r"model_index\.json", "a pipeline of several models (diffusers)"),
    (r".*\.onnx", "ONNX, which onnxruntime reads"),
    (r".*\.npz", "weights of MLX"),
    (
        r"(model|pytorch_model)\.[a-z0-9]+\.safetensors",
        "the weights of a variant, which transformers loads by its name",
    ),
)
"""What a folder without weights for transformers may hold instead, the most telling first."""
_DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
"""transformers loads such files, if a folder has any, instead of all others (distributed/checkpoint.py)."""
_INTEGERS = ("bool", "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64")
_MAX_JSON_BYTES = 16 << 20
_MAX_HEADERS_BYTES = 64 << 20
"""Of all shards together: a parsed header takes ten times its size in memory."""
_HUB_ID = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)?[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_HUB_ID_LENGTH = 96
"""No hub id is longer (huggingface_hub, validate_repo_id), and no file name of the system is longer than 255 bytes."""
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
READ, PASS = 0o4, 0o1


@dataclass(frozen=True)
class ModelFile:
    """One file: its name in the model's folder, its real path with links resolved, its size and its purpose.

    `kind` is `weights`, `tokenizer` or `config`.
    """

    name: str
    path: str
    size_bytes: int
    kind: str


@dataclass(frozen=True)
class Model:
    """A model whose files are all there. `source` is `embedded`, `local` or `hub`; `revision` the commit of a hub id.

    `dtype` is the one that most numbers have, in torch's spelling, or the quantiser's name; `parameters`
    counts stored elements, so a head that is tied to the embedding counts where it is stored as well.
    """

    id: str
    source: str
    path: str
    revision: str | None
    files: tuple[ModelFile, ...]
    dtype: str
    parameters: int

    @property
    def weight_files(self) -> tuple[ModelFile, ...]:
        return tuple(file for file in self.files if file.kind == "weights")

    @property
    def weight_bytes(self) -> int:
        return sum(file.size_bytes for file in self.weight_files)

    def as_dict(self) -> dict[str, Any]:
        """Return the `model` of a result document: `bytes` and `files` are those of the weights."""
        return {
            "id": self.id,
            "source": self.source,
            "revision": self.revision,
            "path": self.path,
            "bytes": self.weight_bytes,
            "files": [file.name for file in self.weight_files],
            "dtype": self.dtype,
            "parameters": self.parameters,
        }


@dataclass(frozen=True)
class ModelPlace:
    """Which model, and where on the host to look for it; names as the user gave them, not yet checked.

    `model` is an embedded shape, whose folder lies in `home`, an absolute path of a local folder, or a hub id
    (`organisation/name`, or an old one's `name`), a snapshot in the cache under `hf_home`; `revision` is empty for
    main. Nothing is ever fetched: `offline` only words the error.
    """

    home: str
    model: str
    revision: str
    hf_home: str
    offline: bool

    @property
    def embedded_path(self) -> str:
        """Return where an embedded model lies or will lie."""
        return f"{self.home}/models/{self.model}"


@dataclass(frozen=True)
class Reader:
    """The user who will load the model: its name, user id and all its group ids."""

    name: str
    uid: int
    gids: tuple[int, ...]


@dataclass(frozen=True)
class _Located:
    """Where a model should be, and what to do when it is not."""

    id: str
    source: str
    path: str
    revision: str | None
    next_step: str

    def error(self, wanted: str, found: str, why: str) -> SettingError:
        return SettingError(MODEL_KNOB, wanted, found, why, self.next_step)


def expected_bytes(host: Host, wanted: ModelPlace) -> int:
    """Estimate what a model's weights take in memory, before anything of them is checked; 0 where unknown."""
    if wanted.model in EMBEDDED_MODEL_BYTES:
        return EMBEDDED_MODEL_BYTES[wanted.model]
    try:
        place = _locate(host, wanted)
    except SettingError:
        return 0
    try:
        shards, _ = _weight_names(host, place, _folder_names(host, place))
    except SettingError:
        return 0
    weights = [host.path(f"{place.path}/{name}") for name in shards]
    return sum(path.stat().st_size for path in weights if path.is_file())


def resolve_model(host: Host, wanted: ModelPlace, reader: Reader | None = None) -> Model:
    """Find and check every file of the model that `slm_benchmark_model` names.

    `reader`, when given, must be able to read every file by owner, group and mode. Raises SettingError for a name of
    unknown form, and for files that are missing, damaged, truncated, unreadable or pickled.
    """
    place = _locate(host, wanted)
    names = _folder_names(host, place)
    config = _read_json(host, place, "config.json") if "config.json" in names else None
    if config is None:
        found, why = _instead(host, place, names)
        raise place.error("a folder with config.json", found, why)
    _require_own_weights(place, names, config)
    shards, indexed = _weight_names(host, place, names)
    tokenizers = [name for name in names if _TOKENIZERS.fullmatch(name)]
    if not tokenizers:
        wanted_files = "a tokenizer (tokenizer.json, tokenizer.model, vocab.json, vocab.txt or another's own file)"
        raise place.error(wanted_files, "none", f"{place.path} cannot read a prompt.")

    tokenizers += [name for name in _TOKENIZER_EXTRAS if name in names]
    kinds = {name: "config" for name in _CONFIGS if name in names}
    kinds.update(dict.fromkeys(tokenizers, "tokenizer"))
    kinds.update(dict.fromkeys(shards, "weights"))
    files = tuple(_file(host, place, name, kind, reader) for name, kind in kinds.items())
    headers = _read_headers(host, place, [file for file in files if file.kind == "weights"])
    for tensor, shard in indexed.items():
        if tensor not in headers[shard].elements:
            raise place.error(f"tensor {tensor!r} in {shard}, as {_INDEX} says", "it is not there", _DAMAGED)
    dtype = quantization_word(config) or _dtype_of(headers.values())
    parameters = sum(count for header in headers.values() for count in header.elements.values())
    if not parameters:
        raise place.error("weights", "shards without a tensor", _DAMAGED)
    return Model(place.id, place.source, place.path, place.revision, files, dtype, parameters)


def read_config(host: Host, model: Model) -> dict[str, Any]:
    """Read config.json of a model that was found; SettingError where it can no longer be read."""
    place = _Located(model.id, model.source, model.path, model.revision, f"correct {MODEL_KNOB}.")
    return _read_json(host, place, "config.json")


def _require_own_weights(place: _Located, names: list[str], config: dict[str, Any]) -> None:
    """Raise SettingError for a model that makes transformers load other files than those checked here."""
    why = "transformers would load other weights than those that are checked and measured."
    if "transformers_weights" in config:
        raise place.error("a config.json without transformers_weights", repr(config["transformers_weights"])[:80], why)
    # Where peft is installed, the base model that it names is loaded instead of this folder's.
    if _ADAPTER in names:
        raise place.error(f"a model without {_ADAPTER}", f"an adapter in {place.path}", why)
    distributed = [name for name in names if _DISTRIBUTED.fullmatch(name)]
    if distributed:
        raise place.error("a model without a distributed checkpoint", _some(distributed), why)


def _instead(host: Host, place: _Located, names: list[str]) -> tuple[str, str]:
    """Return what a folder holds that transformers cannot read, and what that is."""
    for pattern, what in _OTHER_FORMATS:
        matching = [name for name in names if re.fullmatch(pattern, name)]
        if matching:
            return _some(matching), f"This is {what}."
    inner = [name for name in names if host.exists(f"{place.path}/{name}/config.json")]
    if inner:
        return f"config.json in {_some(inner)}", "A model in a sub-folder is named by the path of that folder."
    return _some(names), f"{place.path} is not a transformers model."


def quantization_word(config: dict[str, Any]) -> str | None:
    """Return a quantiser's name and bits, such as `bitsandbytes 4-bit`, from a config; None without one."""
    asked = config.get("quantization_config")
    if not isinstance(asked, dict):
        return None
    method = asked.get("quant_method")
    name = method if isinstance(method, str) and method.isprintable() and method else "quantised"
    packed = {"load_in_4bit": 4, "load_in_8bit": 8}
    bits = next((count for key, count in packed.items() if asked.get(key) is True), asked.get("bits"))
    return f"{name[:40]} {bits}-bit" if type(bits) is int and 0 < bits < 64 else name[:40]


_DAMAGED = "The model's files do not belong together."
_BESIDE = "A shard lies beside its index, or in a folder below it."


def _locate(host: Host, wanted: ModelPlace) -> _Located:
    model, revision = wanted.model, wanted.revision
    if not isinstance(model, str) or not model.isprintable():
        raise _unknown_model(model)
    is_hub = len(model) <= _HUB_ID_LENGTH and bool(_HUB_ID.fullmatch(model)) and ".." not in model and "--" not in model
    if revision not in ("", "main") and not is_hub:
        raise SettingError(
            REVISION_KNOB,
            "no revision",
            repr(revision),
            f"Only a hub id has revisions, and {model!r} is none.",
            f"remove {REVISION_KNOB}.",
        )
    if model in EMBEDDED_MODEL_BYTES:
        path = wanted.embedded_path
        build = f"python build_model.py --shape {model} --output {shlex.quote(path)} --verify"
        return _Located(model, "embedded", path, None, f"build it again: {build}")
    if model.startswith("/"):
        return _Located(model, "local", model, None, f"correct {MODEL_KNOB}, or put a whole safetensors model there.")
    if is_hub:
        return _locate_snapshot(host, wanted)
    raise _unknown_model(model)


def _locate_snapshot(host: Host, wanted: ModelPlace) -> _Located:
    """Find the cached snapshot of a hub id.

    Layout: huggingface_hub's guide "manage-cache"; refs name commits, snapshots link to blobs.
    """
    model, revision, hf_home = wanted.model, wanted.revision or "main", wanted.hf_home
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision:
        raise SettingError(
            REVISION_KNOB,
            "a branch, a tag or a commit",
            repr(revision),
            "A revision has letters, digits, dots, dashes and slashes.",
            f"correct {REVISION_KNOB}.",
        )
    cache = f"{hf_home.rstrip('/')}/hub/models--{model.replace('/', '--')}"
    fetch = f"HF_HOME={shlex.quote(hf_home)} hf download {model} --revision {revision}"
    next_step = f"where the hub can be reached, run: {fetch}"
    why = "The host is offline." if wanted.offline else "A measured load must not wait for a download."
    if not host.path(cache).is_dir():
        if "/" not in model:
            why += f" A name without a slash is an embedded shape ({', '.join(EMBEDDED_MODEL_BYTES)}) or an old hub id."
        raise SettingError(MODEL_KNOB, f"{model} in the hub cache", f"no {cache}", why, next_step)
    commit = revision if _COMMIT.fullmatch(revision) else (host.read_or_none(f"{cache}/refs/{revision}") or "").strip()
    path = f"{cache}/snapshots/{commit}"
    if not _COMMIT.fullmatch(commit) or not host.path(path).is_dir():
        looked_at = path if _COMMIT.fullmatch(commit) else f"{cache}/refs/{revision}"
        raise SettingError(REVISION_KNOB, f"revision {revision} of {model}", f"no {looked_at}", why, next_step)
    return _Located(model, "hub", path, commit, next_step)


def _unknown_model(model: object) -> SettingError:
    return SettingError(
        MODEL_KNOB,
        "an embedded shape, an absolute path or a hub id",
        repr(model),
        "Embedded shapes are " + ", ".join(EMBEDDED_MODEL_BYTES) + ".",
        f"correct {MODEL_KNOB}.",
    )


def _folder_names(host: Host, place: _Located) -> list[str]:
    """Return the names in the model's folder that are valid text."""
    try:
        names = sorted(os.listdir(host.path(place.path)))
    except OSError as error:
        raise place.error("a folder with a model", f"{place.path}: {error.strerror}", "It cannot be listed.") from error
    if not names:
        raise place.error("a folder with a model", "an empty folder", f"{place.path} holds nothing.")
    return names


def _weight_names(host: Host, place: _Located, names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the weight files, and for a sharded model each tensor's shard. A single file wins, as in transformers."""
    if _SINGLE in names:
        return [_SINGLE], {}
    if _INDEX not in names:
        pickles = [name for name in names if name.endswith(_PICKLES)]
        if pickles:
            why = "Pickled weights can run code when they are loaded, so only safetensors are."
            raise place.error("safetensors weights", _some(pickles), why)
        found, what = _instead(host, place, [name for name in names if name != "config.json"])
        raise place.error(f"{_SINGLE} or {_INDEX}", found, f"{place.path} holds no weights. {what}")
    weight_map = _read_json(host, place, _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise place.error(f"a weight_map in {_INDEX}", "none", _DAMAGED)
    for shard in weight_map.values():
        if not isinstance(shard, str) or not shard.isprintable() or not shard.endswith(".safetensors"):
            raise place.error(f"names of .safetensors files in {_INDEX}", repr(shard), _BESIDE)
        if {"", ".", ".."} & set(shard.split("/")):
            raise place.error(f"names of files in {place.path}", repr(shard), _BESIDE)
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if not host.path(f"{place.path}/{shard}").exists()]
    if missing:
        raise place.error("every shard that the index names", f"no {_some(missing)}", f"{place.path} is incomplete.")
    return shards, weight_map


def _read_json(host: Host, place: _Located, name: str) -> dict[str, Any]:
    path = host.path(f"{place.path}/{name}")
    try:
        with open(open_plain(path), "rb") as stream:
            text = stream.read(_MAX_JSON_BYTES + 1)
        if len(text) > _MAX_JSON_BYTES:
            raise place.error(f"a JSON file {name}", "something else", f"{place.path}/{name} cannot be a model's.")
        document = json.loads(text.decode("utf-8"))
    except OSError as error:
        raise place.error(f"a readable {name}", str(error.strerror), f"{place.path}/{name} cannot be read.") from error
    except (ValueError, RecursionError) as error:
        raise place.error(f"JSON in {name}", "something else", f"{place.path}/{name} is damaged.") from error
    if not isinstance(document, dict):
        raise place.error(f"a JSON object in {name}", type(document).__name__, f"{place.path}/{name} is damaged.")
    return document


def _file(host: Host, place: _Located, name: str, kind: str, reader: Reader | None) -> ModelFile:
    """Return one file with its links resolved: eviction and residency need the file that the kernel caches."""
    real = Path(os.path.realpath(host.path(f"{place.path}/{name}")))
    try:
        status = os.stat(real)
    except OSError as error:
        raise place.error(f"file {name}", str(error.strerror), f"{place.path}/{name} leads to {real}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise place.error(f"file {name}", "something else", f"{place.path}/{name} leads to {real}.")
    if reader is not None:
        closed = barrier(host.path(f"{place.path}/{name}"), reader)
        if closed:
            raise SettingError(
                MODEL_KNOB,
                f"files that user {reader.name} can read",
                f"{closed} is closed to them",
                "The loader runs unprivileged.",
                f"open {closed} to {reader.name}, or move the model.",
            )
    root = os.path.realpath(host.root)
    inside = os.path.relpath(real, root) if os.path.commonpath((root, real)) == root else None
    return ModelFile(name, f"/{inside}" if inside else str(real), status.st_size, kind)


def barrier(path: Path, reader: Reader, needed: int = READ) -> Path | None:
    """Return the first thing on the way to an existing path, links followed, that keeps this user out; else None.

    Judged by owner, group and mode: folders must let the user pass, and the target must allow `needed`.
    """
    if reader.uid == 0:
        return None
    for component, wanted in (*((folder, PASS) for folder in _passed(path)), (path, needed)):
        status = os.stat(component)
        shift = 6 if status.st_uid == reader.uid else 3 if status.st_gid in reader.gids else 0
        if not (status.st_mode >> shift) & wanted:
            return component
    return None


def _passed(path: Path) -> Iterator[Path]:
    """Yield every folder on the way to an absolute path, including those on the way of its links."""
    at = Path(path.anchor)
    for part in path.parts[1:]:
        yield at
        if (at / part).is_symlink():
            yield from _passed(at / os.readlink(at / part))
            at = Path(os.path.realpath(at / part))
        else:
            at /= part


def _read_headers(host: Host, place: _Located, files: list[ModelFile]) -> dict[str, Header]:
    """Read the headers by file name, within bounds: a model's author must not exhaust root's memory."""
    headers, left = {}, _MAX_HEADERS_BYTES
    for file in files:
        headers[file.name], length = _read_header(host, place, file)
        left -= length
        if left < 0:
            found = f"more than {_MAX_HEADERS_BYTES >> 20} MiB of headers"
            raise place.error("headers of a model's size", found, "No model has that many tensors.")
    return headers


def _read_header(host: Host, place: _Located, file: ModelFile) -> tuple[Header, int]:
    source = f"{place.path}/{file.name}"
    try:
        with open(open_plain(host.path(source)), "rb") as stream:
            length = header_length(stream.read(PREFIX_BYTES), file.size_bytes, source)
            return parse_header(stream.read(length), file.size_bytes, source), length
    except OSError as error:
        raise place.error(f"a readable {file.name}", str(error.strerror), f"{source} cannot be read.") from error


def _dtype_of(headers: Iterable[Header]) -> str:
    """Return the most frequent dtype. Flags and integers, as in old buffers, count only where there is nothing else."""
    by_dtype: dict[str, int] = {}
    for header in headers:
        for dtype, count in header.elements_by_dtype.items():
            by_dtype[dtype] = by_dtype.get(dtype, 0) + count
    floats = {dtype: count for dtype, count in by_dtype.items() if dtype not in _INTEGERS}
    return max(floats or by_dtype, key=lambda dtype: by_dtype[dtype], default="")


def _some(names: list[str]) -> str:
    """Return a few names for an error."""
    shown = ", ".join(repr(name) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
