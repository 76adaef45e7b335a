"""The ledger of a trace: what was spent, on what."""

from __future__ import annotations

from dataclasses import dataclass, field

from outthink.types import Call, Trace, Usage


@dataclass(slots=True)
class Line:
    """Sum of the calls of one kind and role."""

    kind: str
    role: str
    calls: int = 0
    children: int = 0
    failed: int = 0
    cancelled: int = 0
    usage: Usage = field(default_factory=Usage)
    exact: bool = True
    cost: dict[str, float] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        """Count one call."""
        self.calls += 1
        self.children += call.n
        self.failed += call.failed
        self.cancelled += call.n if call.outcome == "cancelled" else 0
        self.usage = self.usage + call.charged
        self.exact = self.exact and call.exact
        for unit, amount in call.cost.items():
            self.cost[unit] = self.cost.get(unit, 0.0) + amount


def ledger(trace: Trace) -> list[Line]:
    """One line per kind and role, in order of first appearance; together they are all that was charged."""
    lines: dict[tuple[str, str], Line] = {}
    for call in trace.calls:
        lines.setdefault((call.kind, call.role), Line(call.kind, call.role)).add(call)
    return list(lines.values())
