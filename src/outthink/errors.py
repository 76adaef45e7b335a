"""Every exception that Outthink raises on purpose.

OutthinkError                one clear sentence that says what to do
├── UsageError               the caller asked for something that cannot be done; nothing was spent
│   ├── UnknownName          no such strategy, model, task ...; names the nearest
│   ├── MissingResource      the strategy needs a resource that was not given
│   ├── Uncounted            a budget is in a unit that nothing here counts; says what would
│   ├── Unidentified         these data cannot say what the parameters of a law are
│   └── Unaffordable         this problem cannot be begun as asked; others may
│       ├── BudgetTooSmall   not even one sample fits; names the smallest budget that would do
│       └── PromptTooLong    the prompt and its answer do not fit the model's context
├── BudgetExhausted          raised inside a strategy when nothing of a batch could be started
├── EngineError              a model, verifier or other resource failed
│   ├── Refused              a server refused the request, so that it produced nothing
│   │   └── Unsent           the request was given up here before it was sent, for which no server can be blamed
│   ├── Withheld             a server kept an answer back, because a filter found something in it
│   └── NothingCameBack      a whole batch failed; `solve` raises it only if the trace holds no answer at all
└── CatalogError             a model file could not be fetched or is not what it should be
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outthink.types import Trace

_LONGEST = 500  # characters of a name that are looked at
_SECRET = re.compile(r"(?<![^\s/])[^\s/:]*:[^\s]*@|\?\S*")  # a user and a password, a query


class OutthinkError(Exception):
    """Base of all; its text is one sentence for people.

    `trace` holds what was paid for, where `solve` raised it after spending something.
    """

    trace: Trace | None = None


class UsageError(OutthinkError):
    """The request cannot be carried out as given; nothing was spent."""


class UnknownName(UsageError):
    """There is no such strategy, model, task or verifier."""

    def __init__(self, what: str, name: str, known: Iterable[str], *, now: str | None = None) -> None:
        """Tell what it is called now where that is known, else what is near or known."""
        known = sorted(known)
        name = name if len(name) <= _LONGEST else name[:_LONGEST] + "..."
        name = _SECRET.sub("", name)  # an address may stand where a name belongs
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
        if now is not None:
            hint = f"it is called {now!r} now."
        super().__init__(f"There is no {what} {name!r}; {hint}")


class MissingResource(UsageError):
    """A strategy names a resource in its signature that nobody supplied."""


class Uncounted(UsageError):
    """A budget is in a unit that nothing here counts, or in dollars where a price is not known."""


class Unidentified(UsageError):
    """The data cannot identify the parameters of a law; the sentence says which, and what would."""


class Unaffordable(UsageError):
    """This one problem cannot be begun as asked; others may."""


class BudgetTooSmall(Unaffordable):
    """The worst case of a single sample exceeds the budget."""


class PromptTooLong(Unaffordable):
    """The prompt and what may be written do not fit the model's context."""


class BudgetExhausted(OutthinkError):
    """Nothing of a batch fits into what is left of the budget."""


class EngineError(OutthinkError):
    """A model, verifier or other resource failed; the text is for people and never becomes an answer."""


class Refused(EngineError):
    """A server was not reached, or answered that it will not; nothing was produced, and nothing is charged.

    Args:
        status: of HTTP; 0 where there was no answer.
        retry_after: seconds that the server asks to wait; None where it does not say.
    """

    def __init__(self, sentence: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_after = retry_after


class Unsent(Refused):
    """A request was cancelled before it was sent: it produced nothing, and the server has not failed."""


class Withheld(EngineError):
    """A server kept an answer back that it had written, because a filter found something in it."""


class NothingCameBack(EngineError):
    """Every child of a batch failed; its cause is the failure of the first."""


class CatalogError(OutthinkError):
    """A model file could not be fetched, checked or written."""
