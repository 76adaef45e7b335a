"""Options of a row, in whatever form a data set has them, and which of them its answer names.

Source: the layouts of the published files that `fields` lists. Differs: options are always shown with the labels A, B,
C and so on. Where a file tells only right from wrong, their order is by a hash of the problem's id and the text, so
that it is always the same and the right one is anywhere. An answer is a label, a text or a place; one that could be
several of these is decided by the answers of the file that can be only one of them, and refused where they do not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from outthink.errors import UsageError
from outthink.tasks.fields import ANSWERS, CHOSEN, PLACES, Fields
from outthink.tasks.rows import loads, missing, written

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

As = Literal["label", "text", "place", "number", "index"]
"""What an answer is taken for; a place counts from 0, a number from 1; an index is a place by the name of its field."""

_LABELLED = re.compile(r"\s*[(\[]?([A-Za-z])\s*[).:\]]\s*(\S.*)", re.DOTALL)
_DRESSED = re.compile(r"[(\[{]?\s*(?:(?:option|choice)\s+)?[(\[]?([A-Za-z0-9]{1,3})\s*[)\]}.:]*", re.IGNORECASE)
_IN_QUESTION = re.compile(r"(?:^|(?<=\s))\(?([A-Z])[).:]\)?\s")
_FAMILY = re.compile(r"(option|choice|opt|op|ending|answer|sol|)([a-z]|[0-9])")
_WRONG = re.compile(r"(?:incorrectanswers?|wronganswers?|distractors?|incorrect)(?:[0-9]+|[a-z])?")
_RIGHT = ("correctanswer", "bestanswer", "rightanswer", "correctanswers", "correct", "answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceOptions:
    """The options of one row.

    Args:
        names: what the row calls each of them, such as A, 1 or 0.
        texts: what each says; () where the options are labels only, listed in the question.
        sure: the row itself gives the names; else they are guessed from its columns or their order.
        whole: texts with the label that stood in front of them, where one did.
        right: place of the right one, where the row says it in the way it lists them.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...] = ()
    sure: bool = False
    whole: tuple[str, ...] = ()
    right: int | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """As they are shown."""
        return tuple(LETTERS[: len(self.names)])

    def listed(self) -> str:
        """Lines to show below the question; empty where it lists them itself."""
        return "".join(f"\n({label}) {text}" for label, text in zip(self.labels, self.texts, strict=False))


@dataclass(frozen=True, slots=True)
class Readings:
    """Places that an answer can mean, by what it is taken for; -1 for one that is out of range.

    Args:
        value: the answer.
        likely: what it is where the rest of the file does not tell.
    """

    value: str
    places: Mapping[As, int]
    likely: As | None = None


def options_of(row: Fields, id: str, question: str) -> ChoiceOptions | None:
    """The options of a row, None where it has none; raises UsageError where they cannot be read."""
    asked = row.get("question")
    nested = asked.get("choices") if isinstance(asked, dict) else None
    name, value = row.named(
        "options", "choices", "endings", "answeroptions", "answerchoices", "alternatives", "candidates", "opts"
    )
    if value is None and nested is not None:
        name, value = "choices", nested
    if value is not None and value not in ([], {}):
        made: ChoiceOptions | None = _given(row, name, value)
    elif "mc1targets" in row:
        targets = row.get("mc1targets")
        made = _flagged(row, targets if isinstance(targets, dict) else {}, id)
    else:
        made = _columns(row) or _right_and_wrong(row, id)
    if made is None:
        return _in_question(row, question)
    if max(len(made.names), len(made.texts)) > len(LETTERS):
        raise row.error(f"more than {len(LETTERS)} options")
    return made


