"""Fifty questions as people ask them: free, checkable and of a given form; and what they get by each door."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np

from outthink import cli
from outthink.models.engine import Engine, Request
from outthink.models.scripted import ScriptedEngine
from tests.tools.serving import asked, chat

Group = Literal["free", "checkable", "structured"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question, with what a scripted model says to it.

    Args:
        replies: the k-th sample is the k-th of them, and so on from the first.
        right: the answer that is voted for; None: there is nothing to vote on.
        given: what the caller says of it, as options of the command line; a mapping is a file of JSON.
    """

    group: Group
    text: str
    replies: tuple[str, ...]
    right: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict)


_SCENES = (
    "Old roofs drum softly while {} waits by the door.",
    "My cat hates wet windows;\nbut {}? She sings, and how.",
    "Puddles keep the sky. Boots come: {} is gone by noon!",
    "Umbrella upside down, a bowl full of April, plus {}.",
)
"""Four replies of which no two have much in common."""

_FREE = {
    "Write a haiku about rain": "rain",
    "Rust or Go?": "the borrow checker",
    "Tell me a joke.": "a penguin",
    "Suggest a name for my bakery": "Crumbs",
    "Write a two-line poem for my grandmother": "grandma",
    "What should I cook tonight?": "lentil soup",
    "Give me an idea for a birthday present": "a kite",
    "Write a tweet about our new coffee": "espresso",
    "Explain recursion to a child": "a mirror",
    "Why do people like cats?": "purring",
    "Draft an email that says I am ill": "the flu",
    "What is a good first line for a novel?": "the sea",
    "How do I make friends in a new city?": "a choir",
    "Describe the smell of a forest": "moss",
    "Write a slogan for a bicycle shop": "two wheels",
    "Give feedback on my idea: a library of tools": "ladders",
    "What is love?": "patience",
    "Plan a day in Lisbon": "tram 28",
}
_ALIKE = {
    "Summarise: The council met on Monday and postponed the vote on the new bridge.": (
        "The council met on Monday and put off the vote on the new bridge.",
        "The council met Monday and postponed its vote on the new bridge.",
        "On Monday the council met and postponed the vote on the bridge.",
        "The council postponed the vote on the new bridge when it met on Monday.",
    ),
    "Translate into English: Der Zug hat heute leider Verspätung.": (
        "The train is unfortunately late today.",
        "Unfortunately, the train is late today.",
        "The train is unfortunately delayed today.",
        "Sadly the train is running late today.",
    ),
}
_CHECKABLE = {
    "What is 17 * 23?": "391",
    "How many days are in 3 weeks?": "21",
    "What is the capital of France?": "Paris",
    "What is the square root of 144?": "12",
    "Which planet is the largest?": "Jupiter",
    "What is 15% of 80?": "12",
    "Who wrote Hamlet?": "Shakespeare",
    "How many legs does a spider have?": "8",
    "What is the chemical symbol of gold?": "Au",
    "In which year did World War II end?": "1945",
    "What is 2 to the power of 10?": "1024",
    "How many minutes are in 2 hours?": "120",
    "What is the opposite of hot?": "cold",
    "What is 100 - 37?": "63",
    "Which language has the most native speakers?": "Mandarin",
    "How many sides does a hexagon have?": "6",
    "What is 3/4 as a decimal?": "0.75",
    "What is the boiling point of water in Celsius?": "100",
    "What is the next prime after 13?": "17",
    "How many continents are there?": "7",
}
_FORMS = ("The answer is {}.", "{}", "I think that this takes a moment.\n\n**Answer:** {}", "Answer: {}")
_JSON: dict[str, tuple[dict[str, Any], Any]] = {
    "Extract name and age: Ann is 31 years old.": ({"name": "string", "age": "integer"}, {"name": "Ann", "age": 31}),
    "Which colours are in the French flag?": ({"colours": "array"}, {"colours": ["blue", "white", "red"]}),
    "Is 7 a prime?": ({"prime": "boolean"}, {"prime": True}),
    "Where and when: the meeting is in Bonn at 9:30.": (
        {"place": "string", "time": "string"},
        {"place": "Bonn", "time": "9:30"},
    ),
    "Sentiment of: I love this phone!": ({"sentiment": "string"}, {"sentiment": "positive"}),
    "Price and currency of: a shirt for 20 euros": (
        {"price": "number", "currency": "string"},
        {"price": 20, "currency": "EUR"},
    ),
}
_CHOICES = {
    "Which is the largest planet?\n(A) Mars\n(B) Jupiter\n(C) Venus": "B",
    "Which animal is a mammal?\n(A) whale\n(B) shark\n(C) trout": "A",
    "What is frozen water called?\n(A) steam\n(B) fog\n(C) ice": "C",
    "What is 6 * 7?\n(A) 36\n(B) 42\n(C) 48": "B",
}


