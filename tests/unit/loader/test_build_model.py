"""The builder of embedded models: true shapes, well-behaved bits, folders made right with the least work."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ansible.module_utils.slm_baseline.measuring.model.safetensors import header_length, parse_header

from files import build_model
from files.build_model import BuildError, Shard, Tensor

SCRIPT = Path(build_model.__file__)
# Parameters as the models' publishers count them.
PARAMETERS = {"qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304, "phi-3-mini": 3_821_079_552}
GOLDEN = {
    "config.json": "d25951b1984c5728",
    "generation_config.json": "18db13276eac0553",
    "tokenizer.json": "bce1705c9ce4ba74",
    "tokenizer_config.json": "eb0ae3f56299e5c2",
    "model.safetensors.index.json": "3190b4e4c177b6e2",
    "model-00001-of-00002.safetensors": "c28e6f3ae459962e",
    "model-00002-of-00002.safetensors": "920f149efc15d9a6",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    build_model.build("tiny", path)
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder of its own, for tests that damage it."""
    build_model.build("tiny", tmp_path / "tiny")
    return tmp_path / "tiny"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != build_model.STAMP}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert build_model.parameters_of(build_model.SHAPES[name]) == PARAMETERS[name]


@pytest.mark.parametrize("name", build_model.SHAPES)
def test_shards_hold_every_tensor_once_and_are_bounded(name: str) -> None:
    shape = build_model.SHAPES[name]
    shards = build_model.shards_of(shape)
    assert len(shards) > 1
    assert [tensor for shard in shards for tensor in shard.tensors] == build_model.tensors_of(shape.config)
    for shard in shards:
        assert len(shard.tensors) == 1 or sum(tensor.size_bytes for tensor in shard.tensors) <= shape.shard_bytes


def test_phi_fuses_its_projections_and_keeps_its_head() -> None:
    shapes = {tensor.name: tensor.shape for tensor in build_model.tensors_of(build_model.SHAPES["phi-3-mini"].config)}
    assert shapes["model.layers.31.self_attn.qkv_proj.weight"] == (9216, 3072)
    assert shapes["model.layers.0.mlp.gate_up_proj.weight"] == (16384, 3072)
    assert shapes["lm_head.weight"] == (32064, 3072)
    assert len(shapes) == 32 * 6 + 3


def test_qwen_groups_its_keys_and_ties_its_head() -> None:
    shapes = {tensor.name: tensor.shape for tensor in build_model.tensors_of(build_model.SHAPES["qwen2.5-0.5b"].config)}
    assert shapes["model.layers.23.self_attn.k_proj.weight"] == (128, 896)
    assert shapes["model.layers.23.self_attn.q_proj.bias"] == (896,)
    assert "lm_head.weight" not in shapes
    assert len(shapes) == 24 * 12 + 2


def test_files_are_what_the_plan_and_the_index_say(built: Path) -> None:
    shape = build_model.SHAPES["tiny"]
    manifest = json.loads((built / "manifest.json").read_text())
    sizes = {name: (built / name).stat().st_size for name in manifest["files"]}
    assert sizes == {name: entry["bytes"] for name, entry in manifest["files"].items()}
    assert sum(sizes.values()) == manifest["total_bytes"] == build_model.planned_bytes(shape)
    weight_map = json.loads((built / "model.safetensors.index.json").read_text())["weight_map"]
    found = {}
    for name in set(weight_map.values()):
        data = (built / name).read_bytes()
        length = header_length(data[:8], len(data), name)
        assert (8 + length) % 8 == 0
        found.update(dict.fromkeys(parse_header(data[8 : 8 + length], len(data), name).elements, name))
    assert found == weight_map


def test_every_file_is_readable_by_all_and_writable_by_its_owner(built: Path) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in built.iterdir()} == {0o644}
    assert stat.S_IMODE(built.stat().st_mode) == 0o755


