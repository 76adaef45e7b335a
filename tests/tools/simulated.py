"""Pools with a known truth: known difficulty, independent samples, signals that say a known lot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def pool(
    path: Path,
    problems: int,
    samples: int,
    *,
    seed: int = 0,
    model: str = "toy",
    rates: tuple[float, float] = (0.6, 0.9),
    better: float = 0.0,
    telling: float = 1.0,
    prompt: int = 40,
    parameters: int = 1_000_000,
) -> Path:
    """Write a pool; the k-th problem has the same id, question and difficulty for every model and seed of samples.

    Args:
        rates: of the Beta distribution of the chance that a sample is right; `better` is added to its logit.
        telling: by how many standard deviations the mean logprob of a right sample lies above that of a wrong one.
        parameters: of the model, which gives FLOPs.
    """
    lines = []
    for number in range(problems):
        own = np.random.default_rng([7, number])
        rate = own.beta(*rates)
        rate = 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) + better)))
        wrong = own.dirichlet(np.full(6, 0.7))
        rng = np.random.default_rng([seed, number, parameters])
        drawn: list[dict[str, Any]] = []
        for index in range(samples):
            right = rng.random() < rate
            answer = 0 if right else 1 + int(rng.choice(6, p=wrong))
            tokens = int(rng.integers(10, 40) * (1 + 0.5 * (not right)))
            logprob = round(float(-1.0 + 0.2 * telling * right + 0.2 * rng.standard_normal()), 4)
            cut = rng.random() < 0.05
            drawn.append(
                {
                    "text": f"{seed} {index}\n#### {answer}",
                    "tokens": tokens,
                    "token_ids": None,
                    "logprobs": [min(logprob, 0.0)] * 3,
                    "finish": "length" if cut else "eos",
                    "answer": None if cut else str(answer),
                    "key": None if cut else str(answer),
                    "correct": bool(right and not cut),
                }
            )
        lines.append(
            {
                "id": f"q{number}",
                "question": f"Question {number}?",
                "answer": "0",
                "prompt_tokens": prompt,
                "samples": drawn,
                "meta": {
                    "model": model,
                    "sampling": {"temperature": 0.8, "top_p": 1.0, "max_tokens": 64},
                    "schema": 1,
                    "shape": {"parameters": parameters, "layers": 0, "hidden": 0},
                    "price": None,
                },
            }
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
