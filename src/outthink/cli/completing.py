"""What a shell completes: names of strategies, models, tasks, laws, scorers and kinds of answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from outthink.types import AnswerKind


def strategies(incomplete: str) -> list[str]:
    """Names of strategies."""
    from outthink.strategies import STRATEGIES

    return _beginning(incomplete, STRATEGIES)


def models(incomplete: str) -> list[str]:
    """Names of the catalogue; paths are completed by the shell."""
    from outthink.models import catalog

    return _beginning(incomplete, catalog.entries())


def tasks(incomplete: str) -> list[str]:
    """Names of published sets; paths are completed by the shell."""
    from outthink.tasks.published import PUBLISHED

    return _beginning(incomplete, PUBLISHED)


def laws(incomplete: str) -> list[str]:
    """Names of laws."""
    from outthink.reports.laws.table import LAWS

    return _beginning(incomplete, LAWS)


def scorers(incomplete: str) -> list[str]:
    """Names of scorers."""
    from outthink.rewards import SCORERS

    return _beginning(incomplete, SCORERS)


def answer_kinds(incomplete: str) -> list[str]:
    """Kinds of answers."""
    return _beginning(incomplete, get_args(AnswerKind))


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
