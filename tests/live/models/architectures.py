"""Tiny models of the kinds that people publish, made from transformers' own configs, without a download.

In a Python with torch, `architectures.py --output DIR [NAME ...]` makes each row's folder in DIR, loads it as the
loader does, and writes one JSON object a row: what is stored, what is held, or why the model is refused. A row's
`dress` is how its files differ from what `save_pretrained` writes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
TINY: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "attention_hidden_size", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "decoder_ffn_dim"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "max_experts"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"), 128),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "v_head_dim", "head_dim", "state_size"), 16),
    **{"num_key_value_heads": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1},
    **{"shared_expert_intermediate_size": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "n_group": 1},
    **{"topk_group": 1, "first_k_dense_replace": 1, "time_step_rank": 8, "vocab_size": 384},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
}
"""What makes a config tiny, by whichever of these names it has."""


@dataclass(frozen=True)
class Row:
    """One kind of model. `refused` is part of the reason for which it is not measured; empty where it is.

    `lukewarm` is part of the reason for which its samples are neither cold nor warm.
    """

    name: str
    kind: str
    group: str
    dress: str = "plain"
    more: dict[str, Any] = field(default_factory=dict)
    dtype: str = "bfloat16"
    refused: str = ""
    lukewarm: str = ""


DENSE, TIED, MOE, STATE = "dense", "tied", "mixture of experts", "state-space and recurrent"
IMAGE, PACKED, OLD, ODD, NONE = "multimodal as text", "quantised", "old layouts", "odd repositories", "refused"
ROWS = (
    Row("llama", "llama", DENSE),
    Row("mistral", "mistral", DENSE),
    Row("qwen2", "qwen2", DENSE),
    Row("phi3", "phi3", DENSE),
    Row("olmo2", "olmo2", DENSE),
    Row("starcoder2", "starcoder2", DENSE),
    Row("stablelm", "stablelm", DENSE),
    Row("falcon", "falcon", DENSE),
    Row("bloom", "bloom", DENSE),
    Row("mpt", "mpt", DENSE),
    Row("opt", "opt", DENSE),
    Row("gpt_bigcode", "gpt_bigcode", DENSE),
    Row("codegen", "codegen", DENSE, more={"rotary_dim": 8}),
    Row("granite", "granite", DENSE),
    Row("glm4", "glm4", DENSE),
    Row("cohere", "cohere", DENSE),
    Row("smollm3", "smollm3", DENSE),
    Row("xglm", "xglm", DENSE),
    Row("bart as a decoder", "bart", DENSE),
    Row("openai-gpt, no cache", "openai-gpt", DENSE),
    Row("qwen3, tied", "qwen3", TIED, more={"tie_word_embeddings": True}),
    Row("qwen3, head stored twice", "qwen3", TIED, "head twice", {"tie_word_embeddings": True}),
    Row("llama, head stored twice", "llama", TIED, "head twice", {"tie_word_embeddings": True}),
    Row("gemma2", "gemma2", TIED),
    Row("gemma, head stored twice", "gemma", TIED, "head twice"),
    Row("mixtral", "mixtral", MOE),
    Row("qwen3_moe", "qwen3_moe", MOE),
    Row("olmoe", "olmoe", MOE),
    Row("gpt_oss", "gpt_oss", MOE),
    Row("deepseek_v3", "deepseek_v3", MOE, more={"head_dim": 8}),
    Row("deepseek_v3 with an MTP layer", "deepseek_v3", MOE, "extra layer", {"head_dim": 8}),
    Row("lfm2_moe", "lfm2_moe", MOE, more={"layer_types": ["conv", "full_attention"]}),
    Row("mamba", "mamba", STATE),
    Row("mamba2", "mamba2", STATE, more={"num_heads": 8, "n_groups": 1}),
    Row("falcon_mamba", "falcon_mamba", STATE),
    Row("rwkv", "rwkv", STATE),
    Row("recurrent_gemma", "recurrent_gemma", STATE, more={"num_hidden_layers": 3}),
    Row("jamba", "jamba", STATE, more={"num_hidden_layers": 8}),
    Row("qwen3_next", "qwen3_next", STATE, more={"num_hidden_layers": 4}),
    Row("gemma3 with a vision tower beside it", "gemma3_text", IMAGE, "vision tower"),
    Row("fp8 with scales", "llama", PACKED, "fp8"),
    Row("mxfp4 experts", "gpt_oss", PACKED, "mxfp4"),
    Row("gpt2 with its old buffers", "gpt2", OLD, "gpt2 buffers", dtype="float32"),
    Row("pythia with its old buffers", "gpt_neox", OLD, "pythia buffers", dtype="float16"),
    Row("llama with inv_freq", "llama", OLD, "inv_freq"),
    Row("gptj", "gptj", OLD, more={"rotary_dim": 8}),
    Row("llama, F32 file and a bfloat16 config", "llama", ODD, "bfloat16 config", dtype="float32"),
    Row("llama, norms in float32", "llama", ODD, "mixed"),
    Row("llama in shards", "llama", ODD, "shards"),
    Row("llama with shards in a folder below", "llama", ODD, "shards below"),
    Row("llama with consolidated.safetensors and .bin beside it", "llama", ODD, "others beside"),
    Row("llama with auto_map beside a native class", "llama", ODD, "auto_map"),
    Row("decoy by an alias in the config", "llama", ODD, "alias decoy", lukewarm="what was loaded is not what was"),
    Row("decoy by transformers_weights", "llama", NONE, "named decoy", refused="other weights than those"),
    Row("decoy by a distributed checkpoint", "llama", NONE, "shard decoy", refused="other weights than those"),
    Row("adapter alone", "llama", NONE, "adapter", refused="an adapter"),
    Row("GGUF alone", "llama", NONE, "gguf", refused="GGUF"),
    Row("pickled weights alone", "llama", NONE, "pickle", refused="Pickled weights"),
    Row("no tokenizer", "llama", NONE, "no tokenizer", refused="cannot read a prompt"),
    Row("tokenizer cut short", "llama", NONE, "cut tokenizer", refused="tokenizer.json is no JSON"),
    Row("mistral3, no causal class", "llama", NONE, "mistral3", refused="a causal class"),
    Row("qwen2_5_vl, no causal class", "llama", NONE, "qwen2_5_vl", refused="a causal class"),
    Row("code of its own", "llama", NONE, "own code", refused="code of its own"),
    Row("bitsandbytes, not installed", "llama", NONE, "bitsandbytes", refused="bitsandbytes"),
    Row("gptq, not installed", "llama", NONE, "gptq", refused="optimum"),
    Row("compressed-tensors, not installed", "llama", NONE, "compressed-tensors", refused="compressed-tensors"),
    Row("sentencepiece alone, not installed", "llama", NONE, "sentencepiece", refused="sentencepiece"),
    Row("a weight is missing", "llama", NONE, "missing", refused="lacks 1 of its weights"),
)


def folder_of(row: Row) -> str:
    """The name of a row's folder."""
    return "".join(char if char.isalnum() else "-" for char in row.name)