def answer_of(row: Fields, options: ChoiceOptions) -> list[Readings]:
    """What the accepted answers of a row can mean; raises UsageError where one means none of the options."""
    if options.right is not None:
        return [Readings(options.texts[options.right], {"text": options.right})]
    name, value = row.named(*PLACES)
    index = name != ""
    if not index:
        name, value = row.named(*ANSWERS[:1], *CHOSEN, *ANSWERS[1:])
    if value is None:
        raise row.error("the field 'answer' is missing, so the right option is not known")
    values = value if isinstance(value, list) else [value]
    if not values:
        raise row.error(f"the field {name!r} names no option")
    return [_readings(one, options, index, name, row) for one in values]


def settled(answers: Sequence[tuple[str, ChoiceOptions, list[Readings]]]) -> list[list[tuple[int, As]]]:
    """For each row the places of its accepted options, and what its answers were taken for.

    Args:
        answers: (file and line, options, readings) of all rows of a file that have options.

    Raises UsageError that names the line of an answer that can mean several options.
    """
    alone = [
        reading.places
        for _, _, readings in answers
        for reading in readings
        if not {"label", "text"} & {*reading.places}
    ]
    counted: As = "place"  # data sets count from 0, unless no answer is 0 and one is the number of options
    if any(places.get("place") == -1 for places in alone) and not any(places.get("number") == -1 for places in alone):
        counted = "number"
    other: As = "number" if counted == "place" else "place"

    def kept(reading: Readings) -> dict[As, int]:
        return {taken: place for taken, place in reading.places.items() if taken != other and place >= 0}

    clear = {next(iter(left)) for _, _, readings in answers for one in readings if len(left := kept(one)) == 1}
    places = []
    for where, options, readings in answers:
        chosen: list[tuple[int, As]] = []
        for reading in readings:
            left = kept(reading)
            if len({*left.values()}) > 1:
                taken_for = {*left} & clear if len({*left} & clear) == 1 else {reading.likely} & {*left} or {*left}
                left = {taken: place for taken, place in left.items() if taken in taken_for}
            if not left:
                begin = "0" if counted == "place" else "1"
                raise UsageError(
                    f"{where}: the answer {reading.value!r} is not among the options; numbers count from {begin}"
                )
            if len({*left.values()}) > 1:
                meant = " or ".join(sorted({f"option {options.labels[place]}" for place in left.values()}))
                raise UsageError(
                    f"{where}: the answer {reading.value!r} can mean {meant}: give the place of the right one, "
                    "counted from 0, as 'answer_index'"
                )
            chosen.append(next((place, taken) for taken, place in left.items()))
        places.append(chosen)
    return places


