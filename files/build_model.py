#!/usr/bin/env python3
"""Builder of an embedded model: the architecture and tensor shapes of a known small language model, random weights.

`build_model.py --shape qwen2.5-0.5b --output DIR` writes a folder that transformers loads like a download: config,
tokenizer, sharded bf16 safetensors. How long a load takes does not depend on what the weights say, so no network is
needed. Needs numpy only; memory stays at tens of megabytes for any shape, because weights are streamed.

Deterministic: every tensor is the raw stream of a Philox counter generator keyed by seed and tensor name, so each can
be made again alone. A weight has a random sign, a random mantissa and one of 64 exponents (2**-67 to 2**-4): 14
random bits of 16. A wider range would add little and bring denormal products; this one has a standard deviation of
0.014, near a trained model's, and the forward pass stays finite. Norm weights lie in [1, 2). What a compressing file
system could save is little: `zstd -3`, `zstd -19` and `gzip -6` leave 95 % of a shard.

Safe to interrupt: files are written under a temporary name, fsynced and renamed, and a later run keeps every file that
is right. `manifest.json` holds each file's size and sha256. A folder whose files have the sizes, times and inodes in
`.verified`, from when they were last hashed, counts as right at once; `--verify` hashes them again.

The last line of output is one JSON object: path, shape, bytes, parameters, files, built, verified, changed,
manifest_sha256. Exit status: 0 right, 2 bad arguments, no space or a folder that cannot be written.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy as np

    Words = np.ndarray[Any, np.dtype[np.uint16]]

BUILDER = "slm-baseline"
BUILDER_VERSION = 1
MANIFEST = "manifest.json"
STAMP = ".verified"
PART = ".part"
LOCK = ".lock"
LOCK_WAIT_S = 60.0
CHUNK_BYTES = 16 << 20
# Disk space that must stay free beside the model, since a full disk breaks more than the build.
SPARE_BYTES = 256 << 20


class BuildError(Exception):
    """A model cannot be built here; the text is the one line that the user sees."""


@dataclass(frozen=True)
class Shape:
    """An architecture: its published configuration, its tokenizer's, and the largest size of its shards."""

    config: dict[str, Any]
    tokenizer: Tokenizer
    shard_bytes: int


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE vocabulary: `leading` special tokens, 256 bytes, merged tokens up to `size`, `added` specials.

    `merges` may exceed the number of merged tokens, as in a vocabulary converted from SentencePiece: the extra merges
    make the same tokens from other halves. `settings` goes to tokenizer_config.json.
    """

    size: int
    merges: int
    leading: tuple[str, ...]
    added: tuple[str, ...]
    normalizer: str | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Tensor:
    """A bf16 tensor by name; a norm's weights are positive and near one."""

    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return 2 * self.elements

    @property
    def is_norm(self) -> bool:
        return self.name.endswith("norm.weight")


