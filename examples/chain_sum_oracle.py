"""A process reward that cannot be wrong, for sums and differences from left to right: the ceiling of step search.

    PYTHONPATH=examples outthink solve "Compute 14 - 6 + 25" --answer math -s rebase --prm chain_sum_oracle:oracle

It works the question out itself, so it is an oracle and no method: use it to see what search could gain from better
process rewards. 1 as long as every line "a + b = c" is the next one of the calculation and right, else 0; once there
is a line with ####, only its number counts.
"""

from __future__ import annotations

import re

_TERMS = re.compile(r"-?\d+(?:\s*[+-]\s*\d+)+")
_LINE = re.compile(r"(-?\d+)\s*([+-])\s*(\d+)\s*=\s*(-?\d+)")
_ANSWER = re.compile(r"####\s*(-?\d+)")


def oracle(question: str, solution: str) -> float | None:
    """1.0 or 0.0; None where the question holds no sum."""
    asked = _TERMS.search(question)
    if asked is None:
        return None
    first, *rest = re.findall(r"-?\d+|[+-]", re.sub(r"([+-])\s*", r" \1 ", asked[0]))
    expected, total = [], int(first)
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        result = total + int(term) if sign == "+" else total - int(term)
        expected.append((str(total), sign, term, str(result)))
        total = result
    if answers := _ANSWER.findall(solution):
        return float(answers[-1] == str(total))
    lines = _LINE.findall(solution)
    return float(lines == expected[: len(lines)])
