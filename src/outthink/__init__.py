"""Outthink spends inference compute where it pays: test-time scaling under an enforced budget, with one honest ledger.

    import outthink

    trace = outthink.solve("What is 17 * 23?", "self_consistency", model="qwen2.5-coder-0.5b-instruct")
    trace.answer, trace.cost

Names are imported when they are first used, so that importing the package is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outthink.answers.asking import ask
    from outthink.driver import solve, solve_async
    from outthink.errors import OutthinkError
    from outthink.model import Draw, Model, Models
    from outthink.models import open_engine
    from outthink.records.frames import Frame, load
    from outthink.rng import Rng
    from outthink.strategies import STRATEGIES, Report
    from outthink.strategies.making import make_strategy
    from outthink.types import Budget, Call, Candidate, Message, Problem, Round, Sampling, Trace, Usage

__version__ = "0.1.0"

_HOME = {
    "OutthinkError": "errors",
    "Draw": "model", "Model": "model", "Models": "model",
    "open_engine": "models",
    "Frame": "records.frames", "load": "records.frames",
    "ask": "answers.asking",
    "Rng": "rng",
    "make_strategy": "strategies.making", "solve": "driver", "solve_async": "driver",
    "STRATEGIES": "strategies", "Report": "strategies",
    "Budget": "types", "Call": "types", "Candidate": "types", "Message": "types", "Problem": "types",
    "Round": "types", "Sampling": "types", "Trace": "types", "Usage": "types",
}  # fmt: skip

__all__ = [
    "STRATEGIES",
    "Budget",
    "Call",
    "Candidate",
    "Draw",
    "Frame",
    "Message",
    "Model",
    "Models",
    "OutthinkError",
    "Problem",
    "Report",
    "Rng",
    "Round",
    "Sampling",
    "Trace",
    "Usage",
    "ask",
    "load",
    "make_strategy",
    "open_engine",
    "solve",
    "solve_async",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'outthink' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"outthink.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