@dataclass(frozen=True)
class Shard:
    """One safetensors file: a name, a header and tensors in file order."""

    name: str
    tensors: tuple[Tensor, ...]

    @property
    def header(self) -> bytes:
        """Return length and JSON, padded with spaces to 8 bytes, as the safetensors format requires."""
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for tensor in self.tensors:
            end = offset + tensor.size_bytes
            entries[tensor.name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text

    @property
    def size_bytes(self) -> int:
        return len(self.header) + sum(tensor.size_bytes for tensor in self.tensors)


# --- the shapes ----------------------------------------------------------------------------------------------------


def _qwen(hidden: int, intermediate: int, layers: int, heads: int, positions: int) -> dict[str, Any]:
    """Return config.json of a Qwen2.5 base model, as published."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151643,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": intermediate,
        "max_position_embeddings": positions,
        "max_window_layers": layers,
        "model_type": "qwen2",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": positions,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": 151936,
    }


_PHI3 = {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "eos_token_id": 32000,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "model_type": "phi3",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 32000,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 32064,
}

_QWEN_ADDED = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"),
    *("<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
)
_PHI_ADDED = (
    *("<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>"),
    *("<|placeholder4|>", "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>"),
)
_QWEN_SETTINGS = {
    "tokenizer_class": "Qwen2Tokenizer",
    "model_max_length": 131072,
    "bos_token": None,
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": None,
    "clean_up_tokenization_spaces": False,
}
_PHI_SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 4096,
    "bos_token": "<s>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<unk>",
    "clean_up_tokenization_spaces": False,
}
_QWEN_TOKENIZER = Tokenizer(151643, 151387, (), _QWEN_ADDED, "NFC", _QWEN_SETTINGS)
_TINY_TOKENIZER = Tokenizer(1000, 744, (), _QWEN_ADDED, "NFC", _QWEN_SETTINGS)
_PHI_TOKENIZER = Tokenizer(32000, 61249, ("<unk>", "<s>", "</s>"), _PHI_ADDED, None, _PHI_SETTINGS)
_TINY = {
    **_qwen(64, 160, 4, 4, 4096),
    "bos_token_id": 1000,
    "eos_token_id": 1000,
    "vocab_size": 1024,
}

SHAPES = {
    "qwen2.5-0.5b": Shape(_qwen(896, 4864, 24, 14, 32768), _QWEN_TOKENIZER, 500_000_000),
    "qwen2.5-1.5b": Shape(_qwen(1536, 8960, 28, 12, 131072), _QWEN_TOKENIZER, 1_000_000_000),
    "phi-3-mini": Shape(_PHI3, _PHI_TOKENIZER, 1_000_000_000),
    "tiny": Shape(_TINY, _TINY_TOKENIZER, 350_000),
}
DEFAULT_SHAPE = "qwen2.5-0.5b"


def tensors_of(config: dict[str, Any]) -> list[Tensor]:
    """Return every stored tensor of an architecture, in the order of its modules. A tied head is not stored."""
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    head = hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    block: list[tuple[str, tuple[int, ...]]]
    if config["model_type"] == "phi3":
        block = [
            ("self_attn.o_proj.weight", (hidden, queries)),
            ("self_attn.qkv_proj.weight", (queries + 2 * keys, hidden)),
            ("mlp.gate_up_proj.weight", (2 * intermediate, hidden)),
        ]
    else:
        block = [
            ("self_attn.q_proj.weight", (queries, hidden)),
            ("self_attn.q_proj.bias", (queries,)),
            ("self_attn.k_proj.weight", (keys, hidden)),
            ("self_attn.k_proj.bias", (keys,)),
            ("self_attn.v_proj.weight", (keys, hidden)),
            ("self_attn.v_proj.bias", (keys,)),
            ("self_attn.o_proj.weight", (hidden, queries)),
            ("mlp.gate_proj.weight", (intermediate, hidden)),
            ("mlp.up_proj.weight", (intermediate, hidden)),
        ]
    block += [
        ("mlp.down_proj.weight", (hidden, intermediate)),
        ("input_layernorm.weight", (hidden,)),
        ("post_attention_layernorm.weight", (hidden,)),
    ]
    tensors = [Tensor("model.embed_tokens.weight", (config["vocab_size"], hidden))]
    for layer in range(config["num_hidden_layers"]):
        tensors += [Tensor(f"model.layers.{layer}.{name}", shape) for name, shape in block]
    tensors.append(Tensor("model.norm.weight", (hidden,)))
    if not config["tie_word_embeddings"]:
        tensors.append(Tensor("lm_head.weight", (config["vocab_size"], hidden)))
    return tensors


def shards_of(shape: Shape) -> list[Shard]:
    """Cut the tensors into files of at most `shard_bytes` of data; a larger single tensor gets its own file."""
    groups: list[list[Tensor]] = [[]]
    room = shape.shard_bytes
    for tensor in tensors_of(shape.config):
        if groups[-1] and tensor.size_bytes > room:
            groups.append([])
            room = shape.shard_bytes
        groups[-1].append(tensor)
        room -= tensor.size_bytes
    count = len(groups)
    return [Shard(f"model-{i:05}-of-{count:05}.safetensors", tuple(group)) for i, group in enumerate(groups, 1)]


# --- random bits ---------------------------------------------------------------------------------------------------


def philox(seed: int, name: str) -> np.random.Philox:
    """Return the counter generator of a named stream; its key is a hash, so streams are independent."""
    # Imported late: a folder that is already right is recognised without numpy, in milliseconds.
    import numpy as np

    digest = hashlib.sha256(f"{BUILDER}/{BUILDER_VERSION}/{seed}/{name}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


def tensor_chunks(tensor: Tensor, seed: int) -> Iterator[bytes]:
    """Yield the little-endian bf16 bytes of a tensor in chunks."""
    stream = philox(seed, tensor.name)
    left = tensor.elements
    while left:
        count = min(left, CHUNK_BYTES // 2)
        words = stream.random_raw((count + 3) // 4).astype("<u8", copy=False).view("<u2")[:count]
        yield bf16_bits(words, tensor.is_norm).tobytes()
        left -= count


def bf16_bits(words: Words, is_norm: bool) -> Words:
    """Turn raw words into bf16 bit patterns, in place.

    A weight keeps a random sign, 6 of the 8 exponent bits and the mantissa, exponent field 60..123; a norm's weight
    keeps the mantissa, exponent field 127.
    """
    words &= 0x7F if is_norm else 0x9FFF
    words += (127 if is_norm else 60) << 7
    return words


# --- the tokenizer -------------------------------------------------------------------------------------------------

# The split of text into words that Qwen and GPT-4 use before merging: any split round-trips, this one costs the same.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


# Words that are single tokens, so that an English prompt has about as many tokens as with the real vocabulary.
_COMMON = (
    "the quick brown fox jumps over the lazy dog what does do next a an and are as at be but by can for from had has "
    "have he her his how i if in is it its like make may more no not of on one or our out said she so some than that "
    "their them then there they this time to up use was we were when which who will with would you your"
)


def byte_symbols() -> list[str]:
    """Return, by byte value, the printable character that stands for each byte in byte-level BPE (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def vocabulary(spec: Tokenizer) -> tuple[dict[str, int], list[str]]:
    """Return token ids and merges ("left right") of a vocabulary: common words, then pieces of fixed random words."""
    symbols = byte_symbols()
    ids = {token: index for index, token in enumerate([*spec.leading, *symbols])}
    merges: dict[str, None] = {}
    again = spec.merges - (spec.size - len(ids))

    for left, right in merge_candidates(symbols[0x20]):
        token, merge = left + right, f"{left} {right}"
        if merge in merges or left not in ids or right not in ids:
            continue
        if token not in ids and len(ids) < spec.size:
            ids[token] = len(ids)
        elif token in ids and again:
            again -= 1
        else:
            continue
        merges[merge] = None
        if len(merges) == spec.merges:
            break
    return ids, list(merges)


def merge_candidates(space: str) -> Iterator[tuple[str, str]]:
    """Yield endless pairs of adjacent pieces, shorter ones first within a word; a space only begins a word."""
    for word in _COMMON.split():
        for length in range(1, len(word) + 1):
            yield space + word[: length - 1], word[length - 1]
    # Frequent letters occur more often, so that merges apply to ordinary text.
    letters = "eeeeeettttttaaaaaooooiiiinnnnssssrrrrhhhhllldddcccuummffppggwwyybvkxjqz"
    stream = philox(0, "vocabulary")
    while True:
        for raw in stream.random_raw(1 << 12).astype("<u8").view("u1").reshape(-1, 8).tolist():
            word = space + "".join(letters[byte % len(letters)] for byte in raw)
            for length in range(2, len(word) + 1):
                for start in range(len(word) - length + 1):
                    piece = word[start : start + length]
                    yield from ((piece[:cut], piece[cut:]) for cut in range(1, length))


def tokenizer_json(spec: Tokenizer) -> dict[str, Any]:
    """Return tokenizer.json: byte-level BPE, so that any text (in Unicode's NFC where Qwen normalises) round-trips."""
    ids, merges = vocabulary(spec)
    specials = [*((ids[token], token) for token in spec.leading), *enumerate(spec.added, len(ids))]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": token, **flags} for index, token in specials],
        "normalizer": {"type": spec.normalizer} if spec.normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": ids,
            "merges": merges,
        },
    }


