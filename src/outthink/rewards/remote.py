"""A scorer behind HTTP: a reward model of vLLM, or any server that speaks a small JSON form of our own.

The last part of the address says how it is spoken to; #MODEL at its end is the name that is sent along.

- `/score`: {"text_1": question, "text_2": [solutions]} gives `data[].score`.
- `/classify`: {"input": [question, blank line, solution]} gives `data[].probs`; of two classes the second is taken, and
  a single one as it is. The server is trusted with its activation.
- `/pooling`: one chat of question and solution, {"messages": [...]}, gives `data[0].data`: classes (read as above), or
  a row of them for every token, of which the last is taken. As a PRM, with {"task": "token_classify"}, `<extra_0>` is
  put after each step. Then there is one row for each step (vLLM's pooler of type STEP, its default for Qwen's PRMs), or
  one for every token, the last of which is that of the last step.
- any other: {"question": ..., "solutions": [...]}, as a PRM also {"steps": [[...], ...]}, gives {"scores": [...]}, each
  a number or null, and {"usage": {"prompt_tokens": ...}} where the server knows it.

Source: vLLM's documentation and code for the first three; for the marks, the model card of Qwen2.5-Math-PRM. Differs:
the chat ends with the last mark and not with the end of the turn, so that the last row is the last step's. A step's
score is read from the chat of the longest path that it begins. That is right for models that read from left to right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from outthink.cost import charge
from outthink.errors import BudgetExhausted, EngineError, NothingCameBack, UsageError
from outthink.meter import Meter
from outthink.models.endpoint import Endpoint, Patience, Sending
from outthink.models.engine import EngineSpec
from outthink.rewards import Path
from outthink.together import together
from outthink.types import Address, Problem, Usage

_MOST = 64  # solutions in one request
_MARK = "<extra_0>"
_OVERHEAD = 128  # tokens of a prompt beyond its bytes: templates and special tokens

Texts = tuple[str, ...]
"""The text of each segment of a path."""


class RemoteScorer:
    """Scores of a server, metered by the tokens that it says it has read, else by the bytes that were sent.

    It may be used for many problems at once and from several event loops one after the other.

    Args:
        url: such as "http://HOST:8001/score#MODEL", see the module's text.
        process: score the last step of each path, given those before it, instead of the whole.
        patience: waiting times.

    Raises UsageError where the address is not one.
    """

    def __init__(self, url: str, *, process: bool = False, patience: Patience | None = None) -> None:
        address, _, model = url.partition("#")
        self._model = unquote(model)
        if "?" in address:
            raise UsageError(
                "The address of a scorer takes no options after a '?': name the model after a '#', and put a key into "
                "the environment or the file of keys."
            )
        place = address.partition("://")[2].partition("/")[2]
        base, self._path = address.rsplit("/", 1) if "/" in address.partition("://")[2] else (address, "")
        self._form = place.rstrip("/").rpartition("/")[2]
        self._endpoint = Endpoint(base, patience=patience)
        self._process = process
        self._role = "prm" if process else "verifier"
        self._overhead = _OVERHEAD
        self.spec = EngineSpec(name=self._model or address)

    async def close(self) -> None:
        """Close its connections; using it again opens them anew."""
        await self._endpoint.close()

    async def score(self, problem: Problem, paths: Sequence[Path], *, meter: Meter) -> list[float | None]:
        """One score per path; what a request that failed or could not be paid for should have scored is missing.

        Raises BudgetExhausted where no request could be paid for, and NothingCameBack where all have failed.
        """
        texts = [tuple(segment.text for segment in path) for path in paths]
        addresses: dict[Texts, Address] = {}
        for path, text in zip(paths, texts, strict=True):
            addresses.setdefault(text, path[-1].address)
        whole = self._form == "pooling" and self._process
        waiting = _chains(list(addresses)) if whole else [[text] for text in addresses]
        scores: dict[Texts, float | None] = {}
        failures: list[Exception] = []
        while waiting:
            groups, waiting = self._requests(problem.question, waiting, meter.left().get("tokens", math.inf))
            answers = await together(*(self._ask(problem.question, group, addresses, meter) for group in groups))
            for group, answer in zip(groups, answers, strict=True):
                if isinstance(answer, dict):
                    scores.update(answer)
                    # where a row is a token, steps that are not the last of their chat need one of their own
                    waiting += [[text] for text in group if text not in answer]
                else:
                    failures.append(answer)
        if failures and not scores:
            raise next((failure for failure in failures if isinstance(failure, NothingCameBack)), failures[0])
        return [scores.get(text) for text in texts]

    def _requests(
        self, question: str, waiting: list[list[Texts]], room: float
    ) -> tuple[list[list[Texts]], list[list[Texts]]]:
        """The requests that there is room for, at least one, and what waits until these have been charged."""
        groups: list[list[Texts]] = []
        for place, texts in enumerate(waiting):
            room -= self._bound(question, texts).tokens
            if groups and room < 0:
                return groups, waiting[place:]
            if groups and self._form != "pooling" and len(groups[-1]) < _MOST:
                groups[-1] += texts
            else:
                groups.append(list(texts))
        return groups, []

    def _bound(self, question: str, group: Sequence[Texts]) -> Usage:
        """The most that a request reads: no token is less than one byte."""
        prompts = self._prompts(question, group)
        return Usage(prompt=_bytes(prompts) + self._overhead * len(prompts))

    def _prompts(self, question: str, group: Sequence[Texts]) -> list[str]:
        """What the server reads, without templates."""
        if self._form == "pooling":
            return [question + self._marked(group[0])]
        return [question + "".join(text) for text in group]

    async def _ask(
        self, question: str, group: list[Texts], addresses: dict[Texts, Address], meter: Meter
    ) -> dict[Texts, float | None] | Exception:
        """The scores that one request gives, or why there are none."""
        address = (*meter.next_request((self._role, *addresses[group[0]])), 0)
        bound = self._bound(question, group)
        worst = charge(self.spec, [bound])
        try:
            async with meter.work("verify", self._role, address, n=len(group), worst=worst) as work:
                if work is None:
                    return BudgetExhausted("Nothing more fits into the budget.")
                work.charged, work.cost = bound, worst
                sending = Sending()
                try:
                    reply = await self._endpoint.post(self._path, self._body(question, group), sending)
                finally:
                    work.attempts = sending.attempts
                    if not sending.open:  # refused, or cancelled before it was sent
                        work.charged, work.cost = Usage(), charge(self.spec, [Usage()])
                used = _usage(reply)
                if used is not None:
                    work.seen = work.charged = used
                    work.cost = charge(self.spec, [used])
                    prompts = self._prompts(question, group)
                    beyond = -(-(used.tokens - _bytes(prompts)) // len(prompts))
                    self._overhead = max(self._overhead, beyond)  # if it was too low, the next bound is right
                return self._scores(reply, group)
        except EngineError as failure:
            return NothingCameBack(str(failure))

    def _body(self, question: str, group: Sequence[Texts]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model} if self._model else {}
        if self._form == "pooling":
            if self._process:
                body |= {"task": "token_classify", "add_generation_prompt": False, "continue_final_message": True}
            answer = {"role": "assistant", "content": self._marked(group[0])}
            return body | {"messages": [{"role": "user", "content": question}, answer]}
        solutions = ["".join(text) for text in group]
        if self._form == "score":
            return body | {"text_1": question, "text_2": solutions}
        if self._form == "classify":
            return body | {"input": [f"{question}\n\n{solution}" for solution in solutions]}
        return body | {"question": question, "solutions": solutions} | ({"steps": group} if self._process else {})

    def _marked(self, text: Texts) -> str:
        if not self._process:
            return "".join(text)
        return "".join(step.replace(_MARK, "").strip() + _MARK for step in text)

    def _scores(self, reply: Any, group: Sequence[Texts]) -> dict[Texts, float | None]:
        """The score of each path that the reply holds."""
        try:
            if self._form == "pooling":
                (answer,) = reply["data"]
                return self._of_rows(answer["data"], group)
            scores: list[float | None]
            if self._form in ("score", "classify"):
                data = sorted(reply["data"], key=lambda one: one.get("index", 0))  # stable where there is no index
                scores = [_number(one["score"]) if self._form == "score" else _class(one["probs"]) for one in data]
            else:
                scores = [None if score is None else _number(score) for score in reply["scores"]]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
            wanted = {"score": "data[].score", "classify": "data[].probs", "pooling": "data[].data"}
            raise EngineError(
                f"{self._named()} did not answer with {wanted.get(self._form, 'scores')}: is this the right address?"
            ) from None
        if len(scores) != len(group):
            raise EngineError(f"{self._named()} returned {len(scores)} scores for {len(group)} solutions.")
        return dict(zip(group, scores, strict=True))

    def _of_rows(self, rows: Any, group: Sequence[Texts]) -> dict[Texts, float | None]:
        if not isinstance(rows, list) or not rows:
            raise EngineError(
                f"{self._named()} returned no reward: a model that rewards marked steps is a PRM and not a verifier."
            )
        if self._process and len(rows) == len(group[0]):
            return {text: _class(rows[len(text) - 1]) for text in group}
        return {group[0]: _class(rows[-1])}

    def _named(self) -> str:
        return f"{self._endpoint.url}/{self._path}"


def _bytes(texts: Sequence[str]) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def _chains(texts: Sequence[Texts]) -> list[list[Texts]]:
    """The paths that no other one continues, each followed by those that it continues, in the order of the first."""
    chains: dict[Texts, list[Texts]] = {}
    for text in sorted(texts, key=len, reverse=True):
        longest = next((end for end in chains if end[: len(text)] == text), text)
        chains.setdefault(longest, []).append(text)
    place = {text: at for at, text in enumerate(texts)}
    return sorted(chains.values(), key=lambda chain: min(place[text] for text in chain))


def _class(row: Any) -> float:
    """The reward in a row of classes: the second of two, or the only one."""
    if not isinstance(row, list):
        return _number(row)
    if len(row) > 2:
        raise EngineError(f"A reward has one or two classes, and this model gives {len(row)}: serve another one.")
    return _number(row[-1])


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _usage(reply: Any) -> Usage | None:
    """What the server says it has read and written; None where it does not say."""
    told = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(told, dict) or not _count(told.get("prompt_tokens")):
        return None
    written: int = told["completion_tokens"] if _count(told.get("completion_tokens")) else 0
    return Usage(prompt=told["prompt_tokens"], completion=written)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