def _given(row: Fields, name: str, value: Any) -> ChoiceOptions:
    """Options from one field: a list, or an object."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):  # in the cell of a table
        try:
            value = loads(value)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, dict):
        parts = {part.lower(): held for part, held in value.items()}
        texts = next((parts[part] for part in ("text", "texts", "choices", "options") if part in parts), None)
        labels = next((parts[part] for part in ("label", "labels") if part in parts), None)
        if isinstance(texts, list) and isinstance(labels, list):
            if len(texts) != len(labels):
                raise row.error(f"the field {name!r} has {len(texts)} texts, but {len(labels)} labels")
            return _named(row, name, labels, texts)
        given = {label: text for label, text in value.items() if not missing(text)}
        return _named(row, name, list(given), list(given.values()))
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        pairs = [{part.lower(): held for part, held in one.items()} for one in value]
        labels = [_first(pair, "label", "key", "id", "letter") for pair in pairs]
        texts = [_first(pair, "text", "content", "value", "option", "answer") for pair in pairs]
        if all(label is None for label in labels):
            return _listed(row, name, texts)
        return _named(row, name, labels, texts)
    return _listed(row, name, value)


def _first(pair: dict[str, Any], *parts: str) -> Any:
    return next((pair[part] for part in parts if part in pair), None)


def _listed(row: Fields, name: str, value: Any) -> ChoiceOptions:
    """Options from a list of texts, which may be labels alone, or have their labels in front."""
    texts = _texts(row, name, value)
    if "".join(texts) in (LETTERS[: len(texts)], LETTERS[: len(texts)].lower()) and all(map(len, texts)):
        return ChoiceOptions(names=tuple(LETTERS[: len(texts)]), sure=True)
    pairs = zip(LETTERS, map(_LABELLED.fullmatch, texts), strict=False)
    inner = [match[2].strip() for letter, match in pairs if match and match[1].upper() == letter]
    if len(inner) == len(texts) > 1:
        return ChoiceOptions(names=tuple(LETTERS[: len(texts)]), texts=tuple(inner), whole=texts, sure=True)
    return ChoiceOptions(names=tuple(LETTERS[: len(texts)]), texts=texts)


def _named(row: Fields, name: str, labels: list[Any], value: list[Any]) -> ChoiceOptions:
    texts, names = _texts(row, name, value), _texts(row, name, labels)
    if len({label.casefold() for label in names}) < len(names):
        raise row.error(f"two options of the field {name!r} have the same label")
    return ChoiceOptions(names=names, texts=texts, sure=True)


def _texts(row: Fields, name: str, value: Any) -> tuple[str, ...]:
    try:
        texts = [written(one) for one in value] if isinstance(value, list) else []
    except ValueError as error:
        raise row.error(f"the field {name!r} cannot be used: {error}") from error
    if not texts or not all(texts):
        raise row.error(f"the field {name!r} is not a list of texts")
    return tuple(text for text in texts if text)


def _flagged(row: Fields, value: dict[str, Any], id: str) -> ChoiceOptions:
    """Options of which 1 marks the right one and 0 the others, as in TruthfulQA, which lists the right one first."""
    texts, flags = _texts(row, "mc1_targets", value.get("choices")), value.get("labels")
    if not isinstance(flags, list) or sorted(map(str, flags)) != ["0"] * (len(texts) - 1) + ["1"]:
        raise row.error("the field 'mc1_targets' does not mark one of its choices as right by 1 and the others by 0")
    right = [str(flag) for flag in flags].index("1")
    return _shuffled(row, texts[right], [*texts[:right], *texts[right + 1 :]], id)


def _columns(row: Fields) -> ChoiceOptions | None:
    """Options in columns: A to D, option1 and option2, ending0 to ending3 and the like."""
    families: dict[str, dict[str, str]] = {}
    for plain in row.names():
        match = _FAMILY.fullmatch(plain)
        # "options" is no option s, and a and b alone are quantities
        if match and (match[2] != "s" if match[1] else row.spelled(plain) in LETTERS):
            families.setdefault(match[1], {})[match[2]] = plain
    for members in families.values():
        for first in "a01":
            if first not in members or chr(ord(first) + 1) not in members:
                continue
            run = [first]
            while (following := chr(ord(run[-1]) + 1)) in members:
                run.append(following)
            same = [suffix for suffix in members if suffix.isalpha() == first.isalpha()]
            if len(same) > len(run):
                raise row.error(f"option {chr(ord(run[-1]) + 1).upper()} is missing, but one after it is there")
            values = [row.get(members[suffix]) for suffix in run]
            texts = _texts(row, members[first], values)
            return ChoiceOptions(names=tuple(suffix.upper() for suffix in run), texts=texts, sure=first == "a")
    return None


def _right_and_wrong(row: Fields, id: str) -> ChoiceOptions | None:
    """Options of which the row has the right one in one field and the wrong ones in others."""
    wrong: list[Any] = []
    for plain in row.names():
        if _WRONG.fullmatch(plain):
            value = row.get(plain)
            wrong += [one for one in (value if isinstance(value, list) else [value]) if not missing(one)]
    if not wrong:
        return None
    name, value = row.named(*_RIGHT)
    right = _texts(row, name or "correct_answer", value if isinstance(value, list) else [value])
    if len(right) > 1:
        raise row.error(f"the field {name!r} has several right answers: leave one, since one option is right")
    return _shuffled(row, right[0], list(_texts(row, "incorrect_answers", wrong)), id)


def _shuffled(row: Fields, right: str, wrong: list[str], id: str) -> ChoiceOptions:
    if right in wrong:
        raise row.error(f"the option {right!r} is both right and wrong")
    order = sorted({right, *wrong}, key=lambda text: hashlib.sha256(repr((id, text)).encode()).digest())
    return ChoiceOptions(names=tuple(LETTERS[: len(order)]), texts=tuple(order), right=order.index(right))


def _in_question(row: Fields, question: str) -> ChoiceOptions | None:
    """Labels of options that the question itself lists, as (A) or B., where the answer is one of them."""
    _, value = row.named(*ANSWERS)
    values = value if isinstance(value, list) else [value]
    labels: list[str] = []
    for match in _IN_QUESTION.finditer(question):
        if len(labels) < len(LETTERS) and match[1] == LETTERS[len(labels)]:
            labels.append(match[1])
    golds = [re.fullmatch(r"\(?([A-Z])\)?\.?", one.strip()) if isinstance(one, str) else None for one in values]
    if len(labels) < 2 or not all(gold is not None and gold[1] in labels for gold in golds):
        return None
    return ChoiceOptions(names=tuple(labels), sure=True)


def _readings(value: Any, options: ChoiceOptions, index: bool, name: str, row: Fields) -> Readings:
    try:
        text = written(value)
    except ValueError as error:
        raise row.error(f"the field {name!r} cannot be used: {error}") from error
    if not text:
        raise row.error(f"the field {name!r} is missing or is neither a text nor a number")
    count = _count(value, text)
    if index and count is not None:
        if count >= len(options.names):
            raise row.error(f"the field {name!r} is {text}, but the {len(options.names)} options count from 0")
        return Readings(text, {"index": count})
    places: dict[As, int] = {}
    if (exact := _exact(text, options, row)) is not None:
        places["text"] = exact
    if (label := _label(text, options, loosely=exact is None)) is not None:
        places["label"] = label
    if not places and (folded := _folded(text, options)) is not None:
        places["text"] = folded
    likely: As | None = "text" if isinstance(value, str) and places.keys() == {"text"} else None
    if count is not None and count <= len(options.names) and not (options.sure and "label" in places):
        places["place"] = count if count < len(options.names) else -1
        places["number"] = count - 1
    if not places:
        raise row.error(f"the answer {text!r} is not among the options")
    return Readings(text, places, likely)


def _count(value: Any, text: str) -> int | None:
    """A whole number, however it is written."""
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,3}(?:\.0+)?", text):
        return None
    return int(text.partition(".")[0])


def _exact(text: str, options: ChoiceOptions, row: Fields) -> int | None:
    same = [place for place, option in enumerate(options.texts) if option == text]
    same += [place for place, option in enumerate(options.whole) if option == text and place not in same]
    if len(same) > 1:
        raise row.error(f"the answer {text!r} is the text of several options: give its label")
    return same[0] if same else None


def _folded(text: str, options: ChoiceOptions) -> int | None:
    same = [place for place, option in enumerate(options.texts) if option.casefold() == text.casefold()]
    return same[0] if len(same) == 1 else None


def _label(text: str, options: ChoiceOptions, *, loosely: bool) -> int | None:
    """The place of the option that is called so; loosely: in any case, in brackets, or with its text behind it."""
    if text in options.names:
        return options.names.index(text)
    if not loosely:
        return None
    names = [name.casefold() for name in options.names]
    if text.casefold() in names:
        return names.index(text.casefold())
    dressed = _DRESSED.fullmatch(text)
    if dressed and dressed[1].casefold() in names:
        return names.index(dressed[1].casefold())
    with_text = _LABELLED.fullmatch(text)
    if with_text and with_text[1].casefold() in names:
        place = names.index(with_text[1].casefold())
        if options.texts and options.texts[place].casefold() == with_text[2].strip().casefold():
            return place
    return None
