"""One factor at a time: which settings to measure, and which of them helped, beside a selector that knows nothing.

Prompt, temperature, top-p and who scores move accuracy as much as the strategy does, so they are set before strategies
are compared, on other questions than those that are reported. Gains need not add: measure what was kept together.

Source: Bag of Tricks for Inference-time Computation of LLM Reasoning (2025); the authors' code, the abstract and the
project page were read, not the paper's tables. Differs: settings are ranked by paired differences per question with
bootstrap intervals, and a ranking without the control is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from outthink.maths.intervals import mean_and_interval

T = TypeVar("T")
Estimate = tuple[float, float, float]
"""A mean difference and its 95% interval."""


def one_factor(base: Mapping[str, T], values: Mapping[str, Sequence[T]]) -> list[dict[str, T]]:
    """The settings of the design: the base point, and for every other value of each factor the base with that value.

    1 + the sum of (values - 1) settings where the base is among the values, in place of the product of all.

    Raises ValueError where a factor is not in the base.
    """
    unknown = [factor for factor in values if factor not in base]
    if unknown:
        raise ValueError(f"the base says nothing about {', '.join(unknown)}")
    settings = [dict(base)]
    for factor, options in values.items():
        for option in options:
            setting = {**base, factor: option}
            if setting not in settings:
                settings.append(setting)
    return settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What a setting gains.

    Args:
        problems: on how many questions, those that are graded in every setting.
        over_base: mean of credit minus the base's on the same question, with its 95% interval; None for the base.
        over_control: the same minus the control's; None for the control. A selector whose interval here reaches 0 may
            know nothing.
    """

    name: str
    problems: int
    over_base: Estimate | None
    over_control: Estimate | None


def ranked(credits: Mapping[str, ArrayLike], *, base: str, control: str) -> list[Effect]:
    """The settings by what they gain over the base, the best first.

    The best of many settings looks better than it is: test it on fresh questions.

    Args:
        credits: by setting, the credit (problems,) of each question in [0, 1], NaN where it is not graded; the same
            questions in the same order.
        control: the setting with random scores.

    Raises ValueError where base or control is not among the settings, and where no question is graded in all of them.
    """
    for name, what in ((base, "base"), (control, "control")):
        if name not in credits:
            advice = "; without random scores nobody can tell a selector from chance" if what == "control" else ""
            raise ValueError(f"the {what} {name!r} is not among the settings{advice}")
    table = {name: np.asarray(credit, float) for name, credit in credits.items()}
    if any(credit.ndim != 1 or credit.shape != table[base].shape for credit in table.values()):
        raise ValueError("every setting needs one credit for each question")
    graded = ~np.isnan(list(table.values())).any(0)
    if not graded.any():
        raise ValueError("no question is graded in every setting")

    def gain(name: str, other: str) -> Estimate | None:
        return None if name == other else mean_and_interval((table[name] - table[other])[graded].tolist(), least=-1.0)

    effects = [
        Effect(name=name, problems=int(graded.sum()), over_base=gain(name, base), over_control=gain(name, control))
        for name in table
    ]
    return sorted(effects, key=lambda effect: 0.0 if effect.over_base is None else -effect.over_base[0])
