"""The trial of a model before anything changes: what it says becomes one error, and what the lock lacks is known."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.measuring.install.environment import Environment
from ansible.module_utils.slm_baseline.measuring.install.trial import require_known, try_model

from tests.conftest import REPOSITORY

LOCK = (REPOSITORY / "files/requirements-host.txt").read_text()
FRESH = Environment("/opt/slm-baseline", requirements=LOCK)
OWN = Environment("/opt/slm-baseline", python=sys.executable)


def tried(answer: str, environment: Environment = OWN) -> None:
    try_model(answer, environment, "/srv/m", None)


def test_a_model_that_will_load_passes() -> None:
    tried("""print('noise'); print('{"class": "LlamaForCausalLM", "model_type": "llama"}')""")


def test_a_problem_is_one_error_with_the_package_to_install() -> None:
    problem = {"wanted": "a tokenizer", "found": "spiece.model, \x1b[31m\n and nobody", "why": "W.", "install": "sp"}
    with pytest.raises(SettingError) as refused:
        tried(f"print({json.dumps({'problem': problem})!r})")
    error = refused.value
    assert (error.knob, error.wanted, error.why) == ("slm_benchmark_model", "a tokenizer", "W.")
    assert error.found == "/srv/m: spiece.model, [31m and nobody"
    assert error.next_step == f"install sp for {sys.executable}, or choose another model."
    with pytest.raises(SettingError, match=r"choose another model\.$") as none:
        tried(f"print({json.dumps({'problem': {**problem, 'install': None}})!r})")
    assert "install" not in none.value.next_step


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("raise SystemExit('no torch here')", "no torch here"),
        ("print('hello')", "it ended with 'hello"),
        ("print('[]')", "it ended with"),
        ("print('{}')", "it ended with"),
        ('print(\'{"problem": {"wanted": 1}}\')', "it ended with"),
        ("print('x' * (1 << 21))", "it said more than 1 MiB"),
    ],
)
def test_a_trial_that_says_nothing_of_use_is_one_error(program: str, found: str) -> None:
    with pytest.raises(SettingError) as refused:
        tried(program)
    assert found in refused.value.found
    assert len(str(refused.value).splitlines()) == 1


KNOWN: dict[str, Any] = {"model_type": "qwen3"}


def known(config: dict[str, Any], *names: str, environment: Environment = FRESH) -> None:
    require_known(config, names or ("tokenizer.json",), "/srv/m", environment)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (KNOWN, ()),
        ({**KNOWN, "auto_map": {"AutoConfig": "x.Y"}}, ()),
        ({**KNOWN, "quantization_config": {"quant_method": "mxfp4"}}, ()),
        ({**KNOWN, "quantization_config": {"quant_method": "fp8"}}, ()),
        (KNOWN, ("tokenizer.json", "tokenizer.model")),
        (KNOWN, ("vocab.json", "merges.txt")),
    ],
)
def test_what_the_lock_will_load_passes(config: dict[str, Any], names: tuple[str, ...]) -> None:
    known(config, *names)


@pytest.mark.parametrize(
    ("config", "names", "found", "package"),
    [
        ({"model_type": "mistral3", "architectures": ["Mistral3F"]}, (), "model_type 'mistral3', Mistral3F", None),
        ({"model_type": "own", "auto_map": {}}, (), "model_type 'own' with code of its own (auto_map)", None),
        ({"architectures": 7}, (), "model_type 'None'", None),
        ({"model_type": ["llama"]}, (), "model_type \"['llama']\"", None),
        (
            {**KNOWN, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            (),
            "no bitsandbytes in the lock",
            "bitsandbytes",
        ),
        ({**KNOWN, "quantization_config": {"quant_method": "gptq"}}, (), "no gptqmodel in the lock", "gptqmodel"),
        ({**KNOWN, "quantization_config": {"quant_method": "modelopt"}}, (), "modelopt", None),
        ({**KNOWN, "quantization_config": {"bits": 4}}, (), "quantised 4-bit", None),
        (KNOWN, ("spiece.model",), "spiece.model, and no sentencepiece in the lock", "sentencepiece"),
        (KNOWN, ("qwen.tiktoken",), "qwen.tiktoken, and no tiktoken in the lock", "tiktoken"),
    ],
)
def test_what_the_lock_lacks_is_told_before_it_is_installed(
    config: dict[str, Any], names: tuple[str, ...], found: str, package: str | None
) -> None:
    with pytest.raises(SettingError) as refused:
        known(config, *names)
    assert refused.value.found == f"/srv/m: {found}"
    assert ("slm_benchmark_python" in refused.value.next_step) == (package is not None)
    assert package is None or f"a Python that has {package}" in refused.value.next_step


def test_of_another_release_than_the_locks_nothing_is_said() -> None:
    other = replace(FRESH, requirements=LOCK.replace("transformers==5.23.0", "transformers==6.0.0"))
    known({"model_type": "new"}, environment=other)


def test_the_trial_itself_is_no_longer_than_an_argument_may_be() -> None:
    assert len((Path(REPOSITORY) / "files/try_model.py").read_bytes()) < 1 << 17
