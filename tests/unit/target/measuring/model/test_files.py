"""Finding and checking a model's files: embedded, local, in the hub's cache; and every way they can be wrong."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.model import files
from ansible.module_utils.slm_baseline.measuring.model.files import (
    EMBEDDED_MODEL_BYTES,
    Model,
    ModelPlace,
    Reader,
    expected_bytes,
    quantization_word,
    resolve_model,
)

from files import build_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = "/hf/hub/models--org--name"


def write_shard(path: Path, name: str, elements: int, dtype: str = "BF16", size: int = 2) -> None:
    entry = {"dtype": dtype, "shape": [elements], "data_offsets": [0, size * elements]}
    text = json.dumps({name: entry}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\1" * (size * elements))


def write_model(folder: Path) -> None:
    """A whole sharded model in two files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not read by a load")
    write_shard(folder / "model-1.safetensors", "a", 10)
    write_shard(folder / "model-2.safetensors", "b", 6, "F32", 4)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def resolve(root: Path, model: Any, revision: Any = "", reader: Reader | None = None) -> Model:
    return resolve_model(Host(root), ModelPlace("/var", model, revision, "/hf", offline=True), reader)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "srv/m")
    return tmp_path / "srv/m"


def test_a_local_folder(tmp_path: Path, folder: Path) -> None:
    model = resolve(tmp_path, "/srv/m")
    assert (model.source, model.path, model.revision) == ("local", "/srv/m", None)
    assert (model.dtype, model.parameters) == ("bfloat16", 16)
    assert {file.name: file.kind for file in model.files} == {
        "config.json": "config",
        "model.safetensors.index.json": "config",
        "tokenizer.json": "tokenizer",
        "model-1.safetensors": "weights",
        "model-2.safetensors": "weights",
    }
    assert model.files[-1].path == "/srv/m/model-2.safetensors"
    assert model.weight_bytes == sum((folder / f"model-{i}.safetensors").stat().st_size for i in (1, 2))
    assert model.as_dict()["files"] == ["model-1.safetensors", "model-2.safetensors"]
    assert model.as_dict()["bytes"] == model.weight_bytes


def test_a_single_file_goes_before_an_index(tmp_path: Path, folder: Path) -> None:
    write_shard(folder / "model.safetensors", "c", 3, "F16")
    model = resolve(tmp_path, "/srv/m")
    assert [file.name for file in model.weight_files] == ["model.safetensors"]
    assert model.dtype == "float16"


def test_an_embedded_shape(tmp_path: Path) -> None:
    write_model(tmp_path / "var/models/tiny")
    model = resolve(tmp_path, "tiny", "main")
    assert (model.source, model.id, model.path) == ("embedded", "tiny", "/var/models/tiny")


def test_an_embedded_shape_not_built_says_how(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"build_model\.py --shape tiny --output /var/models/tiny"):
        resolve(tmp_path, "tiny")


def write_snapshot(root: Path) -> Path:
    """A snapshot as the hub's cache keeps it: relative links into blobs."""
    cache = root / HUB.lstrip("/")
    write_model(cache / "blobs")
    snapshot = cache / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for blob in sorted((cache / "blobs").iterdir()):
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(COMMIT)
    return snapshot


@pytest.mark.parametrize("revision", [None, "", "main", COMMIT])
def test_a_cached_snapshot(tmp_path: Path, revision: str | None) -> None:
    write_snapshot(tmp_path)
    model = resolve(tmp_path, "org/name", revision)
    assert (model.source, model.revision) == ("hub", COMMIT)
    assert model.path == f"{HUB}/snapshots/{COMMIT}"
    assert model.weight_files[0].path == f"{HUB}/blobs/model-1.safetensors"


@pytest.mark.parametrize("revision", ["", "main", COMMIT])
def test_a_hub_model_counts_by_its_real_size_in_the_memory_guard(tmp_path: Path, revision: str) -> None:
    snapshot = write_snapshot(tmp_path)
    size = sum((snapshot / f"model-{number}.safetensors").stat().st_size for number in (1, 2))
    hf_home = HUB.partition("/hub/")[0]
    assert expected_bytes(Host(tmp_path), ModelPlace("/h", "org/name", revision, hf_home, True)) == size > 0
    for unknown in (("org/other", ""), ("org/name", "v2"), ("no such", ""), ("", "")):
        assert expected_bytes(Host(tmp_path), ModelPlace("/h", *unknown, hf_home, True)) == 0


