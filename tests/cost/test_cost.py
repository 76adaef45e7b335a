"""What work costs: operations, bytes, seconds, energy and dollars, against numbers worked out elsewhere."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.cost import charge, flops
from outthink.cost.flops import exchange, flops_of_samples
from outthink.cost.kinetics import (
    INTENSITIES,
    dense,
    kept_tokens,
    kv_bytes,
    of_call,
    of_trace,
    recorded,
    top_k,
)
from outthink.cost.latency import (
    Latency,
    TimedRequest,
    fit,
)
from outthink.cost.price import from_file, price_of, published
from outthink.cost.shapes import from_config, read_shape
from outthink.driver import solve
from outthink.errors import Unidentified, UsageError
from outthink.models import catalog
from outthink.models.engine import EngineSpec, Price, Shape
from outthink.models.recorded import RecordedEngine
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.types import Call, Usage
from tests.cli.test_cli import write_pool

QWEN3_8B = Shape(parameters=8_190_000_000, layers=36, hidden=32 * 128, kv_heads=8, head=128)
QWEN3_06B = Shape(parameters=752_000_000, layers=28, hidden=16 * 128, kv_heads=8, head=128)
YI_34B = Shape(parameters=34_000_000_000, layers=60, hidden=56 * 128, kv_heads=8, head=128)
TINY = Shape(parameters=1000, layers=2, hidden=8, kv_heads=1, head=4)
LONG, SHORT = 16_384, 200  # tokens written and read in the numbers of Kinetics


# ---- operations ---------------------------------------------------------------------------------------------------


def test_samples_of_one_prompt_read_it_once() -> None:
    bare = Shape(parameters=8_000_000_000)
    assert flops_of_samples(bare, 300, [200] * 100) == pytest.approx(3.248e14, rel=1e-12)
    assert flops_of_samples(TINY, 300, []) == 0.0
    by_hand = 2 * 1000 * (7 + 5 + 3) + 4 * 2 * 8 * (7 * 7 / 2 + 7 * 5 + 25 / 2 + 7 * 3 + 9 / 2)
    assert flops_of_samples(TINY, 7, [5, 3]) == pytest.approx(by_hand)


def test_a_mixture_of_experts_computes_with_those_that_are_used() -> None:
    sparse = Shape(parameters=1000, active=100)
    assert flops(sparse, Usage(prompt=3, completion=2)) == 2 * 100 * 5


def test_a_charge_has_the_units_that_are_known() -> None:
    usages = [Usage(prompt=10, cached=4, completion=6), Usage(completion=1)]
    assert charge(EngineSpec(name="a"), usages) == {"tokens": 13.0}
    priced = charge(EngineSpec(name="a", shape=Shape(parameters=5), price=Price(prompt=1, completion=2)), usages)
    assert priced == {"tokens": 13.0, "flops": 130.0, "usd": pytest.approx(24e-6)}


@pytest.mark.parametrize(("ratio", "times"), [(0.16, 257.75), (0.79, 63.367), (22, 15.773), (math.inf, 14)])
def test_what_a_model_14_times_as_large_is_worth(ratio: float, times: float) -> None:
    assert exchange(14, ratio) == pytest.approx(times, abs=5e-4)


@settings(deadline=None)
@given(
    larger=st.floats(1, 1000),
    parameters=st.floats(1e6, 1e12),
    trained=st.floats(1e9, 1e14),
    used=st.floats(1e6, 1e14),
)
def test_both_sides_of_the_exchange_cost_the_same(
    larger: float, parameters: float, trained: float, used: float
) -> None:
    small = 6 * parameters * trained + 2 * parameters * used * exchange(larger, used / trained)
    large = larger * (6 * parameters * trained + 2 * parameters * used)
    assert small == pytest.approx(large, rel=1e-9)
    assert exchange(1, used / trained) == 1.0


@pytest.mark.parametrize(("larger", "ratio"), [(0.5, 1.0), (2.0, 0.0), (2.0, -1.0), (2.0, math.nan)])
def test_an_exchange_that_means_nothing_is_refused(larger: float, ratio: float) -> None:
    with pytest.raises(ValueError, match=r"at least as many|above 0"):
        exchange(larger, ratio)


# ---- shapes -------------------------------------------------------------------------------------------------------

QWEN2 = {"model_type": "qwen2", "vocab_size": 151_936, "tie_word_embeddings": True}
CONFIGS: dict[str, tuple[dict[str, Any], int, float]] = {
    # name: fields as published, known parameters, largest relative error
    "Qwen2.5-0.5B": (
        QWEN2
        | {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}
        | {"intermediate_size": 4864},
        494_032_768,
        6e-5,
    ),
    "Qwen2.5-1.5B": (
        QWEN2
        | {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2}
        | {"intermediate_size": 8960},
        1_543_714_304,
        4e-5,
    ),
    "Llama-3-8B": (
        {"model_type": "llama", "vocab_size": 128_256, "tie_word_embeddings": False, "intermediate_size": 14_336}
        | {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
        8_030_261_248,
        1e-12,
    ),
    "Mistral-7B-v0.1": (
        {"model_type": "mistral", "vocab_size": 32_000, "tie_word_embeddings": False, "intermediate_size": 14_336}
        | {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
        7_241_732_096,
        1e-12,
    ),
    "gemma-2-2b": (
        {"model_type": "gemma2", "vocab_size": 256_000, "intermediate_size": 9216, "head_dim": 256}
        | {"hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4},
        2_614_341_888,
        1e-4,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_of_known_models(name: str) -> None:
    config, known, error = CONFIGS[name]
    shape = from_config(config)
    assert shape.parameters == pytest.approx(known, rel=error)
    assert shape.layers == config["num_hidden_layers"]
    assert shape.kv_heads == config["num_key_value_heads"]
    assert shape.hidden == config["num_attention_heads"] * shape.head
    assert shape.active == 0


def test_parameters_of_mixtures_of_experts() -> None:
    mixtral = from_config(
        {"model_type": "mixtral", "vocab_size": 32_000, "intermediate_size": 14_336, "tie_word_embeddings": False}
        | {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
        | {"num_local_experts": 8, "num_experts_per_tok": 2}
    )
    assert (mixtral.parameters / 46.7e9, mixtral.active / 12.9e9) == pytest.approx((1, 1), rel=2e-3)
    qwen = from_config(
        {"model_type": "qwen3_moe", "vocab_size": 151_936, "intermediate_size": 6144, "tie_word_embeddings": False}
        | {"hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4}
        | {"head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    )
    assert (qwen.parameters / 30.5e9, qwen.active / 3.35e9) == pytest.approx((1, 1), rel=5e-3)
    assert qwen.hidden == 4096


def test_a_family_that_is_not_counted_needs_its_parameters(tmp_path: Path) -> None:
    config = {**CONFIGS["Llama-3-8B"][0], "model_type": "gpt_neox", "num_key_value_heads": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"config.json: .*'gpt_neox' has; give them\.$"):
        read_shape(tmp_path)
    given = read_shape(tmp_path, parameters=12)
    assert given == Shape(parameters=12, layers=32, hidden=4096, kv_heads=32, head=128)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not the config.json"),
        ("[]", "not the config.json"),
        ("{}", "hidden_size"),
        (json.dumps(CONFIGS["Llama-3-8B"][0] | {"num_hidden_layers": 0}), "num_hidden_layers"),
        (json.dumps(CONFIGS["Llama-3-8B"][0] | {"vocab_size": "many"}), "vocab_size"),
        (json.dumps(CONFIGS["Llama-3-8B"][0] | {"kv_lora_rank": 512}), "compressed"),
    ],
)
def test_a_config_that_says_too_little_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_shape(tmp_path / "config.json")
    with pytest.raises(UsageError, match="Cannot read the shape"):
        read_shape(tmp_path / "nothing.json")


def test_the_shape_in_a_gguf_file(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_tensor("token_embd.weight", np.zeros((10, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_shape(path) == Shape(parameters=320, layers=3, hidden=32, kv_heads=2, head=8)


@pytest.mark.parametrize("name", catalog.entries())
def test_the_shape_of_a_model_on_this_machine(name: str) -> None:
    pytest.importorskip("gguf")
    path = catalog.path(name)
    if path is None:
        pytest.skip("it is not here")
    shape = read_shape(path)
    assert shape.parameters == catalog.entries()[name].parameters
    assert (shape.layers, shape.kv_heads, shape.head) == {
        "smollm2-135m-instruct": (30, 3, 64),
        "qwen2.5-coder-0.5b-instruct": (24, 2, 64),
        "qwen2.5-coder-1.5b-instruct": (28, 2, 128),
    }[name]


def test_pools_recorded_before_shapes_had_heads_still_open(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool.jsonl")
    row = json.loads((tmp_path / "pool.jsonl").read_text())
    row["meta"] = {"shape": {"parameters": 5, "layers": 1, "hidden": 2}}
    (tmp_path / "pool.jsonl").write_text(json.dumps(row) + "\n")
    assert RecordedEngine.open(tmp_path / "pool.jsonl").spec.shape == Shape(parameters=5, layers=1, hidden=2)


# ---- memory traffic -----------------------------------------------------------------------------------------------


def test_the_numbers_of_kinetics() -> None:
    one = dense(QWEN3_8B, SHORT, LONG)
    assert float(one.flops) / 1e12 == pytest.approx(349.47, abs=5e-3)
    assert 2 * QWEN3_8B.parameters * LONG / 1e12 == pytest.approx(268.37, abs=5e-3)
    assert float(one.bytes) / 1e12 == pytest.approx(20.274, abs=5e-4)
    assert 562.5 * float(one.bytes) / 1e12 == pytest.approx(11_404.3, abs=0.05)
    assert float(one.eflops()) / 1e12 == pytest.approx(11_753.8, abs=0.05)
    assert 562.5 * float(one.bytes / one.flops) == pytest.approx(32.6, abs=0.05)
    many = dense(QWEN3_8B, SHORT, LONG, 32)
    assert float(many.eflops()) / 1e12 == pytest.approx(367_696.5, abs=0.05)
    assert float(many.eflops() / one.eflops()) == pytest.approx(31.28, abs=5e-3)
    small = dense(QWEN3_06B, SHORT, LONG)
    assert float(small.eflops()) / 1e12 == pytest.approx(8926.2, abs=0.05)
    assert 2 * QWEN3_06B.parameters * LONG / 1e12 == pytest.approx(24.6, abs=0.05)
    assert float(one.eflops() / small.eflops()) == pytest.approx(1.32, abs=5e-3)
    assert QWEN3_8B.parameters / QWEN3_06B.parameters == pytest.approx(10.9, abs=0.05)


def test_what_the_formula_reduces_to() -> None:
    load = dense(QWEN3_8B, SHORT, LONG, 4)
    assert load.eflops(0) == load.flops
    assert load.eflops(INTENSITIES).shape == (2,)
    alone = dense(QWEN3_8B, 0, LONG)
    assert alone.bytes == pytest.approx(2 * 8 * 128 * 36 * LONG**2)
    twice = dense(QWEN3_8B, 0, 2 * LONG)
    attention = float(alone.flops) - 2 * QWEN3_8B.parameters * LONG
    assert float(twice.flops) == pytest.approx(4 * QWEN3_8B.parameters * LONG + 4 * attention)
    assert float(twice.bytes) == pytest.approx(4 * float(alone.bytes))
    ungrouped = replace(QWEN3_8B, kv_heads=32)
    assert float(dense(ungrouped, SHORT, LONG).bytes) == pytest.approx(4 * float(dense(QWEN3_8B, SHORT, LONG).bytes))
    halved = dense(QWEN3_8B, SHORT, LONG, 4, value_bytes=1)
    assert halved.bytes == pytest.approx(load.bytes / 2)
    assert halved.flops == load.flops


def test_prompts_that_are_not_shared_and_weights_that_are_not() -> None:
    shared, apart = (dense(QWEN3_8B, SHORT, LONG, 32, shared=way) for way in (True, False))
    each = kv_bytes(QWEN3_8B)
    assert float(apart.bytes - shared.bytes) == pytest.approx(each * 31 * SHORT * LONG)
    assert float(apart.bytes) == pytest.approx(32 * float(dense(QWEN3_8B, SHORT, LONG).bytes))
    weights = 2.0 * QWEN3_8B.parameters
    alone = dense(QWEN3_8B, SHORT, LONG, 32, weight_bytes=weights)
    assert float(alone.bytes - shared.bytes) == pytest.approx(weights * LONG)  # each step reads them once for all 32


def test_sparse_attention_has_the_sign_that_the_sum_has() -> None:
    assert float(kept_tokens(SHORT, LONG, 1024)) == 16_437_728
    exact = sum(min(SHORT + step, 1024) for step in range(1, LONG + 1))
    assert exact == 16_438_140
    assert float(kept_tokens(SHORT, LONG, 1024)) == pytest.approx(exact, rel=1e-4)
    assert float(kept_tokens(SHORT, LONG, SHORT + LONG)) == 137_494_528
    assert float(kept_tokens(SHORT, LONG, 10**9) / kept_tokens(SHORT, LONG, 1024)) == pytest.approx(8.4, abs=0.05)


@settings(deadline=None)
@given(prompt=st.integers(0, 300), completion=st.integers(0, 300), kept=st.integers(0, 700))
def test_kept_tokens_are_the_sum_up_to_half_a_token_a_step(prompt: int, completion: int, kept: int) -> None:
    exact = sum(min(prompt + step, kept) for step in range(1, completion + 1))
    growing = min(max(kept - prompt, 0), completion)
    assert float(kept_tokens(prompt, completion, kept)) == pytest.approx(exact - growing / 2)


@settings(deadline=None)
@given(
    prompt=st.integers(0, 3000), completion=st.integers(1, 3000), samples=st.integers(1, 64), kept=st.integers(1, 7000)
)
def test_sparse_attention_is_at_most_full_attention(prompt: int, completion: int, samples: int, kept: int) -> None:
    full = dense(QWEN3_06B, prompt, completion, samples, shared=False)
    sparse = top_k(QWEN3_06B, prompt, completion, samples, kept=kept)
    assert sparse.flops <= full.flops * (1 + 1e-12)
    assert sparse.bytes <= full.bytes * (1 + 1e-12)
    if kept >= prompt + completion:
        assert sparse.flops == pytest.approx(full.flops)
        assert sparse.bytes == pytest.approx(full.bytes)


def test_a_shape_without_heads_has_no_memory_traffic() -> None:
    with pytest.raises(ValueError, match="kv_heads"):
        dense(Shape(parameters=5, layers=1, hidden=8), 1, 1)
    with pytest.raises(ValueError, match="at least 0"):
        dense(TINY, -1, 1)


@settings(deadline=None)
@given(prompt=st.integers(0, 500), length=st.integers(0, 500), samples=st.integers(1, 9), shared=st.booleans())
def test_recorded_samples_of_one_length_are_the_formula(prompt: int, length: int, samples: int, shared: bool) -> None:
    load = recorded(TINY, prompt, [length] * samples, shared=shared, weight_bytes=3.0)
    paper = dense(TINY, prompt, length, samples, shared=shared, weight_bytes=3.0)
    reading = 2 * TINY.parameters * prompt + 4 * TINY.hidden * TINY.layers * prompt**2 / 2
    assert load.bytes == pytest.approx(paper.bytes)
    assert float(load.flops) == pytest.approx(float(paper.flops) + reading)
    assert float(load.flops) == pytest.approx(flops_of_samples(TINY, prompt, [length] * samples))


def test_recorded_samples_of_many_problems_at_once() -> None:
    load = recorded(TINY, [3, 5], [[4, 0], [2, 6]])
    assert load.flops.shape == (2,)
    own = [recorded(TINY, 3, [4]), recorded(TINY, 5, [2, 6])]
    assert load.eflops() == pytest.approx([float(one.eflops()) for one in own])
    assert float(recorded(TINY, 5, [2, 6]).bytes) == pytest.approx(kv_bytes(TINY) * (5 * 6 + (4 + 36) / 2))


def call(**fields: Any) -> Call:
    return Call(kind="sample", role="model", address=("model", 0, 0), **fields)


def test_a_call_is_charged_for_what_it_read_and_wrote() -> None:
    """Three readings of a prompt of 10: all of it, and twice the last 2 tokens."""
    made = call(n=3, reads=3, charged=Usage(prompt=30, cached=16, completion=9))
    load = of_call(TINY, made, [5, 3, 1])
    each = [Usage(prompt=10, cached=cached, completion=g) for cached, g in ((0, 5), (8, 3), (8, 1))]
    assert float(load.flops) == pytest.approx(sum(flops(TINY, usage) for usage in each))
    assert float(load.bytes) == pytest.approx(kv_bytes(TINY) * (10 * 5 + (25 + 9 + 1) / 2))
    equal = of_call(TINY, made)  # all three as long as their mean
    assert float(equal.bytes) == pytest.approx(kv_bytes(TINY) * (10 * 3 + 3 * 9 / 2))


def test_a_prompt_that_a_server_counts_once_is_as_long_as_it_is() -> None:
    once = of_call(TINY, call(n=4, reads=1, charged=Usage(prompt=10, completion=8)))
    shared = of_call(TINY, call(n=4, reads=4, charged=Usage(prompt=40, cached=30, completion=8)))
    assert float(once.flops) == pytest.approx(float(shared.flops))
    assert float(once.bytes) == pytest.approx(float(shared.bytes))


def test_a_trace_is_the_sum_of_its_calls() -> None:
    def say(request: Any, child: int, rng: np.random.Generator) -> str:
        return "x" * (3 + 2 * child)

    trace = solve("What?", SelfConsistency(n=3), model=ScriptedEngine(say))
    (made,) = trace.calls
    prompt = made.charged.prompt // 3
    load = of_trace(trace, {"model": TINY})
    assert float(load.eflops()) == pytest.approx(float(recorded(TINY, prompt, [3, 5, 7]).eflops()))
    with pytest.raises(ValueError, match="role 'model'"):
        of_trace(trace, {"judge": TINY})


# ---- seconds ------------------------------------------------------------------------------------------------------

ORIN = {  # EdgeReasoning, Jetson AGX Orin 64 GB, vLLM FP16, by billions of parameters
    1.5: Latency(quadratic=1.56e-7, linear=2.31e-6, fixed=0.046, multiple=128, step=0.024),
    8: Latency(quadratic=6.65e-7, linear=2.90e-4, fixed=0.104, multiple=128, step=0.10),
    14: Latency(quadratic=1.23e-6, linear=5.3e-4, fixed=0.189, multiple=128, step=0.186),
}


@pytest.mark.parametrize(
    ("size", "seconds"), [(1.5, (0.057, 0.212, 0.482)), (8, (0.222, 1.098, 2.428)), (14, (0.405, 2.021, 4.477))]
)
def test_prefill_on_a_small_board(size: float, seconds: tuple[float, ...]) -> None:
    assert ORIN[size].prefill([256, 1024, 1600]) == pytest.approx(seconds, abs=1e-3)


def test_a_whole_request_on_a_small_board() -> None:
    assert float(ORIN[8].seconds(256, 1000)) == pytest.approx(100.22, abs=5e-3)
    assert ORIN[8].prefill(1) == ORIN[8].prefill(128)
    assert float(ORIN[8].prefill(0)) == 0.0
    assert float(ORIN[8].prefill(256, cached=256)) == 0.0
    part = 2.90e-4 * 128 + 6.65e-7 * (256**2 - 128**2) + 0.104
    assert float(ORIN[8].prefill(256, cached=128)) == pytest.approx(part)


COEFFICIENTS = st.floats(0, 1)


@settings(deadline=None)
@given(
    coefficients=st.lists(COEFFICIENTS, min_size=8, max_size=8),
    free=st.floats(1, 40),
    sizes=st.tuples(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 99)),
    more=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
)
def test_more_takes_longer(
    coefficients: list[float], free: float, sizes: tuple[int, int, int], more: tuple[int, int, int]
) -> None:
    names = ("fixed", "linear", "quadratic", "each", "again", "step", "sample", "context")
    latency = Latency(**dict(zip(names, coefficients, strict=True)), free=free, multiple=128)
    longer = [size + extra for size, extra in zip(sizes, more, strict=True)]
    assert float(latency.seconds(*longer)) >= float(latency.seconds(*sizes)) * (1 - 1e-12)
    prompt, completion, samples = sizes
    assert latency.seconds_of(prompt, [completion] * samples) == pytest.approx(float(latency.seconds(*sizes)))


def test_samples_that_have_ended_do_not_slow_the_others_down() -> None:
    latency = Latency(fixed=1, step=0.5, sample=0.25, free=2, context=0.125, each=0.0625, again=0.5)
    by_hand = 1 + 2 * (0.0625 + 0.5 * 10) + 0.5 * 6 + 0.25 * 2 + 0.125 * (10 * (6 + 4 + 2) + (36 + 16 + 4) / 2)
    assert latency.seconds_of(10, [2, 6, 4]) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    "wrong", [{"step": -1.0}, {"linear": math.nan}, {"free": 0.5}, {"multiple": 0}, {"fixed": math.inf}]
)
def test_coefficients_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="coefficients"):
        Latency(**wrong)


def rows(truth: Latency, noise: float = 0.0, seed: int = 0) -> list[TimedRequest]:
    """Requests as a calibration makes them; a further sample reads 16 tokens and a tenth of the prompt again."""
    rng = np.random.default_rng(seed)
    asked = [(prompt, 1, 1) for prompt in (64, 256, 512, 900)]
    asked += [(60, 40, samples) for samples in (1, 2, 4, 8, 16, 32, 64)] + [(600, 20, 4), (300, 1, 8), (100, 30, 48)]
    requests = []
    for prompt, most, samples in asked:
        lengths = tuple(int(length) for length in rng.integers(1 + most // 2, most + 1, samples))
        seconds = truth.seconds_of(prompt, lengths) * math.exp(noise * rng.standard_normal())
        reread = (samples - 1) * (16 + prompt // 10)
        requests.append(TimedRequest(prompt=prompt, lengths=lengths, seconds=seconds, reread=reread))
    return requests


TRUTH = Latency(
    fixed=0.02, linear=1e-4, quadratic=1e-8, each=16e-5, again=1e-6, step=0.02, sample=0.003, free=8.0, context=2e-7
)


def test_a_known_latency_is_found_again() -> None:
    latency = fit(rows(TRUTH))
    for name in ("fixed", "linear", "each", "again", "step", "sample", "free", "context"):
        assert getattr(latency, name) == pytest.approx(getattr(TRUTH, name), rel=0.02), name
    assert float(latency.seconds(500, 300, 24)) == pytest.approx(float(TRUTH.seconds(500, 300, 24)), rel=1e-3)
    bent = replace(TRUTH, free=1.0)
    assert fit(rows(bent)).free == pytest.approx(1.0, abs=0.02)


def test_a_fit_to_noisy_requests_predicts_others() -> None:
    """Noise of 5% on 14 rows for 8 coefficients: 12% of 200 fits were off by more than 10% at a size between two rows.
    That half of 40 are has the odds of 1 in 10^8."""
    errors = [
        abs(math.log(float(fit(rows(TRUTH, 0.05, seed)).seconds(200, 30, 12) / TRUTH.seconds(200, 30, 12))))
        for seed in range(40)
    ]
    assert np.median(errors) < 0.10


def test_what_cannot_be_told_apart_is_not_fitted() -> None:
    good = rows(TRUTH)
    with pytest.raises(Unidentified, match="8 measurements; there are 3"):
        fit(good[:3])
    with pytest.raises(Unidentified, match="2 numbers of samples"):
        fit([row for row in good if row.samples == 1] * 3)
    with pytest.raises(Unidentified, match="3 lengths of prompts"):
        fit([replace(row, prompt=60) for row in good])
    with pytest.raises(Unidentified, match="2 lengths of completions"):
        fit([replace(row, lengths=(5,) * row.samples) for row in good])
    with pytest.raises(Unidentified, match="some time"):
        fit([replace(good[0], seconds=0.0), *good[1:]])


# ---- dollars ------------------------------------------------------------------------------------------------------


def test_published_prices_by_name_and_by_provider() -> None:
    prices = pytest.importorskip("genai_prices")
    usage = Usage(prompt=1_000_000, cached=400_000, completion=300_000)
    for name in ("gpt-4.1-mini", "claude-3-5-haiku-latest"):
        price, where = published(name)
        told = prices.calc_price(
            prices.Usage(input_tokens=1000, cache_read_tokens=400, output_tokens=300), model_ref=name
        )
        assert price.usd(usage) == pytest.approx(1000 * float(told.total_price))
        assert name.rpartition("-latest")[0] in where or name in where
    direct, _ = price_of("auto", "https://api.openai.com/v1#gpt-4.1-mini")
    assert direct == published("gpt-4.1-mini")[0]
    assert price_of("auto", "http://localhost:8000/v1#gpt-4.1-mini")[0] == direct
    assert price_of("auto", "https://api.groq.com/openai/v1#openai/gpt-oss-120b")[1].startswith("groq ")
    with pytest.raises(UsageError, match=r"a price of its own at each of .*groq"):
        price_of("auto", "openai/gpt-oss-120b")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpt-4.1-minni", r"did you mean 'gpt-4\.1-mini'"),
        ("smollm2-135m-instruct", "no price of 'smollm2-135m-instruct' in genai-prices .* --price PROMPT,COMPLETION"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1#MODEL"),
        ("sonar-pro", "not priced by prompt and completion tokens alone"),
    ],
)
def test_models_without_a_published_price(name: str, said: str) -> None:
    pytest.importorskip("genai_prices")
    with pytest.raises(UsageError, match=said):
        price_of("auto", name)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(UsageError, match=r"outthink\[prices\]"):
        published("gpt-4.1-mini")


@pytest.mark.parametrize(
    "content",
    [
        {"prompt": 0.4, "completion": 1.6, "cached": 0.1},
        {"m": {"prompt": 0.4, "completion": 1.6, "cached": 0.1}, "other": {"prompt": 1, "completion": 1}},
        {
            "sample_spec": {"input_cost_per_token": "what it costs"},
            "m": {
                "input_cost_per_token": 4e-07,
                "output_cost_per_token": 1.6e-06,
                "cache_read_input_token_cost": 1e-07,
                "litellm_provider": "openai",
            },
        },
    ],
    ids=["one", "own", "litellm"],
)
def test_prices_from_a_file(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(content))
    price, where = from_file(path, "m")
    assert price == Price(prompt=0.4, completion=1.6, cached=0.1)
    assert str(path) in where
    assert price_of(str(path), "http://localhost:8000/v1#m")[0] == price


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "an object with names of models"),
        ('{"model-a": {"prompt": 1, "completion": 1}}', "did you mean 'model-a'"),
        ('{"model": {"prompt": 1}}', "needs numbers as prompt and completion, or input_cost_per_token"),
        ('{"model": {"prompt": 1, "completion": "2"}}', "needs numbers"),
        ('{"model": {"prompt": 1, "completion": -2}}', "a price is at least 0"),
        ('{"model": {"prompt": 1, "completion": 2, "cached": 3}}', "cached tokens cost no more"),
        ('{"model": 3}', "needs numbers"),
    ],
)
def test_a_file_without_the_price_is_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=said):
        from_file(path, "model")
    with pytest.raises(UsageError, match="Cannot read the prices"):
        from_file(tmp_path / "nothing.json", "model")