def as_floats(data: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def test_weights_are_finite_normal_and_spread_like_trained_ones() -> None:
    tensor = Tensor("model.layers.0.mlp.up_proj.weight", (500, 401))
    values = as_floats(b"".join(build_model.tensor_chunks(tensor, 0)))
    assert values.size == tensor.elements
    assert np.isfinite(values).all()
    assert 2.0**-67 <= np.abs(values).min() < 2.0**-60
    assert 0.12 < np.abs(values).max() < 0.125
    assert 0.013 < values.std() < 0.0145
    assert abs(values.mean()) < 0.0002


def test_norm_weights_are_between_one_and_two() -> None:
    values = as_floats(b"".join(build_model.tensor_chunks(Tensor("model.norm.weight", (1000,)), 0)))
    assert values.min() >= 1
    assert 1.9 < values.max() < 2


def test_one_tensor_can_be_made_alone(built: Path) -> None:
    first = build_model.shards_of(build_model.SHAPES["tiny"])[0]
    tensor = first.tensors[3]
    begin = len(first.header) + sum(before.size_bytes for before in first.tensors[:3])
    stored = (built / first.name).read_bytes()[begin : begin + tensor.size_bytes]
    assert b"".join(build_model.tensor_chunks(tensor, 0)) == stored
    assert b"".join(build_model.tensor_chunks(tensor, 1)) != stored


def test_chunks_do_not_change_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = Tensor("t.weight", (1003,))
    whole = b"".join(build_model.tensor_chunks(tensor, 0))
    monkeypatch.setattr(build_model, "CHUNK_BYTES", 64)
    chunks = list(build_model.tensor_chunks(tensor, 0))
    assert len(chunks) == 32
    assert b"".join(chunks) == whole


def test_a_second_folder_is_the_same_byte_for_byte(built: Path, tiny: Path) -> None:
    assert content(tiny) == content(built)


def test_the_bits_are_those_of_every_earlier_release(built: Path) -> None:
    # A change here is a change of every embedded model: raise BUILDER_VERSION.
    files = json.loads((built / "manifest.json").read_text())["files"]
    assert {name: entry["sha256"][:16] for name, entry in files.items()} == GOLDEN


def test_a_right_folder_is_told_without_reading_it(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in tiny.iterdir()}
    monkeypatch.setattr(build_model, "hash_file", lambda path: pytest.fail(f"hashed {path}"))
    result = build_model.build("tiny", tiny)
    assert (result["built"], result["changed"], result["verified"]) == ([], False, True)
    assert {path.name: path.stat().st_mtime_ns for path in tiny.iterdir()} == before


def test_a_right_folder_needs_no_numpy(tiny: Path) -> None:
    code = f"import sys; sys.modules['numpy'] = None; sys.path.insert(0, {str(SCRIPT.parent)!r}); "
    code += f"import build_model as b; sys.exit(b.main(['--shape', 'tiny', '--output', {str(tiny)!r}]))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def flip(path: Path, keep_times: bool = False) -> None:
    status = path.stat()
    with open(path, "r+b") as stream:
        stream.seek(-5, os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-5, os.SEEK_END)
        stream.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns if keep_times else status.st_mtime_ns + 1))


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json", "tokenizer.json"])
def test_only_a_damaged_file_is_made_again(built: Path, tiny: Path, name: str) -> None:
    flip(tiny / name)
    result = build_model.build("tiny", tiny)
    assert (result["built"], result["changed"]) == ([name], True)
    assert content(tiny) == content(built)


def test_damage_that_kept_its_times_is_found_by_verify(built: Path, tiny: Path) -> None:
    name = "model-00001-of-00002.safetensors"
    flip(tiny / name, keep_times=True)
    assert build_model.build("tiny", tiny)["built"] == []
    assert build_model.build("tiny", tiny, verify=True)["built"] == [name]
    assert content(tiny) == content(built)


