"""The loader against a stand-in torch and transformers: its events, its hold, its one-line errors."""

from __future__ import annotations

import ast
import ctypes
import json
import mmap
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from files import slm_load
from tests.support.fake_packages import write_packages

SCRIPT = Path(slm_load.__file__)
PHASES = ["interpreter", "import_torch", "import_transformers", "device_ready", "tokenizer", "weights", "first_token"]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    return write_packages(tmp_path / "packages")


def environment(packages: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.defpath, "PYTHONPATH": str(packages), "CALLS": str(packages / "calls"), **more}


def by_hand(packages: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(packages, **more))


def calls(packages: Path) -> list[str]:
    path = packages / "calls"
    return path.read_text().splitlines() if path.exists() else []


class Watched:
    """One loader run with both descriptors, as the observer starts it."""

    def __init__(self, packages: Path, *arguments: str, **more: str) -> None:
        self.events_read, events_write = os.pipe()
        hold_read, self.hold_write = os.pipe()
        options = ["--events-fd", str(events_write), "--hold-fd", str(hold_read)]
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *options, *arguments],
            env=environment(packages, **more),
            pass_fds=(events_write, hold_read),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(events_write)
        os.close(hold_read)
        self.stream = os.fdopen(self.events_read, encoding="utf-8")

    def until_held(self) -> list[dict[str, Any]]:
        events = []
        for line in self.stream:
            events.append(json.loads(line))
            if events[-1]["event"] == "held":
                break
        return events

    def rest(self) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in self.stream]
        self.process.wait(10)
        return events

    def release(self) -> None:
        os.write(self.hold_write, b"x")

    def abandon(self) -> None:
        os.close(self.hold_write)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.stream.close()


def test_by_hand_it_prints_one_line(packages: Path) -> None:
    done = by_hand(packages)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"loaded {slm_load.MODEL} on cpu\n", "")


def test_why_there_is_no_gpu_is_said_and_no_other_warning(packages: Path) -> None:
    why = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."
    done = by_hand(packages, FAKE_WARNINGS=f"advice that nobody asked for\n{why}")
    assert (done.returncode, done.stdout) == (0, f"loaded {slm_load.MODEL} on cpu\n")
    assert done.stderr.count(why) == 1
    assert "advice" not in done.stderr


def test_by_hand_it_neither_counts_nor_imports_for_an_observer(packages: Path) -> None:
    by_hand(packages)
    assert "psutil imported" not in calls(packages)


def test_the_model_is_asked_for_as_promised(packages: Path, tmp_path: Path) -> None:
    by_hand(packages, "--model", str(tmp_path), "--dtype", "float32", "--revision", "v2", "--device-map", "cpu")
    (asked,) = [call for call in calls(packages) if call.startswith("model ")]
    options = ast.literal_eval(asked.split(" ", 2)[2])
    assert dict(options) == {
        "device_map": "cpu",
        "dtype": "torch.float32",
        "local_files_only": True,
        "output_loading_info": True,
        "revision": "v2",
        "trust_remote_code": False,
        "use_safetensors": True,
    }


def test_a_model_s_code_is_imported_before_its_weights_are_loaded(packages: Path) -> None:
    by_hand(packages)
    assert [call.split()[0] for call in calls(packages)][:3] == ["code", "tokenizer", "model"]


def test_every_token_is_read_back_and_decoding_keeps_its_cache(packages: Path) -> None:
    by_hand(packages, "--prompt", "a b c", "--new-tokens", "4")
    steps = [call for call in calls(packages) if call.startswith(("forward", "read back"))]
    assert steps == [
        *("forward [[1, 1, 1]] None True", "read back 7"),
        *("forward [[7]] past_key_values=cache7 True", "read back 8"),
        *("forward [[8]] past_key_values=cache8 True", "read back 8"),
        *("forward [[8]] past_key_values=cache8 True", "read back 8"),
    ]


def test_a_state_space_model_gets_its_cache_by_its_own_name(packages: Path) -> None:
    by_hand(packages, "--prompt", "a b c", FAKE_CACHE="cache_params")
    steps = [call for call in calls(packages) if call.startswith("forward")]
    assert steps == ["forward [[1, 1, 1]] None True", "forward [[7]] cache_params=cache7 True"]


@pytest.mark.parametrize("cache", ["hidden_states", "state"])
def test_a_model_without_a_cache_that_it_takes_gets_all_tokens_again(packages: Path, cache: str) -> None:
    by_hand(packages, "--prompt", "a b c", "--new-tokens", "3", FAKE_CACHE=cache)
    steps = [call for call in calls(packages) if call.startswith("forward")]
    assert steps == [
        "forward [[1, 1, 1]] None True",
        "forward [[1, 1, 1, 7]] None True",
        "forward [[1, 1, 1, 7, 8]] None True",
    ]