# --- what follows needs torch ----------------------------------------------------------------------------------------


def library(name: str) -> Any:
    """A package of the environment in which this program runs, which the tests' own lacks."""
    return importlib.import_module(name)


def make(row: Row, folder: Path) -> None:
    """Write the row's folder."""
    torch, transformers = library("torch"), library("transformers")

    shutil.rmtree(folder, ignore_errors=True)
    kind = transformers.CONFIG_MAPPING[row.kind]
    known = {*kind().to_dict(), *(getattr(kind, "attribute_map", None) or {})}
    config = kind(**{name: value for name, value in TINY.items() if name in known} | row.more)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, row.dtype))
    model.save_pretrained(folder, max_shard_size="100KB" if row.dress.startswith("shards") else "1GB")
    write_tokenizer(folder)
    if row.dress != "plain":
        DRESSES[row.dress](folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def write_tokenizer(folder: Path) -> None:
    """A byte-level vocabulary without merges: any prompt has tokens, and each id is below 384."""
    tokenizers = library("tokenizers")
    models, pre_tokenizers = tokenizers.models, tokenizers.pre_tokenizers
    words = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [f"<{number}>" for number in range(len(words), 384)]
    made = tokenizers.Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def change_weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    """A dress that changes the tensors of the one file."""

    def dress(folder: Path) -> None:
        files = library("safetensors.torch")
        path = str(folder / "model.safetensors")
        tensors = {name: tensor.clone() for name, tensor in files.load_file(path).items()}
        files.save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, path, {"format": "pt"})

    return dress