def test_a_truncated_file_a_missing_one_and_a_link_are_made_again(built: Path, tiny: Path, tmp_path: Path) -> None:
    os.truncate(tiny / "model-00001-of-00002.safetensors", 1000)
    (tiny / "tokenizer_config.json").unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tiny / "config.json").unlink()
    (tiny / "config.json").symlink_to(elsewhere)
    result = build_model.build("tiny", tiny)
    assert sorted(result["built"]) == ["config.json", "model-00001-of-00002.safetensors", "tokenizer_config.json"]
    assert elsewhere.read_text() == "mine"
    assert content(tiny) == content(built)


def test_a_copied_folder_is_hashed_once_and_not_built(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tiny.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    result = build_model.build("tiny", copy)
    assert (result["built"], result["changed"]) == ([], False)
    monkeypatch.setattr(build_model, "hash_file", lambda path: pytest.fail(f"hashed {path}"))
    assert build_model.build("tiny", copy)["built"] == []


@pytest.mark.parametrize(
    "document", [b"", b"[]", b'{"builder": "slm-baseline", "files": [1]}', b"[" * 100_000, b"\xff"]
)
def test_a_damaged_manifest_or_stamp_costs_no_weights(built: Path, tiny: Path, document: bytes) -> None:
    (tiny / build_model.MANIFEST).write_bytes(document)
    result = build_model.build("tiny", tiny)
    assert (result["built"], result["changed"]) == ([], True)
    (tiny / build_model.STAMP).write_bytes(document)
    assert build_model.build("tiny", tiny)["built"] == []
    assert content(tiny) == content(built)


def test_a_stamp_without_hashes_is_not_believed(built: Path, tiny: Path) -> None:
    stamp = json.loads((tiny / build_model.STAMP).read_text())
    for entry in stamp["files"].values():
        del entry["sha256"]
    (tiny / build_model.STAMP).write_text(json.dumps(stamp))
    assert build_model.build("tiny", tiny)["built"] == []
    assert content(tiny) == content(built)


def test_a_killed_build_goes_on_where_it_stopped(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny"
    true_content = build_model.shard_content

    def dies_in_the_second(shard: Shard, seed: int) -> Any:
        yield from true_content(shard, seed)
        if "00002-of" in shard.name:
            raise KeyboardInterrupt

    monkeypatch.setattr(build_model, "shard_content", dies_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        build_model.build("tiny", path)
    assert (path / "model-00002-of-00002.safetensors.part").exists()
    assert not (path / "model-00002-of-00002.safetensors").exists()
    monkeypatch.setattr(build_model, "shard_content", true_content)
    assert build_model.build("tiny", path)["built"] == ["model-00002-of-00002.safetensors"]
    assert content(path) == content(built)


def test_another_seed_makes_other_weights_in_place(tiny: Path) -> None:
    before = content(tiny)
    result = build_model.build("tiny", tiny, seed=1)
    assert result["changed"]
    after = content(tiny)
    assert after["tokenizer.json"] == before["tokenizer.json"]
    assert after["model-00001-of-00002.safetensors"] != before["model-00001-of-00002.safetensors"]


def test_a_folder_of_another_shape_is_left_alone(tiny: Path) -> None:
    before = content(tiny)
    with pytest.raises(BuildError, match="holds the model 'tiny'"):
        build_model.build("qwen2.5-0.5b", tiny)
    assert content(tiny) == before


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(BuildError, match="did not write"):
        build_model.build("tiny", tmp_path)
    assert content(tmp_path) == {"config.json": b"mine"}


def test_too_little_room_is_told_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": build_model.SPARE_BYTES + 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(BuildError, match=r"needs 0\.99 GB and 0\.27 GB to spare; 0\.27 GB are free"):
        build_model.build("qwen2.5-0.5b", tmp_path / "m")
    assert os.listdir(tmp_path / "m") == [build_model.STAMP]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_the_last_line_is_one_json_object(tmp_path: Path) -> None:
    done = run("--shape", "tiny", "--output", str(tmp_path / "a/b"))
    assert done.returncode == 0
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == {
        *("path", "shape", "bytes", "parameters", "files", "built", "verified", "changed", "manifest_sha256")
    }
    assert (result["path"], result["files"], len(result["built"])) == (str(tmp_path / "a/b"), 7, 7)


@pytest.mark.parametrize(
    "arguments", [["--shape", "huge"], ["--seed", "x"], [], ["--shape", "tiny", "--output", "/proc/none/m"]]
)
def test_bad_arguments_get_one_line_and_exit_2(tmp_path: Path, arguments: list[str]) -> None:
    output = [] if not arguments or "--output" in arguments else ["--output", str(tmp_path / "m")]
    done = run(*arguments, *output)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("build_model: ")


# --- the tokenizer, as far as it can be told without the library that reads it ---


@pytest.mark.parametrize("name", ["tiny", "phi-3-mini"])
def test_a_vocabulary_is_complete_and_merges_make_its_tokens(name: str) -> None:
    spec = build_model.SHAPES[name].tokenizer
    ids, merges = build_model.vocabulary(spec)
    assert sorted(ids.values()) == list(range(spec.size))
    assert len(set(merges)) == len(merges) == spec.merges
    assert set(build_model.byte_symbols()) <= set(ids)
    merged = set()
    for merge in merges:
        left, right = merge.split(" ")
        assert left in ids
        assert right in ids
        merged.add(left + right)
    assert len(merged) == spec.size - 256 - len(spec.leading)
    assert merged <= set(ids)


def test_specials_follow_the_vocabulary_and_fit_the_model() -> None:
    for shape in build_model.SHAPES.values():
        spec = shape.tokenizer
        ends = spec.size + len(spec.added)
        assert ends <= shape.config["vocab_size"]
        assert shape.config["eos_token_id"] == spec.size


def test_byte_symbols_are_the_published_table() -> None:
    symbols = build_model.byte_symbols()
    assert len(set(symbols)) == 256
    assert (symbols[0x20], symbols[0x0A], symbols[ord("a")], symbols[0xAD]) == ("Ġ", "Ċ", "a", "Ń")


def test_a_shard_header_is_what_the_format_lays_down() -> None:
    header = Shard("s", (Tensor("a", (2, 3)), Tensor("b", (1,)))).header
    (length,) = struct.unpack("<Q", header[:8])
    assert len(header) == 8 + length
    assert json.loads(header[8:]) == {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
        "b": {"dtype": "BF16", "shape": [1], "data_offsets": [12, 14]},
    }


def test_a_lock_that_anybody_can_hold_holds_no_builder_up(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_model, "LOCK_WAIT_S", 0.0)
    folder = os.open(tiny, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert build_model.build("tiny", tiny)["changed"] is False
    os.close(folder)


def test_a_second_builder_waits_and_then_says_so(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_model, "LOCK_WAIT_S", 0.2)
    with build_model.alone(tiny):
        assert (tiny / build_model.LOCK).stat().st_mode & 0o777 == 0o600
        with pytest.raises(BuildError, match=r"another builder has been working on .*tiny for 0 s"):
            build_model.build("tiny", tiny)
    assert not (tiny / build_model.LOCK).exists()


def test_a_lock_left_by_a_killed_builder_is_taken_over(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_model, "LOCK_WAIT_S", 0.0)
    (tiny / build_model.LOCK).write_text("")
    assert build_model.build("tiny", tiny)["changed"] is False
    assert not (tiny / build_model.LOCK).exists()


def test_a_lock_that_went_with_the_first_builder_is_not_the_seconds(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, flock, opened = tiny / build_model.LOCK, fcntl.flock, []

    def overtaken(descriptor: int, operation: int) -> None:
        opened.append(os.fstat(descriptor).st_ino)
        if len(opened) == 1:
            name.rename(tiny.parent / "gone")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with build_model.alone(tiny):
        assert name.stat().st_ino == opened[1] != opened[0]