def _schema(kinds: Mapping[str, str]) -> dict[str, Any]:
    properties = {name: {"type": kind} for name, kind in kinds.items()}
    return {"type": "object", "properties": properties, "required": list(kinds)}


def _written(value: dict[str, Any]) -> tuple[str, ...]:
    """The same value in three forms, and what is no JSON."""
    turned = dict(reversed(value.items()))
    return (json.dumps(value), f"```json\n{json.dumps(turned, indent=1)}\n```", "Here it is: {", json.dumps(turned))


QUESTIONS: tuple[Question, ...] = (
    *(
        Question(group="free", text=text, replies=tuple(scene.format(word) for scene in _SCENES))
        for text, word in _FREE.items()
    ),
    *(Question(group="free", text=text, replies=replies) for text, replies in _ALIKE.items()),
    *(
        Question(group="checkable", text=text, replies=tuple(form.format(right) for form in _FORMS), right=right)
        for text, right in _CHECKABLE.items()
    ),
    *(
        Question(
            group="structured",
            text=text,
            replies=_written(value),
            right=json.dumps(value, separators=(",", ":")),
            given={"schema": _schema(kinds)},
        )
        for text, (kinds, value) in _JSON.items()
    ),
    *(
        Question(
            group="structured",
            text=text,
            replies=(f"#### {right}", f"It is ({right}).", "The answer is D.", f"Answer: {right}"),
            right=right,
            given={"options": "A,B,C"},
        )
        for text, right in _CHOICES.items()
    ),
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What somebody got.

    Args:
        code: of the command, or the status of the reply.
        text: what is shown; `answer` what was read from it.
        chosen: how it was chosen, in a word.
    """

    code: int
    text: str | None
    answer: str | None
    samples: int
    tokens: int
    notes: Sequence[str]

    @property
    def chosen(self) -> str:
        """What came of the look at the first replies."""
        for note in self.notes:
            if "the first one stands" in note:
                return "first"
            if " chose it" in note:
                return note.removesuffix(" chose it").rpartition(" ")[2]
            if "cut off or empty" in note:
                return "cut off"
        return "vote" if self.samples > 1 else "one"


def by_question(requests: list[Request]) -> ScriptedEngine:
    """A model that knows the questions; what it is asked for is kept."""
    known = {question.text: question for question in QUESTIONS}

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        requests.append(request)
        said = request.messages[-1].text
        question = known.get(said) or next(one for text, one in known.items() if said.startswith(text))
        return question.replies[child % len(question.replies)]

    return ScriptedEngine(reply)


class Kept:
    """An engine that whoever has opened it cannot close."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        if name == "close":
            raise AttributeError(name)
        return getattr(self._engine, name)


@contextlib.contextmanager
def commanded(engine: Engine) -> Iterator[None]:
    """Whatever model a command opens is this one, which stays open."""
    with mock.patch("outthink.models.open_engine", return_value=Kept(engine)):
        yield


def through_solve(question: Question, folder: Path, *words: str) -> Shown:
    """What `outthink solve` shows; within `commanded`."""
    given: list[str] = []
    for name, value in question.given.items():
        if not isinstance(value, str):
            path = folder / f"{name}.json"
            path.write_text(json.dumps(value), encoding="utf-8")
            value = str(path)
        given += [f"--{name}", value]
    shown = io.StringIO()
    argv = ["outthink", "solve", question.text, *given, "--json", *words]
    code: Any = 0
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(shown):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
    told = json.loads(shown.getvalue())
    return Shown(
        code=int(code),
        text=told["text"],
        answer=told["answer"],
        samples=sum(line["samples"] for line in told["ledger"] if line["kind"] == "sample"),
        tokens=round(told["cost"]["tokens"]),
        notes=told["notes"],
    )


async def through_serve(question: Question, url: str, model: str, **fields: Any) -> Shown:
    """What `outthink serve` replies to the same; forms are told in words, as they are to any model."""
    text, wish = question.text, {}
    if "schema" in question.given:
        text += f"\nReply with JSON that fits {json.dumps(question.given['schema'])}"
        wish = {"answer": "json"}
    elif "options" in question.given:
        wish = {"answer": "choice"}
    reply = await asked(url, chat(text, **{**fields, "model": model, "outthink": wish}))
    told = reply.json
    if reply.status != 200:
        return Shown(code=reply.status, text=None, answer=None, samples=0, tokens=0, notes=[told["error"]["message"]])
    about = told["outthink"]
    return Shown(
        code=reply.status,
        text=told["choices"][0]["message"]["content"],
        answer=about["answer"],
        samples=sum(line["samples"] for line in about["ledger"] if line["kind"] == "sample"),
        tokens=round(about["cost"]["tokens"]),
        notes=about["notes"],
    )
