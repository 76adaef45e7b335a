"""Every strategy of the table, at settings that keep tests quick; a new line in the table is among them at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outthink.models.engine import Request
from outthink.names import load
from outthink.strategies import STRATEGIES, traits
from outthink.strategies.making import make_strategy

every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))

SMALL: dict[str, dict[str, Any]] = {
    "auto": {"n": 6, "ahead": 1},
    "rpc": {"n": 8},
    "sample_and_cluster": {"n": 4, "tolerance": 1.0},
    "failed_step_fraction": {"n": 3},
    "heimdall": {"n": 4, "m": 2},
    "x_mbr": {"n": 3, "m": 2},
    "adaptive_consistency": {"n": 4, "ahead": 1},
    "esc": {"n": 4, "w": 2},
    "optscale": {"n": 4, "peek": 2, "ahead": 1},
    "multi_temperature": {"temperatures": (0.5, 1.0), "n": 2, "n_min": 2, "ahead": 1},
    "nothinking": {"n": 4, "prefill": "</think>", "ahead": 1},
    "resample": {"n": 4, "threshold": 0.3},
    "archon": {"layers": "generator:3|critic|ranker:2|fuser|verifier"},
    "answer_graph": {"nodes": "assistant:2,assistant,1+2>assistant,1-3>fuser"},
    "cascade": {"n": 4, "alpha": 0.5, "calibration": (0.25, 0.5)},
    "critic_refine": {"n": 2, "threshold": 1.0},
    "rsa": {"n": 4, "k": 2, "rounds": 1},
    "pacore_prompted": {"widths": (3, 2)},
    "pdr": {"n": 3, "rounds": 1, "workspace": 40},
    "budget_forcing": {"n": 3, "max_think": 30, "think_close": ""},
    "revision": {"n": 6, "ratio": 1.5},
    "self_refine": {"n": 6, "ratio": 1.5},
    "trimr": {"n": 3},
    "three_d": {"n": 3, "rounds": 2, "max_think": 60, "think_close": ""},
    "scale": {"outlines": 3},
    "path_summary": {"n": 3, "finish": 1, "piece": 20},
    "a_star": {"k": 3},
    "qalign": {"steps": 3, "chains": 2},
    "power_sampling": {"steps": 2, "blocks": 2, "chains": 2},
    "parallel_tempering": {"steps": 3, "chains": 2},
    "ab_mcts": {"n": 6, "batch": 2},
    "iterative_deepening": {"n": 3, "b0": 30},
    "particle_gibbs": {"n": 3},
    "entropic_particle_filter": {"n": 4, "lookahead": True},
    "pool_particles": {"n": 4, "max_depth": 5},
    "beam": {"width": 4, "children": 2},
    "subpool_selection": {"width": 4, "children": 2},
    "dvts": {"width": 4, "children": 2},
    "lookahead": {"width": 4, "children": 2},
    "mcts": {"b": 2, "max_calls": 24},
    "first_finish": {},
    "race_vote": {"n": 4, "portion": 2},
    "mrt_stop": {"n": 3, "every": 30, "k": 2, "answer_tokens": 12},
    "parallel_probe": {"n": 3, "every": 30, "stable": 2, "warm_up": 1, "patience": 1, "answer_tokens": 12},
    "depth_consistency": {"n": 3, "every": 30, "answer_tokens": 12},
    "cpt": {"n": 3, "every": 30, "alone": 1, "listing_tokens": 20},
    "deepconf": {"n": 4, "warm_up": 2, "ahead": 1, "window": 20},
    "cmc": {"n": 6, "beta": 0.0, "every": 30, "answer_tokens": 12},
}
"""What keeps the tests quick, where four samples do not."""

ONE: dict[str, dict[str, Any]] = {
    "optscale": {"n": 1, "peek": 1},
    "multi_temperature": {"temperatures": (1.0,), "n": 1},
    "resample": {"n": 1, "threshold": 0.3},
    "archon": {"layers": "generator:1"},
    "answer_graph": {"nodes": "assistant"},
    "cascade": {"n": 1, "alpha": 0.0, "signal": "verifier", "calibration": (0.5,)},
    "critic_refine": {"n": 1, "rounds": 0},
    "rsa": {"n": 1, "rounds": 0},
    "pacore_prompted": {"widths": ()},
    "pdr": {"n": 1, "rounds": 0},
    "budget_forcing": {"n": 1, "n_ignore": 0},
    "three_d": {"n": 1, "rounds": 1},
    "scale": {"outlines": 1},
    "a_star": {"k": 1},
    "qalign": {"steps": 0},
    "power_sampling": {"steps": 0, "blocks": 1},
    "parallel_tempering": {"steps": 0, "chains": 1},
    "particle_gibbs": {"n": 1, "iterations": 1},
    "pool_particles": {"n": 1, "memory": 1},
    "dvts": {"width": 1, "children": 1},
    "mcts": {"b": 1},
    "mrt_stop": {"n": 1, "every": 512},
    "parallel_probe": {"n": 1, "every": 512},
    "cmc": {"n": 1, "every": 512},
    "depth_consistency": {"n": 1, "every": 512},
    "cpt": {"n": 1, "every": 512},
    "deepconf": {"n": 1, "warm_up": 1},
}
"""The setting at which a method is one sample, where it is another one than a size of 1."""


def sized(name: str, n: int, others: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Settings of a method with n samples, by the trait `size`."""
    field = traits.size(load(STRATEGIES[name]))
    return others.get(name, {} if field is None else {field: n})


def small(name: str) -> dict[str, Any]:
    return sized(name, 4, SMALL)


def given() -> dict[str, Any]:
    """Resources of which a method may need one, anew; no program is run, and not every machine has a sandbox."""
    return {"sandbox": None}


def of_any_server(name: str) -> bool:
    """Whether it needs no more of a model than what servers of OpenAI's API can do."""
    return traits.powers(make_strategy(name, small(name))) <= {
        "logprobs",
        "prefix",
        "labels",
        "seed",
        "tokens",
        "top_logprobs",
    }


OUTLINE = '{"step1": "the first half", "step2": "the second half", "step3": "the sum"}'
"""What stands for a plan of a problem, where a method asks for one in JSON."""


SPAWN = "<spawn>\n<task>Add 1 and 2.</task>\n<task>Add 3 and 4.</task>\n</spawn>"
"""What hands work to two threads, where a method says how."""


def stepper(request: Request, child: int, rng: np.random.Generator) -> str:
    """Solves in three steps of varying length; one answer in two is right."""
    if request.labels:
        raise AssertionError("no judge is in play")
    if '"step1"' in request.messages[-1].text:
        return OUTLINE
    done = request.prefix_text.count("\n\n")
    text = ""
    for step in range(done, 3):
        text += f"step {step} " + "x" * int(rng.integers(0, 20)) + "\n\n"
    return text + f"#### {42 if rng.random() < 0.5 else int(rng.integers(3))}"
