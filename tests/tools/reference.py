"""What a GGUF model of Llama or Qwen 2.5 shape computes, in numpy, from its dequantised weights, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def next_logprobs(path: Path, ids: Sequence[int]) -> Floats:
    """Logprobs of every token after each prefix of `ids`: one row for each."""
    from gguf import GGMLQuantizationType, GGUFReader, quants

    reader = GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    family = reader.fields["general.architecture"].contents()

    def setting(name: str, otherwise: Any = None) -> Any:
        field = reader.fields.get(f"{family}.{name}")
        return otherwise if field is None else field.contents()

    def weights(name: str) -> Any:
        tensor = tensors[name]
        if tensor.tensor_type == GGMLQuantizationType.Q8_0:  # the same as below in a tenth of the time
            blocks = tensor.data.reshape(-1, 34)
            scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
            return (blocks[:, 2:].view(np.int8) * scales).reshape(tensor.data.shape[0], -1)
        return quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)

    def projected(name: str, values: Floats) -> Floats:
        whole: Floats = values @ weights(f"{name}.weight").T
        return whole + weights(f"{name}.bias") if f"{name}.bias" in tensors else whole

    def normed(name: str, values: Floats) -> Floats:
        size = np.sqrt((values**2).mean(-1, keepdims=True) + setting("attention.layer_norm_rms_epsilon"))
        scaled: Floats = values / size * weights(f"{name}.weight")
        return scaled

    heads = setting("attention.head_count")
    kv_heads = setting("attention.head_count_kv", heads)
    width = setting("embedding_length") // heads
    angles = np.outer(np.arange(len(ids)), setting("rope.freq_base", 10000.0) ** (-np.arange(0, width, 2) / width))
    cos, sin = np.cos(angles)[:, None].astype(np.float32), np.sin(angles)[:, None].astype(np.float32)

    def turned(values: Floats) -> Floats:
        """With their positions; Llama's files pair neighbours, Qwen's the two halves."""
        new = np.empty_like(values)
        first, second = (slice(0, None, 2), slice(1, None, 2)) if family == "llama" else (
            slice(0, width // 2), slice(width // 2, None)
        )  # fmt: skip
        new[..., first] = values[..., first] * cos - values[..., second] * sin
        new[..., second] = values[..., first] * sin + values[..., second] * cos
        return new

    embeddings = weights("token_embd.weight")
    hidden = embeddings[list(ids)]
    future = np.triu(np.full((len(ids), len(ids)), -np.inf, dtype=np.float32), 1)
    for layer in range(setting("block_count")):
        block = f"blk.{layer}."
        values = normed(f"{block}attn_norm", hidden)
        queries = turned(projected(f"{block}attn_q", values).reshape(len(ids), heads, width))
        keys = turned(projected(f"{block}attn_k", values).reshape(len(ids), kv_heads, width))
        held = projected(f"{block}attn_v", values).reshape(len(ids), kv_heads, width)
        keys, held = keys.repeat(heads // kv_heads, 1), held.repeat(heads // kv_heads, 1)
        scores = np.einsum("qhd,khd->hqk", queries, keys) / np.sqrt(width) + future
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", shares, held).reshape(len(ids), heads * width)
        hidden = hidden + projected(f"{block}attn_output", mixed)
        values = normed(f"{block}ffn_norm", hidden)
        gate = projected(f"{block}ffn_gate", values)
        hidden = hidden + projected(
            f"{block}ffn_down", gate / (1 + np.exp(-gate)) * projected(f"{block}ffn_up", values)
        )
    values = normed("output_norm", hidden)
    logits = values @ (weights("output.weight") if "output.weight" in tensors else embeddings).T
    logits -= logits.max(-1, keepdims=True)
    logprobs: Floats = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return logprobs
