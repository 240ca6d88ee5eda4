"""The page, rendered from stored results by the role's own template, against golden pages and published examples.

After a change that is meant, `SLM_UPDATE_GOLDEN=1 pytest tests/unit/control/baseline/test_report.py` writes them anew.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from analysis.baseline.figures import imports_svg, load_svg
from analysis.baseline.report import host_report
from analysis.baseline.result import read_result
from analysis.documents.decode import typed
from analysis.documents.errors import DocumentError
from analysis.documents.samples import Sample
from analysis.statistics import summarise

REPOSITORY = Path(__file__).resolve().parents[4]
GOLDEN = REPOSITORY / "tests/golden/results"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
EXAMPLES = sorted(path.parent for path in (REPOSITORY / "docs/examples").glob("*/result.json"))
_NUMBER_WITHOUT_UNIT = re.compile(r"[0-9]\.[0-9]+ (?!s\b|ms\b|B\b|[KMGT]iB\b|[kMGT]?B/s\b|%|x\b|billion|GHz|\()")


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return document


def render(document: dict[str, Any]) -> str:
    return host_report(document)


def part(document: dict[str, Any], name: str) -> str:
    """One part of the page: a section by its title, or the paragraphs `headline` and `model` before the first."""
    head, *sections = host_report(document).split("\n## ")
    parts = {section.partition("\n")[0]: section.partition("\n")[2].strip() for section in sections}
    _, parts["headline"], parts["model"] = head.strip().split("\n\n")
    return parts[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_the_golden_one(name: str) -> None:
    page = render(load(name))
    golden = GOLDEN / f"{name}.md"
    if os.environ.get("SLM_UPDATE_GOLDEN"):
        golden.write_text(page, encoding="utf-8")
    assert page == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_a_published_example_is_what_the_code_makes_of_its_result_today(folder: Path) -> None:
    document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    made = {"README.md": render(document), "phases.svg": load_svg(document), "imports.svg": imports_svg(document)}
    for name, text in made.items():
        # A result from before the imports were measured has no picture of them.
        if not text:
            assert name not in made["README.md"]
            continue
        if os.environ.get("SLM_UPDATE_GOLDEN"):
            (folder / name).write_text(text, encoding="utf-8")
        assert text == (folder / name).read_text(encoding="utf-8"), name


def test_there_are_examples_and_they_name_no_private_kernel() -> None:
    assert EXAMPLES
    for folder in EXAMPLES:
        kernel = json.loads((folder / "result.json").read_text(encoding="utf-8"))["host"]["kernel"]
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)+", kernel), folder.name


def test_no_share_of_a_limit_passes_100_percent() -> None:
    """Results from before the ceiling was measured in several ways hold shares above 1."""
    document = load("gpu")
    document["ceiling"]["bytes_per_s"] = [1e6]
    for copy in document["ceiling"]["host_to_device"]:
        copy.update(pinned_bytes_per_s=1e6, pageable_bytes_per_s=1e6)
    for sample in document["samples"]:
        sample["ceiling_share"] = 1.11 if sample["kind"] == "cold" else None
    document["summary"] = summarise(typed(Sample, sample) for sample in document["samples"]).to_json()
    page = render(document)
    assert "100 %" in page
    assert [share for share in re.findall(r"([0-9]+) %", page) if int(share) > 100] == []


def test_what_was_tried_for_the_ceiling_is_shown_the_fastest_first() -> None:
    document = load("cpu")
    trial = {"streams": 4, "chunk_bytes": 4 << 20, "read_bytes": 1, "reason": None}
    document["ceiling"]["trials"] = [
        {**trial, "how": "direct", "bytes_per_s": 1.2e9},
        {**trial, "how": "buffered", "bytes_per_s": None, "reason": "it | refused"},
        {**trial, "how": "populate", "bytes_per_s": 2.2e9},
        {**trial, "how": "direct", "bytes_per_s": 1.4e9},
    ]
    page = render(document)
    assert "in several ways, the best of each pass: 2.1" in page
    rows = [line for line in page.splitlines() if "4.00 MiB" in line]
    assert rows == [
        "| mappings, populated (MADV_POPULATE_READ) | 4 | 4.00 MiB | 2.20 GB/s |  |",
        "| direct reads (O_DIRECT) | 4 | 4.00 MiB | 1.30 GB/s |  |",
        "| buffered reads | 4 | 4.00 MiB | not measured | it \\| refused |",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_whole_and_sections_apart(name: str) -> None:
    lines = render(load(name)).split("\n")
    for before, line in itertools.pairwise(lines):
        if line.startswith("|") and before.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", before)), line
        if line.startswith("#"):
            assert before == "", line
    assert "\n\n\n" not in "\n".join(lines)


@pytest.mark.parametrize("name", ["cpu", "gpu", "no-systemd", "measure-only"])
def test_hostile_text_anywhere_stays_inert(name: str) -> None:
    hostile = "x|`<script>alert(1)</script>\n\n# owned\n](http://evil.example) \x1b[31m{{ 7*7 }}"

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: spoil(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [spoil(item, key) for item in value]
        return hostile if isinstance(value, str) and key in _FREE_TEXT else value

    document = load(name)
    spoiled = {
        **document,
        **{part: spoil(document[part]) for part in ("host", "software", "protocol", "tuning")},
        "model": {**spoil(document["model"]), "source": "hub"},
        "samples": [{**sample, "noise": {"noisy": True, "reasons": [hostile]}} for sample in document["samples"]],
    }
    page = render(spoiled)
    outside_fences = re.sub(r"^(`{3,})text\n.*?^\1$", "", page, flags=re.S | re.M)
    assert "alert" in outside_fences
    assert "<script" not in re.sub(r"`[^`\n]*`", "", outside_fences)
    assert "\n# owned" not in page
    assert not re.search(r"(?<!\\)\]\(http", re.sub(r"`[^`\n]*`", "", outside_fences))
    assert "\x1b" not in page
    for line in outside_fences.split("\n"):
        assert line.count("|") - line.count("\\|") in (0, 3, 4, 5, 6, 7, 8, 11), line


_FREE_TEXT = (
    *(
        "name",
        "kernel",
        "distribution",
        "cpu_model",
        "device",
        "model",
        "type",
        "mount_point",
        "id",
        "revision",
        "path",
    ),
    *("detail", "source", "notes", "options", "user", "gpu_driver", "cuda", "torch"),
)


@pytest.mark.parametrize("name", NAMES)
def test_the_headline_says_cold_warm_and_whether_the_tuning_took(name: str) -> None:
    document = load(name)
    lines = part(document, "headline").split("\n")
    is_estimate = read_result(document).is_estimate
    begin = [line.replace("**", "") for line in lines]
    # What is known comes first; of an estimate nothing is bold.
    first, cold = (4, 0) if is_estimate else (0, 1)
    assert "irst token" in lines[first]
    assert begin[cold].startswith("- Cold load: ")
    assert begin[cold + 1].startswith("- Warm load: ")
    assert ("**" in render(document)) is not is_estimate
    drifted = any(row["verdict"] == "drift" for row in document["tuning"]["rows"])
    assert any(line.startswith("- Not tuned as asked for:") for line in begin) is drifted
    assert any(line.startswith("- Tuned and verified:") for line in begin) is not drifted
    assert not _NUMBER_WITHOUT_UNIT.search("\n".join(lines).replace("[", "(").replace(", ", " ("))


def test_sections_are_plain_text_for_ansible() -> None:
    assert type(host_report(load("gpu"))) is str


def test_a_host_without_a_gpu_has_no_section_about_it() -> None:
    assert "## GPUs" not in render(load("cpu"))
    assert "| 1 | NVIDIA H100 80GB HBM3 | 79.6 GiB | generation 5, 8 lanes" in render(load("gpu"))


def test_where_and_as_what_the_model_was_loaded_is_told() -> None:
    assert "stored as bfloat16, in `/var" in part(load("cpu"), "model")
    assert ", loaded on cpu as bfloat16. Measured " in part(load("cpu"), "model")
    document = load("gpu")
    assert ", loaded on cuda:0, cuda:1 as bfloat16. Measured " in part(document, "model")
    document["samples"][0] |= {"device": "<b>", "dtype": "float32"}
    assert ", loaded on &lt;b&gt; as float32; on cuda:0, cuda:1 as bfloat16. Measured " in part(document, "model")


def test_a_ratio_is_bold_where_it_has_an_interval_without_one() -> None:
    few, same = load("no-systemd"), load("cpu")
    assert (
        "\n- A cold load takes 1.72x as long as a warm one, paired in 2 blocks, too few for an interval; estimate from "
        "2 quiet blocks.\n"
    ) in part(few, "headline")
    assert "\n- **A cold load takes 1.69x as long as a warm one**, between 1.68x and 1.77x" in part(same, "headline")
    same["summary"]["cold_to_warm_load_ratio"] |= {"ci_low": 0.98}
    assert (
        "\n- **Cold and warm loads do not differ beyond noise.** A cold load takes 1.69x as long as a warm one, "
        "between 0.98x and 1.77x, paired in 3 blocks.\n"
    ) in part(same, "headline")


def test_an_image_and_the_start_of_its_containers_are_told() -> None:
    document = load("measure-only")
    assert "container" not in render(document)
    document["image"] = {"name": "torch:1", "digest": "sha256:ab", "runtime": "podman"}
    for sample in document["samples"]:
        sample["container_start_s"] = 0.75
    page = render(document)
    assert re.search(r"Image +\| torch:1 \(sha256:ab\), in podman", page)
    assert re.search(r"container, before the process +\| +750 ms +\| +750 ms", page)
    assert "Start of the container, in no other time" in page
    # No cold start is slower than a warm one here, and the next commands measure in the image again.
    assert re.search(r"container, before the process .* under 1 ms \|", page)
    assert "Each load ran in a new container of `torch:1`, by podman; a container's own start, 750 ms cold" in page
    assert re.search(r"sweep.yml -l \S+ -e slm_benchmark_image=torch:1 ", page)


def test_advice_for_an_image_is_of_what_can_be_done_in_one() -> None:
    document = json.loads((REPOSITORY / "docs/examples/gpu-h200-phi-3-mini/result.json").read_text(encoding="utf-8"))
    host = render(document)
    document["image"] = {"name": "it's torch", "digest": "sha256:ab", "runtime": "docker"}
    page = render(document)
    assert "UV_COMPILE_BYTECODE" in host
    assert "UV_COMPILE_BYTECODE" not in page
    assert "RUN python3 -m compileall -q" in page
    # A name is quoted for the shell.
    assert """-e slm_benchmark_image='it'"'"'s torch'""" in page


def test_a_run_without_one_valid_sample_is_still_a_page() -> None:
    document = load("cpu")
    for sample in document["samples"]:
        nothing = {key: None for key in sample if key.endswith(("_s", "_bytes", "_share", "_faults"))}
        sample.update(nothing, kind="failed", reason="the loader crashed", phases=[], resident_before=None)
    document["summary"] = {
        key: figure
        if key == "counts"
        else {**figure, "values": [], "n": 0, "median": None, "mad": None} | {"ci_low": None, "ci_high": None}
        for key, figure in document["summary"].items()
        if "_phase_" not in key
    }
    page = render(document)
    assert "\n- Cold load: no valid sample.\n" in page
    assert "6 of 6 samples are in no figure: 3 failed instead of cold (the loader crashed)" in page


def test_undo_quotes_a_host_name_for_the_shell() -> None:
    document = load("cpu")
    document["host"]["name"] = "a; rm -rf $HOME"
    assert "rollback.yml -l 'a; rm -rf $HOME'\n" in part(document, "Undo")


def test_undo_names_the_inventory_of_the_run() -> None:
    assert "with the `-i` of the run, if it had one" in render(load("cpu"))


def test_a_disk_is_rotating_in_the_kernels_word() -> None:
    document = load("cpu")
    document["host"]["disk"] |= {"rotational": True}
    assert "Example NVMe 1TB, reported by the kernel as rotating, read-ahead" in part(document, "Measured on")


def test_the_gpus_are_those_at_the_end_of_the_run() -> None:
    """`host.gpus` is read once, after the last block; each sample has its own, and the noise it made."""
    assert "| Others on it at the end |" in part(load("gpu"), "GPUs")


def test_a_stored_result_of_another_version_is_refused() -> None:
    document = load("cpu")
    document["schema_version"] = 2
    with pytest.raises(DocumentError, match="schema_version"):
        host_report(document)


def test_what_the_devices_of_two_gpus_hold_is_the_model() -> None:
    document = json.loads((REPOSITORY / "docs/examples/gpu-h200-x2-phi-3-mini/result.json").read_text(encoding="utf-8"))
    for sample in document["samples"]:
        held = sum(use["allocated_bytes"] for use in sample["gpu"])
        assert len(sample["gpu"]) == 2
        assert document["model"]["bytes"] <= held <= 1.02 * document["model"]["bytes"]
    page = host_report(document)
    assert "| warm | all | 0 B | 8.59 GiB | 7.19 GiB | 7.19 GiB |" in page
    document["samples"] = [{**sample, "gpu": sample["gpu"][:1]} for sample in document["samples"]]
    assert "| warm | all |" not in host_report(document)


def test_what_was_held_and_what_a_token_costs_are_told_where_they_were_measured() -> None:
    document = load("cpu")
    none = {"count": 0, "names": []}
    document["model"]["loaded"] = {
        "class_name": "Qwen3ForCausalLM",
        "stored_elements": 751632384,
        "parameters": 596049920,
        "buffer_elements": 2,
        "tied": {"count": 1, "names": ["lm_head.weight"]},
        "stored_twice": {"count": 1, "names": ["lm_head.weight"]},
        "unplaced": {"count": 9, "names": ["a|b", "c"]},
        "unplaced_elements": 32768,
        "quantization": None,
        "is_cached": False,
    }
    for sample in document["samples"]:
        sample["steady_token_s"] = 0.05
        sample["needed_share"] = 0.385 if sample["wanted"] == "cold" else None
    document["summary"] = summarise(typed(Sample, sample) for sample in document["samples"]).to_json()
    told = part(document, "Times and model")
    assert "| Steady token: nothing is done for the first time | 50.0 ms" in told
    assert "`Qwen3ForCausalLM` held 596,049,920 elements of parameters and 2 of persistent buffers" in told
    assert "Stored beside what they are tied to: `lm_head.weight`." in told
    assert "and 7 more (32,768 elements)" in told
    assert "keeps no cache between tokens" in told
    assert "needed 38 %" in told
    assert "a token touches neither" in told
    # Neither the copy of the head nor old buffers are parameters.
    assert ", 0.60 billion parameters, " in part(document, "model")
    document["model"]["loaded"] |= {"stored_twice": none, "unplaced": none, "is_cached": True, "quantization": "mxfp4"}
    told = part(document, "Times and model")
    assert "quantised (mxfp4)" in told
    assert "tied to" not in told
    assert "no place" not in told
    assert "held" not in part(load("cpu"), "Times and model")
    for sample in document["samples"]:
        sample["needed_share"] = 1.0 if sample["wanted"] == "cold" else None
    document["summary"] = summarise(typed(Sample, sample) for sample in document["samples"]).to_json()
    told = part(document, "Times and model")
    assert "needed 100 %" in told
    assert "a token touches" not in told


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_folded_is_a_page_to_read(name: str) -> None:
    page = render(load(name))
    shown = re.sub(r"<details>.*?</details>", "", page, flags=re.S)
    assert page.count("<details>") == page.count("</details>") == 2
    assert len(shown.strip().split("\n")) <= 80
    order = ["## Next", "## Phases", "## What would help", "## Memory", "<details>"]
    if "\n## Settings\n" in page:
        order.insert(3, "## Settings")
    assert sorted(order, key=page.index) == order
    assert 1 <= len(re.findall(r"(?m)^ansible-playbook ", part(load(name), "Next"))) <= 3


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_what_an_example_does_not_fold_is_a_page_to_read(folder: Path) -> None:
    shown, _, _ = (folder / "README.md").read_text(encoding="utf-8").partition("<details>")
    assert len(shown.split("\n")) <= 80


def test_the_table_of_settings_is_folded_where_nothing_drifted() -> None:
    quiet = load("cpu")
    assert "| `thp.enabled` |" not in part(quiet, "Settings")
    assert "| `thp.enabled` |" in part(quiet, "All settings")
    # Without a side effect there is nothing to say of settings that the verdict does not.
    quiet["tuning"]["runtime"]["vm.min_free_kbytes"] = quiet["tuning"]["before"]["vm.min_free_kbytes"]
    assert "\n## Settings\n" not in render(quiet)
    assert "| `thp.enabled` |" in part(load("measure-only"), "Settings")
    assert part(load("measure-only"), "Next").split("\n")[1].startswith("ansible-playbook baseline.yml -l")


def test_without_systemd_the_verdict_says_how_long_the_settings_hold() -> None:
    assert "settings are in force until the next boot. Tune again after it" in part(load("no-systemd"), "headline")
    assert "settings are in force and kept over a reboot." in part(load("cpu"), "headline")
    # The files that wait are explained where they are listed.
    assert "systemd does not run here: the files" in part(load("no-systemd"), "All settings")
    drifted = load("measure-only")
    drifted["host"]["systemd"], drifted["tuning"]["persisted"] = False, load("cpu")["tuning"]["persisted"]
    assert "systemd does not run here: the files" in part(drifted, "Settings")


def test_a_difference_of_phases_below_a_millisecond_is_not_told() -> None:
    rows = {row.split("|")[1].strip(): row.split("|")[4].strip() for row in part(load("cpu"), "Phases").split("\n")[4:]}
    assert rows["device ready"] == "under 1 ms"
    assert rows["import torch"].endswith(" s")


def test_a_phase_shows_what_cold_costs() -> None:
    rows = [row.split("|") for row in part(load("cpu"), "Phases").split("\n") if row.startswith("| import torch")]
    cold, warm, more = (float(cell.split()[0]) / (1e3 if "ms" in cell else 1) for cell in rows[0][2:5])
    assert more == pytest.approx(cold - warm, abs=0.01)
