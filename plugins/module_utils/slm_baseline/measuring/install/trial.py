"""A check, before anything changes, whether a model can be loaded here: by a trial, or by what the lock provides.

The trial (files/try_model.py) runs in the loader's Python as the loader's user, without the weights. Where that Python
is still to be made from the lock, the model's config and files are compared with what is known of the lock.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from ...host.accounts import Account
from ...host.errors import SettingError
from ..loader.process import BARE, Launcher, Loader, plain_text
from ..model.files import MODEL_KNOB, quantization_word
from .environment import Environment

_TIMEOUT_S = 300.0
_LONGEST = 300
KNOWN_TRANSFORMERS = "5.23.0"
"""The lock's release; the lists below are not valid for another one."""
_CAUSAL = """
afmoe apertus arcee aria_text axk1 axk2 bailing_hybrid bamba bart beam bert bert-generation big_bird bigbird_pegasus
biogpt bitnet blenderbot blenderbot-small bloom blt camembert codegen cohere cohere2 cohere2_moe cohere_compass_text
cpmant ctrl cwm data2vec-text dbrx deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 diffllama doge dots1 dots3_note
dots3_note_text electra emu3 ernie ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon falcon_h1 falcon_mamba flex_olmo
flint fuyu gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_assistant gemma4_text gemma4_unified
gemma4_unified_assistant gemma4_unified_text git glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa got_ocr2 gpt-sw3 gpt2
gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe granitemoe_swa
granitemoehybrid granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax
inkling2_text inkling_text internlm3 iquestcoder jais2 jamba jetmoe kimi_linear kolibri1 laguna lfm2 lfm2_moe lfm3
llama llama4 llama4_text longcat_flash mamba mamba2 marian mbart megatron-bert mellum mimo_v2_flash minicpm3 minimax
minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral mllama modernbert-decoder moshi
moss_transcribe_diarize mpt musicgen musicgen_melody mvp nanochat nemotron nemotron_h olmo olmo2 olmo3 olmo_hybrid
olmoe openai-gpt opt pegasus persimmon phi phi3 phi4_multimodal phimoe plbart prophetnet qwen2 qwen2_moe qwen3 qwen3_5
qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen4_exp qwen4_exp_text recurrent_gemma reformer
rembert roberta roberta-prelayernorm roc_bert roformer rwkv seed_oss smollm3 solar_open stablelm starcoder2 trocr
vaultgemma whisper xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm xmod youtu zamba zamba2 zaya
"""
CAUSAL_TYPES = frozenset(_CAUSAL.split())
"""`model_type` of every config with a causal class in that release (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)."""
QUANTIZERS = {
    **{"fp8": None, "mxfp8": None, "mxfp4": None, "bitnet": None},
    **{"bitsandbytes": "bitsandbytes", "gptq": "gptqmodel", "awq": "gptqmodel", "hqq": "hqq", "torchao": "torchao"},
    **{"compressed-tensors": "compressed-tensors", "quanto": "optimum-quanto", "aqlm": "aqlm", "vptq": "vptq"},
    **{"auto-round": "auto-round", "quark": "amd-quark", "eetq": "eetq", "fbgemm_fp8": "fbgemm-gpu"},
    **{"spqr": "spqr-quant", "higgs": "flute-kernel", "fp_quant": "fp-quant"},
}
"""The package that unpacks weights of a `quant_method`; None where transformers and torch do."""


def try_model(
    program: str, environment: Environment, model_path: str, account: Account | None, launcher: Launcher = BARE
) -> None:
    """Run the trial's text in the loader's Python; SettingError with the real cause where the model will not load."""
    python = environment.interpreter
    loader = Loader(python, "", (), account, _TIMEOUT_S, launcher=launcher)
    try:
        answer = loader.run(["-c", program, "--model", model_path], _TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise _untried(python, str(error)) from error
    if answer.returncode:
        raise _untried(python, (plain_text(answer.errors[-1000:]).splitlines() or ["no output"])[-1])
    try:
        said = json.loads(answer.output.splitlines()[-1])
        problem = said.get("problem")
        if problem is None and isinstance(said.get("class"), str):
            return
        wanted, found, why = (_line(problem[part]) for part in ("wanted", "found", "why"))
        install = problem["install"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _untried(python, f"it ended with {plain_text(answer.output[-200:])!r}") from error
    raise _refusal(model_path, wanted, found, why, _line(install) if install is not None else None, environment)


def require_known(config: Mapping[str, Any], names: Sequence[str], model_path: str, environment: Environment) -> None:
    """Raise SettingError for a model that the environment of the lock, which is still to be made, cannot load."""
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", environment.requirements, re.MULTILINE))
    packages = {name.lower().replace("_", "-") for name in locked}
    if locked.get("transformers") != KNOWN_TRANSFORMERS:
        return
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CAUSAL_TYPES:
        own = " with code of its own (auto_map)" if "auto_map" in config else ""
        named = config.get("architectures")
        shown = f", {_line(named[0])}" if isinstance(named, list) and named else ""
        wanted = f"a model_type for which transformers {KNOWN_TRANSFORMERS} has a causal class"
        why = "Code that comes with a model is not run." if own else "The loader makes text from text alone."
        raise _refusal(model_path, wanted, f"model_type {_line(kind)!r}{shown}{own}", why, None, environment)
    asked = config.get("quantization_config")
    if isinstance(asked, dict):
        method = asked.get("quant_method")
        if not isinstance(method, str) or method not in QUANTIZERS:
            found = quantization_word(dict(config)) or "none"
            raise _refusal(
                model_path,
                "a quant_method that transformers knows",
                found,
                "The weights are stored quantised.",
                None,
                environment,
            )
        package = QUANTIZERS[method]
        if package is not None and package not in packages:
            wanted = f"what unpacks weights of quant_method {method!r}"
            found = f"no {package} in the lock"
            raise _refusal(model_path, wanted, found, "The weights are stored quantised.", package, environment)
    vocabulary = next((name for name in names if name.endswith((".model", ".spm", ".tiktoken"))), None)
    if "tokenizer.json" not in names and vocabulary is not None:
        package = "tiktoken" if vocabulary.endswith(".tiktoken") else "sentencepiece"
        if package not in packages:
            found = f"{vocabulary}, and no {package} in the lock"
            why = "The loader makes tokens of text."
            raise _refusal(model_path, "a tokenizer that reads a prompt", found, why, package, environment)


def _refusal(
    model_path: str, wanted: str, found: str, why: str, install: str | None, environment: Environment
) -> SettingError:
    if install is None:
        next_step = "choose another model."
    elif environment.image:
        next_step = f"choose an image that has {install} too, or another model."
    elif environment.python:
        next_step = f"install {install} for {environment.python}, or choose another model."
    else:
        next_step = f"set slm_benchmark_python to a Python that has {install} too, or choose another model."
    return SettingError(MODEL_KNOB, wanted, f"{model_path}: {found}", why, next_step)


def _untried(python: str, found: str) -> SettingError:
    return SettingError(
        MODEL_KNOB,
        "a trial of the model in the loader's Python",
        f"{python}: {found}",
        "A model that cannot be loaded is told before anything changes.",
        "run the loader there by hand, which says more.",
    )


def _line(value: object) -> str:
    """Shorten untrusted text to one line."""
    text = " ".join(str(value).split())
    return "".join(char for char in text if char.isprintable())[:_LONGEST]