def test_a_model_not_cached_says_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        resolve(tmp_path, "org/name")
    assert HUB in caught.value.found
    assert "HF_HOME=/hf hf download org/name --revision main" in caught.value.next_step


@pytest.mark.parametrize("revision", ["v2", "f" * 40, "refs/pr/1"])
def test_a_revision_not_cached(tmp_path: Path, revision: str) -> None:
    write_snapshot(tmp_path)
    with pytest.raises(SettingError, match=f"--revision {revision}") as caught:
        resolve(tmp_path, "org/name", revision)
    assert HUB in caught.value.found


@pytest.mark.parametrize("content", ["../../../etc", "", "x" * 40, COMMIT + "\n../.."])
def test_a_hostile_ref(tmp_path: Path, content: str) -> None:
    write_snapshot(tmp_path)
    (tmp_path / HUB.lstrip("/") / "refs/main").write_text(content)
    with pytest.raises(SettingError, match="refs/main"):
        resolve(tmp_path, "org/name")


@pytest.mark.parametrize("revision", ["../x", "a b", "a\n", "-x", "a/../b", "\0", "v..w"])
def test_a_hostile_revision(tmp_path: Path, revision: str) -> None:
    write_snapshot(tmp_path)
    with pytest.raises(SettingError, match="a branch, a tag or a commit"):
        resolve(tmp_path, "org/name", revision)


