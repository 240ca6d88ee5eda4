#!/usr/bin/env python3
"""Trial whether a model can be loaded here: config, class, quantiser and tokenizer, without the weights.

It runs in the loader's Python as the loader's user, before anything is measured, and only reads files of the model's
folder. The last line of output is one JSON object: `{"class": ..., "model_type": ...}`, or `{"problem":
{"wanted", "found", "why", "install"}}`, where `install` names the package that is missing, or null.

Exit status: 0 with either, 1 where the trial itself fails.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

PROMPT = "The quick brown fox"
LONGEST = 300
_INSTALL = re.compile(r"pip3? install (?:-U |--upgrade )*['\"]?([A-Za-z0-9][A-Za-z0-9._-]*)")
_MISSING = re.compile(r"No module named '([A-Za-z0-9_.]+)'")
_LIBRARIES = ("protobuf", "mistral-common", "timm", "sacremoses", "jieba", "rjieba")
"""Packages that some models need, as error messages name them without saying how to install them."""
_JSON_FILES = ("added_tokens.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json")
_READERS = ((".model", "sentencepiece"), (".tiktoken", "tiktoken"), (".spm", "sentencepiece"))
"""The package that reads a vocabulary of each ending. Without sentencepiece transformers names only tiktoken."""


class Problem(Exception):
    """A model that cannot be loaded here: what was wanted and found, why, and the package to install, if that helps."""

    def __init__(self, wanted: str, found: str, why: str, install: str | None = None) -> None:
        super().__init__(found)
        self.parts = {"wanted": wanted, "found": found, "why": why, "install": install}


class Said(logging.Handler):
    """A log handler that keeps the libraries' warnings: often they name the cause, while the error does not."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def causes(error: BaseException) -> Iterator[str]:
    """Yield the texts of an error and of all its causes."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield f"{type(each).__name__}: {each}"
            pending += [each.__cause__, each.__context__]


def package_of(texts: list[str]) -> str | None:
    """Return the package that these texts call missing."""
    for text in texts:
        for pattern in (_INSTALL, _MISSING):
            match = pattern.search(text)
            if match:
                return match[1].partition(".")[0] if pattern is _MISSING else match[1]
    for text in texts:
        for name in _LIBRARIES:
            if re.search(rf"\b{re.escape(name)}\b", text, re.I) and not is_installed(name):
                return name
    return None


def is_installed(name: str) -> bool:
    from importlib import metadata

    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text, truncated, or its type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:LONGEST]


def read_config(folder: str) -> dict[str, Any]:
    """Read config.json; return nothing where it cannot be read, since transformers reports that better."""
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as stream:
            config = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def try_config(transformers: Any, folder: str) -> Any:
    """Load the model's config; Problem where only code of the repository could read it, or nothing can."""
    raw = read_config(folder)
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    # A damaged file can make the underlying parsers raise anything.
    except Exception as error:
        kind = str(raw.get("model_type", "none"))[:60]
        if "auto_map" in raw:
            raise Problem(
                "a model that transformers has a class for",
                f"model_type {kind!r} with code of its own (auto_map)",
                "Code that comes with a model is not run.",
            ) from error
        texts = list(causes(error))
        raise Problem(
            f"a config that transformers {transformers.__version__} reads",
            f"model_type {kind!r}: {one_line(error)}",
            "The loader builds the model from its config.",
            package_of(texts),
        ) from error


def try_class(transformers: Any, config: Any, folder: str) -> str:
    """Return the class that would be loaded; Problem where there is no causal one, or it needs a missing package."""
    try:
        chosen = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        make_without_weights(transformers, config)
        return str(chosen.__name__)
    except KeyError as error:
        raw = read_config(folder)
        named = raw.get("architectures")
        own = ", ".join(map(str, named))[:LONGEST] if isinstance(named, list) and named else type(config).__name__
        if "AutoModelForCausalLM" in (raw.get("auto_map") or {}):
            own += " with code of its own (auto_map)"
        raise Problem(
            "a model with a causal class (AutoModelForCausalLM)",
            f"model_type {config.model_type!r}, {own}",
            "transformers has no class that makes text from text alone of it.",
        ) from error
    except Exception as error:
        texts = list(causes(error))
        raise Problem(
            f"a model class for model_type {config.model_type!r}",
            one_line(error),
            "The loader imports it.",
            package_of(texts),
        ) from error


