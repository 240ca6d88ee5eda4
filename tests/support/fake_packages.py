"""A stand-in torch and transformers, with what they need, for the real loader."""

from __future__ import annotations

import textwrap
from pathlib import Path

# Just enough of each package for one load; every call that matters is written to $CALLS.
PACKAGES = {
    "torch": """
        import os, sys, warnings
        __version__ = "2.13.0"
        GPUS = int(os.environ.get("FAKE_GPUS", "0"))
        bfloat16, float32 = "torch.bfloat16", "torch.float32"
        def cat(tensors, dim): return Tensor([sum((tensor.rows[0] for tensor in tensors), [])])
        class OutOfMemoryError(RuntimeError): pass
        def log(*words):
            with open(os.environ["CALLS"], "a") as stream: print(*words, file=stream)
        class Tensor:
            def __init__(self, rows): self.rows = rows; self.shape = (len(rows), len(rows[0]))
            def to(self, device): log("to", device); return self
        def tensor(rows, device=None): return Tensor(rows)
        def empty(size, device): log("context", device)
        class inference_mode:
            def __enter__(self): log("inference")
            def __exit__(self, *error): pass
        class version: cuda = "12.8"
        class Properties: name, major, minor, total_memory, uuid = "Fake GPU", 9, 0, 1 << 36, "1-2"
        def is_available():
            for text in os.environ.get("FAKE_WARNINGS", "").splitlines(): warnings.warn(text, stacklevel=1)
            return GPUS > 0
        class cuda:
            is_available = staticmethod(is_available)
            device_count = staticmethod(lambda: GPUS)
            synchronize = staticmethod(lambda index: log("synchronize", index))
            get_device_properties = staticmethod(lambda index: Properties)
            memory_allocated = staticmethod(lambda index: 100 + index)
            memory_reserved = staticmethod(lambda index: 200 + index)
            max_memory_allocated = staticmethod(lambda index: 300 + index)
    """,
    "transformers": """
        import os, torch
        __version__ = "5.23.0"
        FAIL = os.environ.get("FAKE_FAIL", "")
        class Weight:
            device = "cuda:0" if torch.GPUS else "cpu"
            dtype = "torch.bfloat16"
            def __init__(self, size): self.size = size
            def numel(self): return self.size
            def element_size(self): return 2
        TIED = Weight(10)
        WEIGHTS = {"base.embedding": TIED, "base.layer": Weight(5), "lm_head": TIED}
        class Module:
            _buffers = {"bias": Weight(3), "table": Weight(100), "none": None}
            _non_persistent_buffers_set = {"table"}
        class Logits:
            def __init__(self, token): self.token = token
            def __getitem__(self, where): assert where == (0, -1); return self
            def argmax(self): return self
            def item(self): torch.log("read back", self.token); return self.token
        CACHE = os.environ.get("FAKE_CACHE", "past_key_values")
        class Output:
            def __init__(self, token):
                self.logits = Logits(token)
                setattr(self, CACHE, f"cache{token}")
        class Model:
            config = type("Config", (), {})()
            base_model_prefix = "base"
            # As gpt2's, which name a parameter as well as an old buffer.
            _keys_to_ignore_on_load_unexpected = ["old_.*", "layer"]
            if torch.GPUS: hf_device_map = {"a": 0, "b": torch.GPUS - 1}
            def parameters(self): return list({id(each): each for each in WEIGHTS.values()}.values())
            def named_parameters(self, remove_duplicate): return list(WEIGHTS.items())
            def modules(self): return [Module]
            def get_input_embeddings(self):
                if FAIL == "embeddings": raise NotImplementedError
                class Embeddings: weight = Weight(1)
                return Embeddings
            def forward(self, input_ids, past_key_values=None, cache_params=None, use_cache=None): pass
            def __call__(self, input_ids, use_cache, **cache):
                if FAIL == "forward": raise RuntimeError("CUDA error: device-side assert\\nmore")
                if FAIL == "shape": raise ValueError("position_ids are incorrect")
                given = [f"{name}={value}" for name, value in cache.items()] or [None]
                torch.log("forward", input_ids.rows, *given, use_cache)
                return Output(8 if cache or len(input_ids.rows[0]) > 3 else 7)
        class AutoConfig:
            @staticmethod
            def from_pretrained(model, **options):
                if FAIL == "config": raise OSError("no config")
                return 3
        class Mapping:
            def __getitem__(self, kind): torch.log("code of", kind.__name__)
        MODEL_FOR_CAUSAL_LM_MAPPING = Mapping()
        class AutoTokenizer:
            @staticmethod
            def from_pretrained(model, **options):
                torch.log("tokenizer", model, sorted(options.items()))
                if FAIL == "tokenizer": raise KeyError("model\\nsecond line")
                def encode(prompt, return_tensors):
                    return {"input_ids": torch.Tensor([[1] * len(prompt.split())])}
                return encode
        class AutoModelForCausalLM:
            @staticmethod
            def from_pretrained(model, **options):
                torch.log("model", model, sorted(options.items()))
                if FAIL == "weights": raise Exception("header too large")
                if FAIL == "memory": raise torch.OutOfMemoryError("CUDA out of memory")
                import safetensors
                for path in os.environ.get("FAKE_OPENED", "").split(): safetensors.safe_open(path, framework="pt")
                missing = {"b", "a"} if FAIL == "missing" else set()
                return Model(), {"missing_keys": missing, "unexpected_keys": {"vision"}}
    """,
    "psutil": """
        import os, torch
        __version__ = "7"
        torch.log("psutil imported")
        class Memory: rss, vms, uss, pss = 4, 3, 2, 1
        class Process:
            def memory_full_info(self): return Memory
    """,
    "accelerate": "__version__ = '1'",
    "safetensors": """
        __version__ = "0.8"
        class Slice:
            def __init__(self, shape): self.shape = shape
            def get_shape(self): return self.shape
        SHAPES = {"embedding": [2, 5], "layer": [5], "lm_head": [2, 5], "old_bias": [7], "vision": [2, 2, 2]}
        class safe_open:
            def __init__(self, path, framework): pass
            def __enter__(self): return self
            def __exit__(self, *error): pass
            def keys(self): return list(SHAPES)
            def get_slice(self, name): return Slice(SHAPES[name])
    """,
    "tokenizers": "__version__ = '0.23'",
}


def write_packages(folder: Path) -> Path:
    """Put them where PYTHONPATH can point."""
    folder.mkdir()
    for name, text in PACKAGES.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return folder