# --- what a folder holds -------------------------------------------------------------------------------------------


def to_json(document: object) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def parameters_of(shape: Shape) -> int:
    """Return the number of stored parameters; a tied head counts once."""
    return sum(tensor.elements for tensor in tensors_of(shape.config))


def index_json(shape: Shape) -> dict[str, Any]:
    """Return model.safetensors.index.json: which shard holds which tensor."""
    shards = shards_of(shape)
    return {
        "metadata": {"total_size": sum(tensor.size_bytes for shard in shards for tensor in shard.tensors)},
        "weight_map": {tensor.name: shard.name for shard in shards for tensor in shard.tensors},
    }


def small_files(shape: Shape) -> dict[str, Callable[[], dict[str, Any]]]:
    """Map the name of each file but the weights to a function that makes its content; the tokenizer takes about 1 s."""
    config, tokenizer = shape.config, shape.tokenizer
    generation: dict[str, Any] = {
        name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if name in config
    }
    return {
        "config.json": lambda: config,
        "generation_config.json": lambda: generation,
        "tokenizer.json": lambda: tokenizer_json(tokenizer),
        "tokenizer_config.json": lambda: tokenizer.settings,
        "model.safetensors.index.json": lambda: index_json(shape),
    }


def shard_content(shard: Shard, seed: int) -> Iterator[bytes]:
    """Yield a shard's bytes in chunks."""
    yield shard.header
    for tensor in shard.tensors:
        yield from tensor_chunks(tensor, seed)