def make_without_weights(transformers: Any, config: Any) -> None:
    """Construct the model on no device, as a load begins; ImportError where a package is missing.

    Other failures are left to the load, which constructs the model in its own way.
    """
    torch = importlib.import_module("torch")
    try:
        with torch.device("meta"):
            transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ImportError:
        raise
    except Exception:
        return


def try_quantizer(transformers: Any, config: Any) -> None:
    """Raise Problem where this environment cannot unpack the quantised weights."""
    asked = getattr(config, "quantization_config", None)
    if asked is None:
        return
    method = str((asked if isinstance(asked, dict) else vars(asked)).get("quant_method", "none"))[:60]
    try:
        quantizer = transformers.quantizers.AutoHfQuantizer.from_config(asked, pre_quantized=True)
        quantizer.validate_environment(device_map=None, weights_only=True)
    except Exception as error:
        texts = list(causes(error))
        raise Problem(
            f"what unpacks weights of quant_method {method!r}",
            one_line(error),
            "The weights are stored quantised.",
            package_of(texts),
        ) from error


def try_tokenizer(transformers: Any, folder: str, said: Said) -> None:
    """Raise Problem where the tokenizer does not work, with the cause that its library only warns of."""
    said.lines.clear()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        count = len(tokenizer(PROMPT)["input_ids"])
    except Exception as error:
        names = sorted(os.listdir(folder))
        vocabulary, reader = reader_of(names)
        if damage := damage_of(folder, names):
            reader, found = None, damage
        elif reader is not None:
            found = f"{vocabulary}, and no {reader} to read it"
        else:
            reader, found = package_of([*said.lines, *causes(error)]), one_line(error)
        why = "The loader makes tokens of text."
        raise Problem("a tokenizer that reads a prompt", found, why, reader) from error
    if not count:
        raise Problem("a tokenizer that reads a prompt", "no tokens for a sentence", "The loader makes tokens of text.")


def damage_of(folder: str, names: list[str]) -> str:
    """Return which of the tokenizer's files is no JSON, and why; empty where all of them are. No library names it."""
    for name in names:
        if name in _JSON_FILES:
            try:
                with open(os.path.join(folder, name), encoding="utf-8") as stream:
                    json.load(stream)
            except (OSError, ValueError, RecursionError) as error:
                return f"{name} is no JSON: {one_line(error)}"
    return ""


def reader_of(names: list[str]) -> tuple[str, str | None]:
    """Return a vocabulary among these names and the package that would read it, if that is missing."""
    if "tokenizer.json" not in names:
        for name in names:
            for ending, reader in _READERS:
                if name.endswith(ending) and not is_installed(reader):
                    return name, reader
    return "", None


def import_transformers(said: Said) -> Any:
    """Import transformers, keeping its warnings instead of showing them."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "warning"
    warnings.simplefilter("ignore")
    try:
        transformers = importlib.import_module("transformers")
    except Exception as error:
        raise Problem(
            "transformers", one_line(error), "The loader imports it.", package_of(list(causes(error)))
        ) from error
    logger = logging.getLogger("transformers")
    logger.handlers = [said]
    logger.propagate = False
    return transformers


def try_model(folder: str) -> dict[str, Any]:
    """Return what would be loaded from this folder, or the problem with it."""
    said = Said()
    try:
        transformers = import_transformers(said)
        config = try_config(transformers, folder)
        name = try_class(transformers, config, folder)
        try_quantizer(transformers, config)
        try_tokenizer(transformers, folder, said)
    except Problem as problem:
        return {"problem": problem.parts}
    return {"class": name, "model_type": str(config.model_type)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Try whether a model can be loaded, without its weights.")
    parser.add_argument("--model", required=True, help="its folder")
    options = parser.parse_args()
    try:
        answer = try_model(options.model)
    except Exception as error:
        print(f"try_model: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