def test_what_is_held_of_which_file(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").touch()
    (tmp_path / "link").symlink_to("blob")
    loader = Watched(packages, FAKE_OPENED=f"{tmp_path}/link {tmp_path}/link")
    try:
        held = loader.until_held()[-1]
        loader.release()
        done = loader.rest()[-1]
    finally:
        loader.close()
    assert held["loaded"] == {
        "class": "Model",
        "files": [str(tmp_path / "blob")],
        "stored_elements": 40,
        "buffer_elements": 3,
        "tied": {"count": 1, "names": ["lm_head"]},
        "stored_twice": {"count": 1, "names": ["lm_head"]},
        # One that transformers told, one that it keeps to itself.
        "unplaced": {"count": 2, "names": ["old_bias", "vision"]},
        "unplaced_elements": 15,
        "quantization": None,
        "is_cached": True,
    }
    assert len(done["tokens_ns"]) == 1


def test_each_token_s_instant_is_told(packages: Path) -> None:
    loader = Watched(packages, "--new-tokens", "5")
    try:
        loader.until_held()
        loader.release()
        resumed, second, done = loader.rest()
    finally:
        loader.close()
    assert len(done["tokens_ns"]) == 4
    instants = [resumed["t_ns"], *done["tokens_ns"], done["t_ns"]]
    assert instants == sorted(instants)
    assert done["tokens_ns"][0] == second["t_ns"]


class Parameter(NamedTuple):
    dtype: str
    elements: int
    size: int

    def numel(self) -> int:
        return self.elements

    def element_size(self) -> int:
        return self.size


@pytest.mark.parametrize(
    ("parameters", "config", "word"),
    [
        ([Parameter("torch.float32", 10, 4), Parameter("torch.bfloat16", 30, 2)], None, "bfloat16"),
        ([Parameter("torch.uint8", 100, 1), Parameter("torch.bfloat16", 30, 2)], {"load_in_4bit": True}, "q 4-bit"),
        ([Parameter("torch.int8", 100, 1)], {"load_in_8bit": True}, "q 8-bit"),
        ([Parameter("torch.int32", 100, 4)], {"bits": 4}, "q 4-bit"),
        ([Parameter("torch.float8_e4m3fn", 100, 1)], {}, "q"),
        ([Parameter("torch.float8_e4m3fn", 100, 1)], None, "float8_e4m3fn"),
        ([Parameter("torch.bfloat16", 100, 2)], {"bits": 4}, "bfloat16"),
        ([], None, "none"),
    ],
)
def test_the_dtype_that_is_held_is_a_word_that_says_something(
    parameters: list[Parameter], config: dict[str, Any] | None, word: str
) -> None:
    asked = None if config is None else {"quant_method": "q", **config}
    model = SimpleNamespace(parameters=lambda: parameters, config=SimpleNamespace(quantization_config=asked))
    assert slm_load.held_dtype(model) == word


def test_a_model_that_does_not_name_its_embedding_is_fed_where_its_weights_are(packages: Path) -> None:
    done = by_hand(packages, FAKE_FAIL="embeddings", FAKE_GPUS="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "to cuda:0" in calls(packages)


@pytest.mark.parametrize("until", ["loaded", "first_token"])
def test_it_stays_once_all_is_done_so_that_it_can_be_asked_what_it_touched(packages: Path, until: str) -> None:
    loader = Watched(packages, "--until", until, "--linger-s", "60")
    try:
        if until == "first_token":
            loader.until_held()
            loader.release()
        last = "weights" if until == "loaded" else "done"
        assert any(json.loads(line)["event"] == last for line in loader.stream)
        with pytest.raises(subprocess.TimeoutExpired):
            loader.process.wait(0.5)
    finally:
        loader.close()


@pytest.mark.parametrize(("until", "tokens"), [("loaded", 0), ("first_token", 1), ("second_token", 2)])
def test_until_says_where_it_stops(packages: Path, until: str, tokens: int) -> None:
    done = by_hand(packages, "--until", until)
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(call.startswith("read back") for call in calls(packages)) == tokens


def test_events_come_in_the_protocol_s_order_and_the_hold_holds(packages: Path) -> None:
    before_ns = time.monotonic_ns()
    loader = Watched(packages)
    try:
        events = loader.until_held()
        assert [event["event"] for event in events] == [*PHASES, "held"]
        time.sleep(0.1)
        assert loader.process.poll() is None
        assert sum(call.startswith("forward") for call in calls(packages)) == 1
        released_ns = time.monotonic_ns()
        loader.release()
        after = loader.rest()
        assert [event["event"] for event in after] == ["resumed", "second_token", "done"]
        assert loader.process.returncode == 0
    finally:
        loader.close()
    instants = [before_ns, *(event["t_ns"] for event in events), released_ns, *(event["t_ns"] for event in after)]
    assert instants == sorted(instants)
    for event in events + after:
        assert set(event) >= {"read_bytes", "minor_faults", "major_faults", "cpu_user_s", "cpu_system_s"}
    assert events[-1]["minor_faults"] >= events[0]["minor_faults"] > 0


def test_only_runs_of_present_pages_are_copied_ahead() -> None:
    assert list(slm_load.runs(bytes([0, 1, 1, 0, 3, 2, 1]))) == [(1, 2), (4, 1), (6, 1)]
    assert list(slm_load.runs(b"")) == []


def test_pages_that_are_shared_with_a_template_are_the_childs_own_before_its_clock_starts() -> None:
    """A write to a shared page is a fault, which a fresh process does not have."""
    page, count = mmap.PAGESIZE, 64
    memory = mmap.mmap(-1, (2 * count + 1) * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # The other half is never touched, and must not come into being.
    memory[: count * page] = bytes(count * page)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            slm_load.own_memory()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for number in range(count):
                memory[number * page] = 1
            os.write(writing, str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before).encode())
        finally:
            os._exit(0)
    os.close(writing)
    faults = int(os.read(reading, 100) or b"-1")
    os.waitpid(pid, 0)
    os.close(reading)
    assert 0 <= faults < count // 4


def test_who_is_not_adopted_says_so_and_waits_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = [1, 1, 7]
    naps: list[float] = []
    monkeypatch.setattr(os, "getppid", lambda: parents.pop(0) if len(parents) > 1 else parents[0])
    monkeypatch.setattr(time, "sleep", naps.append)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(prctl=lambda *words: words))
    slm_load.tie_to(7)
    assert len(naps) == 2
    monkeypatch.setattr(slm_load, "ADOPTION_S", -1.0)
    with pytest.raises(BrokenPipeError, match="has not adopted"):
        slm_load.tie_to(8)


def test_of_many_names_the_first_few_are_told_and_all_are_counted() -> None:
    told = slm_load._told([f"{number}\n" + "x" * 500 for number in range(20)])
    assert (told["count"], len(told["names"])) == (20, 8)
    assert told["names"][7] == "7?" + "x" * 198


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("0.5", 0.5), ("60", 60.0)])
def test_how_long_it_stays_is_any_number_up_to_a_minute(text: str, seconds: float) -> None:
    assert slm_load.parse_arguments(["--linger-s", text]).linger_s == seconds