def planned_bytes(shape: Shape) -> int:
    """Return the size of a built folder without manifest and stamp."""
    small = sum(len(to_json(make())) for make in small_files(shape).values())
    return small + sum(shard.size_bytes for shard in shards_of(shape))


# --- building ------------------------------------------------------------------------------------------------------


def write_file(path: Path, content: Iterable[bytes]) -> str:
    """Write a file atomically and durably; return its sha256. Never follows a link."""
    part = path.with_name(path.name + PART)
    part.unlink(missing_ok=True)
    digest = hashlib.sha256()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb", buffering=0) as stream:
        for chunk in content:
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[stream.write(view) :]
        os.fsync(descriptor)
    os.replace(part, path)
    sync_folder(path.parent)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def identity(path: Path) -> dict[str, int] | None:
    """Return what changes whenever a regular file is replaced or written; None where there is no such file."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}


def read_document(path: Path) -> dict[str, Any] | None:
    """Read a manifest or stamp of ours; None where it is missing or invalid."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    files = document.get("files") if isinstance(document, dict) and document.get("builder") == BUILDER else None
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        return None
    return document  # type: ignore[no-any-return]


class Folder:
    """A model's folder: checks which files are right and makes the others."""

    def __init__(self, path: Path, shape_name: str, seed: int) -> None:
        self.path = path
        self.shape_name = shape_name
        self.shape = SHAPES[shape_name]
        self.seed = seed
        self.shards = {shard.name: shard for shard in shards_of(self.shape)}
        self.small = small_files(self.shape)
        self.names = [*self.small, *self.shards]
        self._head = {"builder": BUILDER, "builder_version": BUILDER_VERSION, "shape": shape_name, "seed": seed}
        self._stamp: dict[str, dict[str, Any]] = {}

    def claim(self) -> dict[str, str]:
        """Read the manifest and stamp of earlier builds; return each file's sha256 from the manifest.

        BuildError for a folder that holds another shape, or anything that this builder did not write.
        """
        noted = {name: read_document(self.path / name) for name in (STAMP, MANIFEST)}
        for document in noted.values():
            if document and document.get("shape") != self.shape_name:
                raise BuildError(f"{self.path} holds the model {document.get('shape')!r}; choose another folder")
        if not any(noted.values()) and set(os.listdir(self.path)) - {STAMP + PART, LOCK}:
            raise BuildError(f"{self.path} holds files that this builder did not write; choose an empty folder")
        current = {name: document["files"] for name, document in noted.items() if document and self._is_ours(document)}
        self._stamp = {
            name: entry
            for name, entry in current.get(STAMP, {}).items()
            if name in self.names and isinstance(entry.get("sha256"), str)
        }
        return {name: str(entry.get("sha256")) for name, entry in current.get(MANIFEST, {}).items()}

    def _is_ours(self, document: dict[str, Any]) -> bool:
        return all(document.get(name) == value for name, value in self._head.items())

    def is_right(self, name: str, sha256: str | None, verify: bool) -> bool:
        """Return whether a file is as built, by the stamp or else by its hash."""
        found = identity(self.path / name)
        if found is None or (name in self.shards and found["bytes"] != self.shards[name].size_bytes):
            return False
        noted = self._stamp.get(name, {})
        if not verify and all(noted.get(key) == value for key, value in found.items()):
            return True
        expected = sha256 or noted.get("sha256")
        if expected is None or hash_file(self.path / name) != expected:
            return False
        self._note(name, expected)
        return True

    def _note(self, name: str, sha256: str) -> None:
        self._stamp[name] = {**(identity(self.path / name) or {}), "sha256": sha256}

    def build(self, names: list[str]) -> None:
        """Make these files, each durable and recorded before the next one begins."""
        contents = {name: to_json(self.small[name]()) for name in names if name in self.small}
        needed = sum(len(contents[name]) if name in contents else self.shards[name].size_bytes for name in names)
        free = shutil.disk_usage(self.path).free
        if needed and free < needed + SPARE_BYTES:
            raise BuildError(
                f"{self.path} needs {needed / 1e9:.2f} GB and {SPARE_BYTES / 1e9:.2f} GB to spare; "
                f"{free / 1e9:.2f} GB are free"
            )
        for name in names:
            content = [contents[name]] if name in contents else shard_content(self.shards[name], self.seed)
            self._note(name, write_file(self.path / name, content))
            self.write_stamp()
            print(f"built {name}", file=sys.stderr, flush=True)

    def write_stamp(self) -> None:
        """Write which files are right so far, if that has changed."""
        content = to_json({**self._head, "files": self._stamp})
        if _bytes_or_none(self.path / STAMP) != content:
            write_file(self.path / STAMP, [content])

    def write_manifest(self) -> tuple[dict[str, Any], bytes, bool]:
        """Write the manifest if it changed; return it, its bytes, and whether it was written."""
        files = {
            name: {"bytes": self._stamp[name]["bytes"], "sha256": self._stamp[name]["sha256"]} for name in self.names
        }
        manifest = {
            **self._head,
            "parameters": parameters_of(self.shape),
            "total_bytes": sum(entry["bytes"] for entry in files.values()),
            "files": files,
        }
        content = to_json(manifest)
        if _bytes_or_none(self.path / MANIFEST) == content:
            return manifest, content, False
        write_file(self.path / MANIFEST, [content])
        return manifest, content, True


