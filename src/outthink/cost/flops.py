"""Floating-point operations: of calls, of n samples of one prompt, and what they are worth in pretraining.

Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models" (2 per parameter and token, 6 in training), from
memory; Brown et al. 2024, "Large Language Monkeys" (a shared prompt is counted once), its code read and summaries of
the paper; Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally" (the exchange with a larger model), read in the
text of the paper; the cost module of Agent-REINFORCE, 2511.00086 (calls that read answers of others), notes on it read.
Differs: attention is counted, too.

All are estimates: an embedding is counted as if it were a matrix product, norms and softmax are not counted, and what
a machine really does per second depends on how well it is used.
"""

from __future__ import annotations

from collections.abc import Iterable

from outthink.models.engine import Shape
from outthink.types import Usage


def flops(shape: Shape, usage: Usage) -> float:
    """Operations of one child: 2 per parameter and new token, and attention over what precedes it.

    A token that is read or written is multiplied once with every parameter that it passes: a multiplication and an
    addition, so 2. In attention a token at position p meets p others: 2 per element of the query for the score and 2
    per element of the value for the sum, so 4 x layers x hidden per pair of tokens. Tokens from a cache are met by
    others and cost nothing themselves.
    """
    total = usage.prompt + usage.completion
    pairs = (total**2 - usage.cached**2) / 2
    return 2.0 * (shape.active or shape.parameters) * usage.tokens + 4.0 * shape.layers * shape.hidden * pairs


def flops_of_samples(shape: Shape, prompt: int, completions: Iterable[int]) -> float:
    """Operations of samples of these lengths after one prompt, which is read once; 0 where there is no sample."""
    return sum(
        flops(shape, Usage(prompt=prompt, cached=prompt if sample else 0, completion=length))
        for sample, length in enumerate(completions)
    )


def flops_of_node(shape: Shape, task: int, answer: int, in_degree: int) -> int:
    """Operations of a call that reads the task and as many answers of others, and writes one itself; exact.

    A token attends to itself, too, which `flops` leaves out: 4 layers hidden N (N + 1) / 2 for all N tokens. They are
    quadratic in the answers that are read, so that a number of calls is no budget.

    Args:
        task, answer: tokens of the task and of one answer.
        in_degree: answers of others in the prompt.
    """
    tokens = task + (in_degree + 1) * answer
    parameters = shape.active or shape.parameters
    return 2 * parameters * tokens + 2 * shape.layers * shape.hidden * tokens * (tokens + 1)


def exchange(larger: float, inference_per_pretraining: float) -> float:
    """How many times its inference a small model can do for the compute of a larger one: m = M + 3 (M - 1) / R.

    Both trained on as many tokens: 6 P D + 2 P m T = M (6 P D + 2 P T), whatever P, with T tokens of inference.

    Args:
        larger: how many times the parameters the larger model has (M), at least 1.
        inference_per_pretraining: tokens of inference over those of pretraining (R = T / D), above 0; the more it
            is, the less the saved pretraining is worth.
    """
    if larger < 1:
        raise ValueError(f"the larger model has at least as many parameters, not {larger:g} times as many")
    if not inference_per_pretraining > 0:
        raise ValueError(f"the ratio of tokens must be above 0, not {inference_per_pretraining:g}")
    return larger + 3.0 * (larger - 1.0) / inference_per_pretraining
