"""The shape of a model from its file: a GGUF, or the config.json of a model in Hugging Face's format.

Source: the fields of Hugging Face's configurations as its models use them, from memory. Differs: where the file does
not say how many parameters there are, matrices and norms are counted; biases are not, which misses less than 0.01% of
Qwen2.5-0.5B and nothing of Llama 3.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outthink.errors import UsageError
from outthink.models.engine import Shape

_COUNTED = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "mixtral", "qwen3_moe"})
"""Families whose blocks are attention and a gated network of three matrices, which is what is counted here."""


def read_shape(path: str | Path, parameters: int | None = None) -> Shape:
    """The shape of the model in a GGUF file, a config.json, or a folder that holds one.

    Args:
        parameters: how many there are, where a config.json is of a family that is not counted here.

    Raises UsageError where it cannot be read or lacks something.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        from outthink.models.gguf import Header

        return Header.read(path).shape(path)
    if os.path.isdir(path):
        path = path / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise UsageError(f"Cannot read the shape in {path}: {cause.strerror}.") from None
    except ValueError:
        raise UsageError(f"{path} is not the config.json of a model.") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path} is not the config.json of a model.")
    try:
        return from_config(raw, parameters)
    except ValueError as cause:
        raise UsageError(f"{path}: {cause}.") from None


def from_config(config: Mapping[str, Any], parameters: int | None = None) -> Shape:
    """The shape by the fields of a config.json; raises ValueError where it cannot be known.

    Attention that sees only a window, or has a state instead of a cache, is taken for full attention.
    """
    if "kv_lora_rank" in config:
        raise ValueError("its keys and values are compressed, so their size is not heads times head")
    width, layers, heads = (
        _whole(config, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )
    kv_heads = _whole(config, "num_key_value_heads", heads)
    head = _whole(config, "head_dim", width // heads)
    active = 0
    if parameters is None:
        family = config.get("model_type")
        if family not in _COUNTED:
            raise ValueError(f"it cannot be known how many parameters a model of type {family!r} has; give them")
        vocabulary, inner = _whole(config, "vocab_size"), _whole(config, "intermediate_size")
        tied = config.get("tie_word_embeddings", str(family).startswith("gemma"))
        attention = 2 * width * head * (heads + kv_heads)
        experts = _whole(config, "num_experts" if family == "qwen3_moe" else "num_local_experts", 1)
        used = _whole(config, "num_experts_per_tok", 1) if experts > 1 else 1
        network = 3 * width * (_whole(config, "moe_intermediate_size", inner) if experts > 1 else inner)
        router = width * experts if experts > 1 else 0
        around = vocabulary * width * (1 if tied else 2) + width
        block = attention + router + 2 * width
        parameters = around + layers * (block + experts * network)
        active = around + layers * (block + used * network) if experts > 1 else 0
    return Shape(parameters=parameters, layers=layers, hidden=heads * head, kv_heads=kv_heads, head=head, active=active)


def _whole(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A whole number of at least 1; null counts as missing."""
    size = config.get(name)
    size = default if size is None else size
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"its {name} must be a whole number of at least 1, not {size!r}")
    return size