def test_a_revision_of_what_has_none(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(SettingError, match="Only a hub id has revisions"):
        resolve(tmp_path, "/srv/m", "v2")


@pytest.mark.parametrize(
    "model", ["", "gpt2", "../m", "./m", "a/b/c", "org/..", "/srv/\0", "/srv/m\n", "org/na me", 7, None, True, ["tiny"]]
)
def test_a_name_of_no_known_form(tmp_path: Path, model: object) -> None:
    with pytest.raises(SettingError, match=r"qwen2\.5-0\.5b"):
        resolve(tmp_path, model)


def truncate(folder: Path) -> None:
    os.truncate(folder / "model-2.safetensors", 90)


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def pickled(folder: Path) -> None:
    for path in folder.glob("*safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")


def remap(name: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def unlink(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def loop(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("tokenizer.json")


def fifo(folder: Path) -> None:
    (folder / "model-1.safetensors").unlink()
    os.mkfifo(folder / "model-1.safetensors")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (empty, "holds nothing"),
        (unlink("config.json"), "config.json"),
        (unlink("tokenizer.json"), "tokenizer"),
        (unlink("model-2.safetensors"), "no 'model-2.safetensors'"),
        (unlink("model.safetensors.index.json"), "holds no weights"),
        (pickled, "Pickled weights can run code"),
        (truncate, "damaged or cut short"),
        (write("model-1.safetensors", b""), "at least 8 bytes"),
        (write("model-1.safetensors", b"\xff" * 8 + b"{}"), "a header of 18446744073709551615"),
        (write("model-1.safetensors", struct.pack("<Q", 2) + b"{}"), "tensor 'a' in model-1.safetensors"),
        (write("config.json", b"{"), "config.json is damaged"),
        (write("config.json", b"[]"), "a JSON object in config.json"),
        (write("config.json", b"[" * 100_000), "config.json is damaged"),
        (write("config.json", b"\xff\xfe"), "config.json is damaged"),
        (write("model.safetensors.index.json", b'{"weight_map": []}'), "a weight_map"),
        (remap("../model-1.safetensors"), "A shard lies beside its index"),
        (remap("/etc/passwd"), "A shard lies beside its index"),
        (remap("model-1.safetensors\0"), "A shard lies beside its index"),
        (remap("a\nb.safetensors"), "A shard lies beside its index"),
        (remap("pytorch_model.bin"), "A shard lies beside its index"),
        (remap(7), "A shard lies beside its index"),
        (loop, "tokenizer.json"),
        (fifo, "something else"),
    ],
)
def test_damage_is_named(tmp_path: Path, folder: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(folder)
    with pytest.raises(SettingError) as caught:
        resolve(tmp_path, "/srv/m")
    assert said in str(caught.value)


def test_a_model_that_names_other_weights_is_refused(tmp_path: Path, folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen2", "transformers_weights": "decoy.safetensors"}')
    with pytest.raises(SettingError, match=r"without transformers_weights; found 'decoy\.safetensors'"):
        resolve(tmp_path, "/srv/m")
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/srv/decoy"}')
    with pytest.raises(SettingError, match="an adapter in /srv/m"):
        resolve(tmp_path, "/srv/m")


def test_headers_are_read_within_bounds(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(folder / "model-1.safetensors", "wb") as shard:
        shard.write(struct.pack("<Q", 100_000_000))
        shard.truncate(100_000_008)
    with pytest.raises(SettingError, match="a header of 100000000 bytes"):
        resolve(tmp_path, "/srv/m")
    write_shard(folder / "model-1.safetensors", "a", 10)
    monkeypatch.setattr(files, "_MAX_HEADERS_BYTES", 100)
    with pytest.raises(SettingError, match="No model has that many tensors"):
        resolve(tmp_path, "/srv/m")


def test_a_name_that_no_file_can_have_has_no_size(tmp_path: Path) -> None:
    assert files.expected_bytes(Host(tmp_path), ModelPlace("/var", "/srv/\0", "", "/hf", offline=True)) == 0
    with pytest.raises(SettingError):
        resolve(tmp_path, "/srv/\0")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("")
    with pytest.raises(SettingError, match="cannot be listed"):
        resolve(tmp_path, "/m")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own never is."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_reader_who_is_kept_out(public: Path) -> None:
    folder = public / "srv/m"
    write_model(folder)
    stranger = Reader("stranger", 4_000_000, (4_000_000,))
    assert resolve(public, "/srv/m", reader=stranger).parameters == 16
    (folder / "model-2.safetensors").chmod(0o640)
    with pytest.raises(SettingError, match=r"model-2\.safetensors is closed to them"):
        resolve(public, "/srv/m", reader=stranger)
    (folder / "model-2.safetensors").chmod(0o604)
    kin = Reader("kin", 4_000_000, (os.stat(folder / "model-2.safetensors").st_gid,))
    with pytest.raises(SettingError, match=r"model-2\.safetensors is closed to them"):
        resolve(public, "/srv/m", reader=kin)
    (folder / "model-2.safetensors").chmod(0o644)
    folder.chmod(0o700)
    with pytest.raises(SettingError, match="srv/m is closed to them"):
        resolve(public, "/srv/m", reader=stranger)


def test_a_link_in_a_closed_folder_keeps_a_reader_out(public: Path) -> None:
    """Of the model itself, of what leads to its links, and of a link among several."""
    write_model(public / "srv/open")
    (public / "srv/closed").mkdir()
    (public / "srv/closed/m").symlink_to("../open")
    (public / "srv/m").symlink_to("closed/m")
    stranger = Reader("stranger", 4_000_000, (4_000_000,))
    for path in ("/srv/closed/m", "/srv/m"):
        assert resolve(public, path, reader=stranger).weight_files[0].path == "/srv/open/model-1.safetensors"
    (public / "srv/closed").chmod(0o700)
    for path in ("/srv/closed/m", "/srv/m"):
        with pytest.raises(SettingError, match="srv/closed is closed to them"):
            resolve(public, path, reader=stranger)
    assert resolve(public, "/srv/open", reader=stranger).parameters == 16


def test_the_table_of_sizes_is_what_the_builder_plans() -> None:
    planned = {name: build_model.planned_bytes(shape) for name, shape in build_model.SHAPES.items()}
    assert planned == EMBEDDED_MODEL_BYTES


OTHERS = {
    "adapter_model.safetensors": "an adapter",
    "model-q4.gguf": "GGUF",
    "consolidated.safetensors": "their author's own layout",
    "model_index.json": "a pipeline of several models",
    "weights.npz": "weights of MLX",
    "model.fp16.safetensors": "the weights of a variant",
    "model.onnx": "ONNX",
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("config", [True, False])
def test_what_a_folder_holds_instead_of_a_model_is_said(tmp_path: Path, name: str, config: bool) -> None:
    folder = tmp_path / "srv/m"
    folder.mkdir(parents=True)
    (folder / name).touch()
    if config:
        (folder / "config.json").write_text("{}")
    with pytest.raises(SettingError) as refused:
        resolve(tmp_path, "/srv/m")
    assert repr(name) in refused.value.found
    assert OTHERS[name] in refused.value.why


def test_a_model_in_a_sub_folder_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(SettingError, match=r"config\.json in 'm'"):
        resolve(tmp_path, "/srv")


def test_a_distributed_checkpoint_would_be_loaded_in_place_of_the_weights(tmp_path: Path, folder: Path) -> None:
    (folder / "shard-00001-model-00001-of-00001.safetensors").touch()
    with pytest.raises(SettingError, match="other weights than those that are checked"):
        resolve(tmp_path, "/srv/m")


def test_shards_may_lie_in_a_folder_below(tmp_path: Path, folder: Path) -> None:
    (folder / "parts").mkdir()
    (folder / "model-2.safetensors").rename(folder / "parts/model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "parts/model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [file.name for file in resolve(tmp_path, "/srv/m").weight_files] == [
        "model-1.safetensors",
        "parts/model-2.safetensors",
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer.json", "tokenizer.model", "tokenizer.model.v3", "vocab.json", "vocab.txt", "tekken.json"),
        *("sentencepiece.bpe.model", "spiece.model", "qwen.tiktoken", "source.spm", "dict.txt"),
    ],
)
def test_every_library_s_tokenizer_is_one(tmp_path: Path, folder: Path, name: str) -> None:
    (folder / "tokenizer.json").rename(folder / name)
    assert {file.name for file in resolve(tmp_path, "/srv/m").files if file.kind == "tokenizer"} == {name}


def test_an_old_hub_id_has_no_organisation(tmp_path: Path) -> None:
    commit = "a" * 40
    write_model(tmp_path / f"hf/hub/models--gpt2/snapshots/{commit}")
    (tmp_path / "hf/hub/models--gpt2/refs").mkdir()
    (tmp_path / "hf/hub/models--gpt2/refs/main").write_text(commit)
    model = resolve(tmp_path, "gpt2")
    assert (model.source, model.revision) == ("hub", commit)
    with pytest.raises(SettingError, match="embedded shape"):
        resolve(tmp_path, "gpt3")


def test_old_buffers_of_flags_are_not_the_dtype(tmp_path: Path, folder: Path) -> None:
    write_shard(folder / "model.safetensors", "mask", 1000, "BOOL", 1)
    write_shard(folder / "model-1.safetensors", "a", 10)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1.safetensors", "mask": "model-2.safetensors"}}
    write_shard(folder / "model-2.safetensors", "mask", 1000, "BOOL", 1)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert resolve(tmp_path, "/srv/m").dtype == "bfloat16"
    write_shard(folder / "model-1.safetensors", "a", 10, "I32", 4)
    assert resolve(tmp_path, "/srv/m").dtype == "bool"


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}, "bitsandbytes 8-bit"),
        ({"quant_method": "gptq", "bits": 4}, "gptq 4-bit"),
        ({"bits": "many"}, "quantised"),
        ({"quant_method": ["x"], "bits": True}, "quantised"),
        ({"quant_method": "x" * 300}, "x" * 40),
        ("none", None),
    ],
)
def test_a_quantised_model_has_the_quantisers_word_for_a_dtype(asked: Any, word: str | None) -> None:
    assert quantization_word({"quantization_config": asked}) == word


def test_only_the_weights_that_are_loaded_count_towards_the_memory(tmp_path: Path, folder: Path) -> None:
    write_shard(folder / "consolidated.safetensors", "x", 1000)
    place = ModelPlace("/var", "/srv/m", "", "/hf", offline=True)
    assert expected_bytes(Host(tmp_path), place) == resolve(tmp_path, "/srv/m").weight_bytes
    assert expected_bytes(Host(tmp_path), ModelPlace("/var", "/srv/none", "", "/hf", offline=True)) == 0
