"""Reading, comparing and grading answers."""

from outthink.answers.reader import Reader

__all__ = ["Reader"]
