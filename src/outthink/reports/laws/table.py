"""Laws on recorded data: reads pools and runs, fits one law, and gives what it says as rows, sentences and a figure.

The laws themselves are in `outthink.laws`; here are the names they have on the command line, what data they are given,
and how what they find is worded. Each function below is one law: its docstring says in two paragraphs what it says and
which files it takes, and its keyword arguments are its options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from outthink.errors import UnknownName, UsageError
from outthink.reports.analysis import (
    Analysis,
)
from outthink.reports.laws.arise import arise
from outthink.reports.laws.coverage import coverage
from outthink.reports.laws.crossover import crossover
from outthink.reports.laws.genrm import genrm
from outthink.reports.laws.imperfect import imperfect
from outthink.reports.laws.kinetics import kinetics
from outthink.reports.laws.length import length
from outthink.reports.laws.passuntil import passuntil
from outthink.reports.laws.regret import regret
from outthink.reports.laws.saturation import saturation
from outthink.reports.laws.soundness import soundness
from outthink.reports.laws.verification import verification


def analyse(name: str, files: Sequence[Path], **options: Any) -> Analysis:
    """The law of this name on these files.

    Args:
        options: what was asked of it; one that the law does not have is refused.

    Raises UnknownName, UsageError where files or options do not fit the law, and Unidentified where they cannot say
    what its parameters are.
    """
    if name not in LAWS:
        raise UnknownName("law", name, LAWS)
    if not files:
        raise UsageError(f"The law {name} needs files: {needs(name)}")
    known = inspect.signature(LAWS[name]).parameters
    for option in options:
        if option not in known:
            raise UsageError(f"The law {name} has no option --{option.replace('_', '-')}.")
    return LAWS[name](files, **options)


def summary(name: str) -> str:
    """What a law says, in one line."""
    return _paragraphs(name)[0]


def needs(name: str) -> str:
    """Which files it takes, in one line."""
    return _paragraphs(name)[1]


def _paragraphs(name: str) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(LAWS[name].__doc__ or "").split("\n\n")]


LAWS: Mapping[str, Callable[..., Analysis]] = {
    "coverage": coverage,
    "passuntil": passuntil,
    "saturation": saturation,
    "imperfect": imperfect,
    "genrm": genrm,
    "verification": verification,
    "soundness": soundness,
    "arise": arise,
    "regret": regret,
    "length": length,
    "crossover": crossover,
    "kinetics": kinetics,
}
"""Laws by their name on the command line."""