def change_config(**changes: Any) -> Callable[[Path], None]:
    """A dress that changes config.json."""

    def dress(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return dress


def head_twice(tensors: dict[str, Any]) -> dict[str, Any]:
    return {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}


def extra_layer(tensors: dict[str, Any]) -> dict[str, Any]:
    extra = {name.replace(".layers.1.", ".layers.61."): each.clone() for name, each in tensors.items()}
    return {**tensors, **{name: each for name, each in extra.items() if ".layers.61." in name}}


def vision_tower(tensors: dict[str, Any]) -> dict[str, Any]:
    torch = library("torch")

    return {**tensors, **{f"vision_tower.layers.{n}.weight": torch.ones(64, 64) for n in range(4)}}


def gpt2_buffers(tensors: dict[str, Any]) -> dict[str, Any]:
    torch = library("torch")

    # As published: the file of a model without its head.
    named = {name.removeprefix("transformer."): each for name, each in tensors.items()}
    masks = {f"h.{n}.attn.bias": torch.ones(1, 1, 128, 128) for n in range(2)}
    return {**named, **masks, "h.0.attn.masked_bias": torch.tensor(-1e4)}


def pythia_buffers(tensors: dict[str, Any]) -> dict[str, Any]:
    torch = library("torch")

    masks = {f"gpt_neox.layers.{n}.attention.bias": torch.ones(1, 1, 128, 128).bool() for n in range(2)}
    return {**tensors, **masks, "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(4)}


def inv_freq(tensors: dict[str, Any]) -> dict[str, Any]:
    torch = library("torch")

    return {**tensors, **{f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(8) for n in range(2)}}


def float32_norms(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: each.float() if "norm" in name else each for name, each in tensors.items()}


def without_norm(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in tensors.items() if name != "model.norm.weight"}


def fp8(folder: Path) -> None:
    torch = library("torch")

    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, each in tensors.items():
            if name.endswith("_proj.weight"):
                blocks = [-(-size // 128) for size in each.shape]
                found[name] = each.to(torch.float8_e4m3fn)
                found[f"{name}_scale_inv"] = torch.ones(blocks, dtype=torch.float32)
            else:
                found[name] = each
        return found

    change_weights(change)(folder)
    quantization = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    change_config(quantization_config=quantization)(folder)


def mxfp4(folder: Path) -> None:
    """Each expert's matrix, transposed, in blocks of 32 elements: 16 bytes of them, and a scale of 2^(byte - 127)."""
    torch = library("torch")

    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, each in tensors.items():
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                experts, inner, outer = each.shape
                found[f"{name}_blocks"] = torch.randint(0, 256, (experts, outer, inner // 32, 16), dtype=torch.uint8)
                found[f"{name}_scales"] = torch.full((experts, outer, inner // 32), 120, dtype=torch.uint8)
            else:
                found[name] = each
        return found

    change_weights(change)(folder)
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    change_config(quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": kept})(folder)


def shards_below(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    (folder / "parts").mkdir()
    for name in set(document["weight_map"].values()):
        (folder / name).rename(folder / "parts" / name)
    document["weight_map"] = {tensor: f"parts/{name}" for tensor, name in document["weight_map"].items()}
    index.write_text(json.dumps(document))


def beside(*names: str) -> Callable[[Path], None]:
    """A dress that copies the weights under other names."""

    def dress(folder: Path) -> None:
        for name in names:
            shutil.copy(folder / "model.safetensors", folder / name)

    return dress


def instead(name: str) -> Callable[[Path], None]:
    """A dress that gives the weights another name."""

    def dress(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / name)

    return dress


def both(*dresses: Callable[[Path], None]) -> Callable[[Path], None]:
    """One dress over another."""

    def dress(folder: Path) -> None:
        for each in dresses:
            each(folder)

    return dress


def without(*names: str) -> Callable[[Path], None]:
    """A dress that takes files away."""

    def dress(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return dress


def cut_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-100])


def sentencepiece_alone(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")


OWN_CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
DECOY = "decoy.safetensors"
DRESSES: dict[str, Callable[[Path], None]] = {
    "head twice": change_weights(head_twice),
    "extra layer": change_weights(extra_layer),
    "vision tower": change_weights(vision_tower),
    "gpt2 buffers": change_weights(gpt2_buffers),
    "pythia buffers": change_weights(pythia_buffers),
    "inv_freq": change_weights(inv_freq),
    "mixed": change_weights(float32_norms),
    "missing": change_weights(without_norm),
    "fp8": fp8,
    "mxfp4": mxfp4,
    "bfloat16 config": change_config(dtype="bfloat16"),
    "shards": lambda folder: None,
    "shards below": shards_below,
    "others beside": beside("consolidated.safetensors", "pytorch_model.bin"),
    "auto_map": change_config(auto_map=OWN_CODE),
    "alias decoy": both(beside(DECOY), change_config(attribute_map={"transformers_weights": "alias"}, alias=DECOY)),
    "named decoy": both(beside(DECOY), change_config(transformers_weights=DECOY)),
    "shard decoy": beside("shard-00001-model-00001-of-00001.safetensors"),
    "adapter": both(instead("adapter_model.safetensors"), without("config.json")),
    "gguf": instead("model-q4.gguf"),
    "pickle": instead("pytorch_model.bin"),
    "no tokenizer": without("tokenizer.json", "tokenizer_config.json"),
    "cut tokenizer": cut_tokenizer,
    "mistral3": change_config(model_type="mistral3", architectures=["Mistral3ForConditionalGeneration"]),
    "qwen2_5_vl": change_config(model_type="qwen2_5_vl", architectures=["Qwen2_5_VLForConditionalGeneration"]),
    "own code": change_config(model_type="own", auto_map=OWN_CODE),
    "bitsandbytes": change_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "gptq": change_config(quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128}),
    "compressed-tensors": change_config(quantization_config={"quant_method": "compressed-tensors"}),
    "sentencepiece": sentencepiece_alone,
}


def load(folder: Path) -> dict[str, Any]:
    """What the loader makes of a folder, in this process: its facts, or why it does not load it."""
    torch, transformers = library("torch"), library("transformers")

    from files import slm_load, try_model

    problem = try_model.try_model(str(folder)).get("problem")
    if problem:
        return {"refused": f"{problem['wanted']}: {problem['found']}. {problem['why']}"}
    options = slm_load.parse_arguments(["--model", str(folder)])
    opened.clear()
    try:
        tokenizer = slm_load.load_tokenizer(transformers, options)
        model, unexpected = slm_load.load_model(torch, transformers, options)
        decoder = slm_load.Decoder(torch, model)
        token = decoder.step(tokenizer("one two", return_tensors="pt")["input_ids"])
        decoder.step(torch.tensor([[token]]))
    except slm_load.LoadError as error:
        return {"refused": str(error)}
    facts = slm_load.loaded_facts(slm_load.Held(model, unexpected, opened, decoder.is_cached))
    held = sum(parameter.numel() for parameter in model.parameters())
    return {**facts, "parameters": held, "dtype": slm_load.held_dtype(model)}


opened: list[str] = []


def main() -> None:
    parser = argparse.ArgumentParser(description="Make and load tiny models.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ["HF_HUB_OFFLINE"] = "1"
    from files import slm_load

    slm_load.silence()
    global opened
    opened = slm_load.note_opened_weights()
    for row in ROWS:
        if not options.names or row.name in options.names:
            folder = options.output / folder_of(row)
            make(row, folder)
            print(json.dumps({"name": row.name, **load(folder)}), flush=True)


if __name__ == "__main__":
    main()
