"""The answers to one request as they come: those that were asked for, those that were not, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outthink.models.engine import Completion, Progress
from outthink.models.facts import Told, told
from outthink.models.openai.writing import Writing

_PAST = 8  # tokens beyond a cap that may be a matter of counting
_LONG = 32  # bytes of a token on the mean, beyond which a text is past its cap however it is counted
_SHORT = 4096  # bytes of a text that may be a few long tokens
_USUAL = frozenset({"index", "delta", "finish_reason", "logprobs"})  # of a choice of an event


@dataclass(slots=True, eq=False)
class Answers:
    """What comes back for the children of one request.

    Args:
        writing: the children.
        surplus: answers that were not asked for; they are nobody's, but somebody has to pay for them.
        usage: what the server tells of all of them; None until it does.
        settled: the last that came was usage, without anything written, as at the end of a stream.
        closed: the stream was closed since it went on beyond what was asked for.
        whole: everything has come.
        told: children that were told as ended, while others are written: what they said then is their answer.
    """

    writing: Sequence[Writing]
    surplus: dict[tuple[int, int], Writing] = field(default_factory=dict)
    usage: Told | None = None
    settled: bool = False
    closed: bool = False
    whole: bool = False
    told: dict[int, Completion] = field(default_factory=dict)
    _own: int | None = None
    _touched: list[Writing] = field(default_factory=list)
    """Those that the last event has added to."""
    _over: list[Writing] = field(default_factory=list)
    """Those that it says something of and that have ended."""

    @property
    def every(self) -> list[Writing]:
        """All of them, those that were not asked for last."""
        return [*self.writing, *self.surplus.values()]

    def least(self) -> int:
        """The fewest tokens that all of them can have; one below the first is counted, but proves nothing."""
        numbered = [written for (place, _), written in self.surplus.items() if place >= 0]
        return sum(written.least() for written in (*self.writing, *numbered))

    def read(self, event: Any) -> None:
        """Add what an answer, or a piece of one, says.

        Raises AttributeError, TypeError, ValueError, KeyError or OverflowError where it has another shape.
        """
        choices: Any = event.get("choices") or ()
        if len(choices) == 1 and not event.get("usage") and "x_groq" not in event and self._read_text(choices[0]):
            return
        taken: set[int] = set()
        wrote = False
        self._touched.clear()
        self._over.clear()
        for position, choice in enumerate(choices):
            written = self._writing(choice, position, taken)
            before = written.tokens
            written.add(choice)
            if written.tokens > before:
                wrote = True
                self._touched.append(written)
            if written.finish is not None:
                self._over.append(written)
        usage = told(event)
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage | usage
            self._share_thoughts()
        self.settled = not wrote and (usage is not None or self.settled)

    def _read_text(self, choice: Any) -> bool:
        """Add a piece that is nothing but text, as nearly all are; False: it has to be looked at."""
        delta = choice.get("delta")
        if type(delta) is not dict or len(delta) != 1 or not choice.keys() <= _USUAL:
            return False
        content, index = delta.get("content"), choice.get("index")
        if type(content) is not str or not content or type(index) is not int:
            return False
        if choice.get("finish_reason") is not None or choice.get("logprobs"):
            return False
        place = index if len(self.writing) > 1 else 0 if index == self._own else -1
        if not 0 <= place < len(self.writing):
            return False
        written = self.writing[place]
        if written.ids or written.logprobs or written.finish is not None:
            return False
        written.add_text(content, choice)
        self._touched[:] = (written,)
        self._over.clear()
        self.settled = False
        return True

    def finish(self, cap: int) -> None:
        """The stream has come to its end: what has not said why it ended has ended there."""
        for written in self.writing:
            if written.end is None and written.events + len(written.ids) > 0:
                alone = len(self.writing) == 1 and not self.surplus and self.usage is not None
                count = (self.usage.completion or 0) if alone and self.usage else 0
                full = max(count, written.tokens if written.counted else 0) >= cap
                written.finish = "length" if full else "stop"
        self.whole = True

    def over(self) -> list[Writing]:
        """Children that the last event has ended while others are written, and that somebody wants to be told of."""
        if not self._over or len(self.writing) < 2:
            return []
        return [one for one in self._over if one.progress.ended is not None and one.child not in self.told]

    def past(self, cap: int) -> bool:
        """Whether the server writes on beyond the cap, so that nothing more can be expected of it."""
        for one in self._touched:
            if (one.tokens > cap + _PAST or one.size > _SHORT + _LONG * cap) and one.end is None:
                break
        else:
            return False
        far = any(
            written.tokens > 2 * (cap + _PAST) or written.size > 2 * _LONG * cap + _SHORT for written in self.every
        )
        return far or all(written.end is not None or written.tokens >= cap for written in self.writing)

    def close(self, cap: int) -> None:
        """Left, since it was past its cap: what has reached the cap counts as cut off by it."""
        self.closed = True
        for written in self.writing:
            if written.end is None and (written.tokens >= cap or written.size > _LONG * cap):
                written.finish = "length"

    def _writing(self, choice: Mapping[str, Any], position: int, taken: set[int]) -> Writing:
        """Whose answer a choice is."""
        whole = not choice.get("delta") and bool(choice.get("message"))
        place = self._place(choice, position, whole)
        if 0 <= place < len(self.writing) and not (whole and place in taken):
            taken.add(place)
            return self.writing[place]
        key = (place, position if whole else 0)
        if key not in self.surplus:
            self.surplus[key] = Writing(Progress(n=1), 0)
        return self.surplus[key]

    def _place(self, choice: Mapping[str, Any], position: int, whole: bool) -> int:
        index: Any = choice.get("index", position if whole else 0)
        if len(self.writing) > 1:
            return index  # type: ignore[no-any-return]  # what is no number is an answer of another shape
        if type(index) is not int:
            return position
        if self._own is None:
            self._own = index  # the only one, whatever its number
        return 0 if index == self._own else (index if index > 0 else -1)

    def _share_thoughts(self) -> None:
        reasoning = 0 if self.usage is None else self.usage.reasoning
        for place, written in enumerate(self.writing):
            written.reasoning = (reasoning + place) // len(self.writing)  # nobody says of which child they are


def watched(progress: Progress, group: Sequence[int], near: int = 0, *, keeps: bool = True) -> Answers:
    """Answers for the children of `group`, of which `progress` hears; `near` and `keeps` are as in `Writing`."""
    return Answers([Writing(progress, position, near, keeps) for position in group])