def test_what_is_held(packages: Path) -> None:
    loader = Watched(packages)
    try:
        held = loader.until_held()[-1]
    finally:
        loader.close()
    assert held["memory"] == {"rss_bytes": 4, "vsz_bytes": 3, "uss_bytes": 2, "pss_bytes": 1}
    assert (held["device"], held["dtype"], held["parameters"], held["gpu"]) == ("cpu", "bfloat16", 15, None)
    assert held["software"]["torch"] == "2.13.0"
    assert set(held["software"]) == {
        *("python", "torch", "transformers", "accelerate", "safetensors", "tokenizers", "psutil")
    }


def test_devices_are_ready_and_synchronised_at_every_boundary(packages: Path) -> None:
    loader = Watched(packages, FAKE_GPUS="2")
    try:
        held = loader.until_held()[-1]
        loader.release()
        assert [event["event"] for event in loader.rest()] == ["resumed", "second_token", "done"]
    finally:
        loader.close()
    assert held["device"] == "cuda:0,cuda:1"
    assert [gpu["index"] for gpu in held["gpu"]] == [0, 1]
    assert held["gpu"][1] == {
        "index": 1,
        "name": "Fake GPU",
        "uuid": "GPU-1-2",
        "capability": "9.0",
        "total_bytes": 1 << 36,
        "allocated_bytes": 101,
        "reserved_bytes": 201,
        "peak_allocated_bytes": 301,
        "cuda": "12.8",
    }
    kinds = [call.split(" [")[0].split(" cuda:")[0] for call in calls(packages) if not call.startswith("code of")]
    both = ["synchronize 0", "synchronize 1"]
    assert kinds[:4] == ["context", "context", *both]
    for index, kind in enumerate(kinds):
        if kind.startswith(("model ", "read back")):
            assert kinds[index + 1 : index + 3] == both


