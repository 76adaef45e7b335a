"""Threads that spawn others and wait for them: all their tokens, and those that must be written one after the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Thread:
    """A thread and its rounds of children, which run side by side.

    Args:
        tokens: written by itself.
        rounds: the children of each round; the thread waits for all of one before it goes on.
    """

    tokens: int
    rounds: tuple[tuple[Thread, ...], ...] = ()

    @property
    def total(self) -> int:
        """Tokens of all threads."""
        return self.tokens + sum(child.total for children in self.rounds for child in children)

    @property
    def sequential(self) -> int:
        """Tokens of the longest dependent chain."""
        return self.tokens + sum(max((child.sequential for child in children), default=0) for children in self.rounds)

    def note(self) -> str:
        """Both, as a sentence for a trace."""
        return f"{self.total} tokens written in all, {self.sequential} of them one after the other"