def _bytes_or_none(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Lock the folder. A second builder waits, then finds the work done; BuildError after a minute.

    Only this user can open the lock file, since whoever can open a file can hold its lock for ever. It is removed after
    the work, so a lock file that was removed while we waited is no longer the lock.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    name = path / LOCK
    while True:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), os.lstat(name)):
                    try:
                        yield
                    finally:
                        name.unlink(missing_ok=True)
                    return
        finally:
            os.close(lock)
        if time.monotonic() > deadline:
            raise BuildError(f"another builder has been working on {path} for {LOCK_WAIT_S:.0f} s")
        time.sleep(0.1)


def build(shape_name: str, path: Path, seed: int = 0, verify: bool = False) -> dict[str, Any]:
    """Build the missing parts of a model in a folder; return what the last line of output says.

    Raises BuildError for a folder of something else or too little room, and OSError from the kernel.
    """
    path.mkdir(parents=True, exist_ok=True)
    with alone(path):
        folder = Folder(path, shape_name, seed)
        hashes = folder.claim()
        folder.write_stamp()
        for name in folder.names:
            (path / (name + PART)).unlink(missing_ok=True)
        wrong = [name for name in folder.names if not folder.is_right(name, hashes.get(name), verify)]
        folder.build(wrong)
        folder.write_stamp()
        manifest, content, rewritten = folder.write_manifest()
    return {
        "path": str(path),
        "shape": shape_name,
        "bytes": manifest["total_bytes"],
        "parameters": manifest["parameters"],
        "files": len(manifest["files"]),
        "built": wrong,
        "verified": True,
        "changed": bool(wrong) or rewritten,
        "manifest_sha256": hashlib.sha256(content).hexdigest(),
    }


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"build_model: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    parser = OneLineParser(description="Build an embedded model.")
    parser.add_argument("--shape", choices=sorted(SHAPES), default=DEFAULT_SHAPE, help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the model's own folder")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights (default: 0)")
    parser.add_argument("--verify", action="store_true", help="hash every file again")
    options = parser.parse_args(arguments)
    os.umask(0o022)
    try:
        result = build(options.shape, options.output.absolute(), options.seed, options.verify)
    except ImportError as error:
        print(f"build_model: {sys.executable} lacks numpy: {error}", file=sys.stderr)
        return 2
    except (BuildError, OSError) as error:
        print(f"build_model: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