def test_an_observer_that_goes_away_ends_the_loader(packages: Path) -> None:
    loader = Watched(packages)
    try:
        loader.until_held()
        loader.abandon()
        loader.rest()
        assert loader.process.returncode == 1
        assert loader.process.stderr is not None
        assert b"observer" in loader.process.stderr.read()
    finally:
        loader.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dtype", "int4"], "invalid choice"),
        (["--until", "never"], "invalid choice"),
        (["--linger-s", "-1"], "from 0 to 60"),
        (["--linger-s", "nan"], "from 0 to 60"),
        (["--linger-s", "soon"], "from 0 to 60"),
        (["--new-tokens", "1"], "from 2 to 100000"),
        (["--new-tokens", "x"], "from 2 to 100000"),
        (["--events-fd", "77"], "not an open descriptor"),
        (["--events-fd", "9" * 30], "not an open descriptor"),
        (["--hold-fd", "x"], "not an open descriptor"),
        (["--model", "/nonexistent/model"], "not a folder"),
        (["--model", ""], "must name"),
        (["--surprise"], "unrecognized"),
    ],
)
def test_bad_arguments_get_one_line_and_exit_2(packages: Path, arguments: list[str], said: str) -> None:
    done = by_hand(packages, *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("slm_load: ")
    assert said in done.stderr
    assert calls(packages) == []


@pytest.mark.parametrize(
    ("fail", "status", "said"),
    [
        ("tokenizer", 2, "the tokenizer of 'm' cannot be loaded: 'model"),
        ("config", 0, ""),
        ("weights", 2, "'m' cannot be loaded: header too large"),
        ("missing", 2, "'m' lacks 2 of its weights, 'a' among them"),
        ("memory", 1, "OutOfMemoryError: CUDA out of memory"),
        ("forward", 1, "RuntimeError: CUDA error: device-side assert"),
        ("shape", 2, "Model makes no token: position_ids are incorrect"),
    ],
)
def test_a_load_that_fails_gets_one_line(packages: Path, fail: str, status: int, said: str) -> None:
    done = by_hand(packages, "--model", "m", FAKE_FAIL=fail)
    assert (done.returncode, len(done.stderr.splitlines())) == (status, 1 if status else 0)
    assert said in done.stderr


def test_a_torch_without_its_own_memory_error_still_gets_one_line(packages: Path) -> None:
    torch = packages / "torch.py"
    torch.write_text(torch.read_text().replace("class OutOfMemoryError(RuntimeError): pass", ""))
    done = by_hand(packages, "--model", "m", FAKE_FAIL="weights")
    assert (done.returncode, done.stderr) == (2, "slm_load: 'm' cannot be loaded: header too large\n")


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_an_environment_without_a_package_gets_one_line(packages: Path, name: str) -> None:
    (packages / f"{name}.py").write_text("raise ImportError('No module named x')")
    done = by_hand(packages)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"cannot import {name}" in done.stderr


def test_nothing_comes_before_the_interpreter_s_instant() -> None:
    statements = ast.parse(SCRIPT.read_text()).body
    assert [ast.unparse(statement) for statement in statements[1:4]] == [
        "from __future__ import annotations",
        "import time",
        "_INTERPRETER_NS = time.monotonic_ns()",
    ]


def test_read_bytes_is_what_the_kernel_says() -> None:
    text = "rchar: 5\nwchar: 1\nsyscr: 2\nsyscw: 3\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n"
    assert slm_load.parse_read_bytes(text) == 4096
    assert slm_load.parse_read_bytes("rchar: 5\n") is None


@pytest.mark.parametrize(
    ("placement", "names"),
    [
        (["cpu"], "cpu"),
        ([0], "cuda:0"),
        ([0, 0, 1, "cpu"], "cuda:0,cuda:1,cpu"),
        (["cuda", "cuda:0"], "cuda:0"),
        (["disk"], "disk"),
    ],
)
def test_device_names(placement: list[object], names: str) -> None:
    assert slm_load.device_names(placement) == names


def test_offline_is_a_folder_or_an_environment_that_says_so(tmp_path: Path) -> None:
    assert slm_load.is_offline(str(tmp_path), {})
    assert slm_load.is_offline("org/m", {"HF_HUB_OFFLINE": "1"})
    assert slm_load.is_offline("org/m", {"TRANSFORMERS_OFFLINE": "true"})
    assert not slm_load.is_offline("org/m", {"HF_HUB_OFFLINE": "0"})
    assert not slm_load.is_offline("org/m", {})


def test_one_line_of_any_error() -> None:
    assert slm_load.one_line(ValueError("a\nb")) == "a"
    assert slm_load.one_line(KeyError()) == "KeyError"
    assert len(slm_load.one_line(ValueError("x" * 1000))) == 300
