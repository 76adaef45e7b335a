"""What a key may spend: requests, tokens and US dollars in a minute, a day or a month, and requests at once.

They are written as `60-requests/minute,100k-tokens/day,20usd/month,8-concurrent`. Windows are fixed and in UTC: a
minute of the clock, a calendar day, a calendar month. So people can say when one begins, and every window begins empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from outthink.types import Budget

SPANS = ("minute", "day", "month")
NOW = "now"
"""The span of what is limited at any moment."""
REQUESTS, CONCURRENT = "requests", "concurrent"
_UNITS = ("requests", "tokens", "usd")
_LONGEST = 500  # characters of all limits of a key


@dataclass(frozen=True, slots=True)
class Allowance:
    """The most of one unit that is spent in each window of a span.

    Args:
        unit: "requests", "tokens", "usd", or "concurrent" with the span NOW.
        span: one of SPANS, or NOW.
        amount: above 0.
    """

    unit: str
    span: str
    amount: float

    def began(self, now: float) -> int:
        """When the window of a moment began; both are seconds since 1970."""
        if self.span == NOW:
            return 0
        if self.span == "month":
            today = datetime.fromtimestamp(now, UTC)
            return int(datetime(today.year, today.month, 1, tzinfo=UTC).timestamp())
        length = 60 if self.span == "minute" else 86400
        return int(now // length) * length

    def ends(self, now: float) -> float:
        """When the window of a moment ends; of what is limited at any moment, a second later."""
        if self.span == NOW:
            return now + 1
        if self.span != "month":
            return self.began(now) + (60 if self.span == "minute" else 86400)
        today = datetime.fromtimestamp(now, UTC)
        following = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
        return datetime(*following, 1, tzinfo=UTC).timestamp()

    def __str__(self) -> str:
        amount = f"{self.amount:.15g}{'' if self.unit == 'usd' else '-'}{self.unit}"
        return amount if self.span == NOW else f"{amount}/{self.span}"

    @property
    def told(self) -> str:
        """In words: 60 requests a minute."""
        amount = f"{self.amount:,.12g} {self.unit}"
        return f"{self.amount:,.12g} requests at once" if self.span == NOW else f"{amount} a {self.span}"


def read_allowances(text: str) -> tuple[Allowance, ...]:
    """The limits in a text; raises ValueError with the accepted form. An empty text is no limit."""
    form = "write limits like 60-requests/minute,100k-tokens/day,20usd/month,8-concurrent"
    if len(text) > _LONGEST:
        raise ValueError(f"these limits are too long; {form}")
    limits: dict[tuple[str, str], Allowance] = {}
    for part in filter(None, text.split(",")):
        amount, per, span = part.strip().partition("/")
        try:
            ((unit, most),) = Budget.parse(amount, (REQUESTS, CONCURRENT)).limits.items()
        except ValueError:
            raise ValueError(f"cannot read the limit {part.strip()!r}; {form}") from None
        span = span if per else NOW
        if (span == NOW) != (unit == CONCURRENT) or (span != NOW and (span not in SPANS or unit not in _UNITS)):
            raise ValueError(f"cannot read the limit {part.strip()!r}; {form}")
        if unit in (REQUESTS, CONCURRENT) and most < 1:
            raise ValueError(f"a limit of {most:g} {unit} lets nobody in; revoke the key instead")
        if (unit, span) in limits:
            raise ValueError(f"the limits name {unit}{'' if span == NOW else f' a {span}'} twice; give each once")
        limits[unit, span] = Allowance(unit, span, most)
    return tuple(limits.values())


def written(limits: Iterable[Allowance]) -> str:
    """The limits as `read_allowances` reads them."""
    return ",".join(map(str, limits))
