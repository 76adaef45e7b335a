"""What looks wrong with questions and their right answers, said before anything is spent on them.

Source: none. Differs: nothing is refused here; what could be meant as it stands is only said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from outthink.answers.canonical import cleaned_math, easy_key
from outthink.answers.literals import json_value, text_key
from outthink.answers.reading import read
from outthink.tasks.example import Example
from outthink.tasks.fields import TEXTS_BESIDE
from outthink.types import AnswerKind

_FEW = 8  # with fewer questions the right options may well stand in one place by chance
_SHOWN = 40  # characters of an answer or a question in a sentence


def doubts(examples: Sequence[Example]) -> list[str]:
    """One sentence for each thing that looks wrong, with how many examples it is about and the first of them."""
    told = []
    if repeated := [name for name, count in Counter(one.problem.id for one in examples).items() if count > 1]:
        told.append(f"{_of(repeated, examples)} ids come more than once, such as {repeated[0]!r}.")
    if empty := [one for one in examples if not one.problem.question.strip()]:
        told.append(f"{_of(empty, examples)} questions are empty, such as that of {empty[0].problem.id!r}.")
    told += _unreadable(examples)
    told += _contradictions(examples)
    told += _options(examples)
    if hidden := [one for one in examples if _texts_beside(one)]:
        names = sorted({name for one in hidden for name in _texts_beside(one)})
        told.append(
            f"{_of(hidden, examples)} questions have a field {' and '.join(map(repr, names))} that is not shown to the "
            "model: if it is needed, put it into the question."
        )
    return told


def _of(some: Sequence[object], all_of_them: Sequence[object]) -> str:
    return f"{len(some):,} of {len(all_of_them):,}"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def _unreadable(examples: Sequence[Example]) -> list[str]:
    """Answers that would not be read as themselves, were a model to reply with them in the form it is asked for."""
    told = []
    for kind in ("math", "text", "json", "choice"):
        mine = [one for one in examples if one.problem.answer == kind and one.gold and "gym" not in one.meta]
        lost = [one for one in mine if not any(_reads(one, gold) for gold in one.gold)]
        if lost:
            told.append(
                f"{_of(lost, mine)} right answers are none of the kind {kind}, such as {_short(lost[0].gold[0])} of "
                f"{lost[0].problem.id!r}, so a right reply can count as wrong: choose another kind by "
                "--answer, or write them in its form."
            )
    if nothing := [one for one in examples if not one.gold and not one.tests and "gym" not in one.meta]:
        told.append(f"{_of(nothing, examples)} questions have no right answer, such as {nothing[0].problem.id!r}.")
    return told


def _reads(example: Example, gold: str) -> bool:
    problem = example.problem
    kind: AnswerKind = problem.answer
    if kind == "choice":
        return gold in problem.options
    if kind == "json":
        return json_value(gold, canonical=True) is not None
    boxed = any(r"\boxed" in message.text for message in problem.messages)
    answer = read(kind, f"\\boxed{{{gold}}}" if boxed else f"#### {gold}", problem.options)
    if answer is None:
        return False
    if kind == "text":
        return text_key(answer) == text_key(gold)
    key = easy_key(gold)
    return cleaned_math(answer) == cleaned_math(gold) if key is None else easy_key(answer) == key


def _contradictions(examples: Sequence[Example]) -> list[str]:
    asked: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
    other = [
        one
        for one in examples
        if one.gold
        and not one.tests
        and {*asked.setdefault((one.problem.question, one.problem.options), one.gold)}.isdisjoint(one.gold)
    ]
    if not other:
        return []
    return [
        f"{_of(other, examples)} questions were asked before with another right answer, such as that of "
        f"{other[0].problem.id!r}."
    ]


def _options(examples: Sequence[Example]) -> list[str]:
    """What looks wrong with options, and with answers that seem to belong to options which were not read."""
    told = []
    choices = [one for one in examples if one.problem.answer == "choice" and one.problem.options]
    places = [one for one in choices if one.meta.get("answer_as") == "place"]
    if places and not any(one.gold[0] == one.problem.options[0] for one in places):
        told.append(
            f"{_of(places, choices)} answers are numbers that were taken for places counted from 0, but none of them "
            "is 0: if they count from 1, write labels or the texts of the options."
        )
    if numbers := [one for one in choices if one.meta.get("answer_as") == "number"]:
        told.append(
            f"{_of(numbers, choices)} answers are numbers that were taken for places counted from 1, because none of "
            "them is 0 and one is the number of options."
        )
    if len(choices) >= _FEW and len({one.gold for one in choices}) == 1:
        told.append(f"In all {len(choices):,} questions with options the right one is {choices[0].gold[0]}.")
    bare = [one for one in examples if not one.problem.options and not one.tests and "gym" not in one.meta]
    lists = sorted({name for one in bare for name in _lists(one)})
    if lists and all(re.fullmatch(r"[0-9]|\(?[A-Za-z]\)?", gold) for one in bare for gold in one.gold):
        told.append(
            f"All answers are letters or numbers from 0 to 9, and the field {' and '.join(map(repr, lists))} was not "
            "read: if it has the options, call it 'options'."
        )
    elif bare and all(re.fullmatch(r"\(?[A-J]\)?", gold) for one in bare for gold in one.gold) and bare[0].gold:
        told.append("All answers are letters, but the questions have no options: give them as 'options'.")
    return told


def _not_read(example: Example) -> list[str]:
    names = example.meta.get("not_read")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _lists(example: Example) -> list[str]:
    return [name for name in _not_read(example) if name.lower() not in TEXTS_BESIDE]


def _texts_beside(example: Example) -> list[str]:
    return [name for name in _not_read(example) if name.lower() in TEXTS_BESIDE]
