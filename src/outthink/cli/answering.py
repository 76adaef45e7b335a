"""The command answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outthink.cli.given import given_kind
from outthink.cli.options import AnswerOption, JsonOption
from outthink.cli.shown import note, one_line, print_json, print_table
from outthink.errors import UsageError

if TYPE_CHECKING:
    from outthink.types import AnswerKind

_SHOWN = 20  # replies, where no limit is given
_WIDE = 60  # characters of an answer, and of the end of a reply


def answers(
    file: Annotated[
        Path, typer.Argument(help="A run directory, a pool, a .jsonl of traces or texts, or a text file; - is a text.")
    ],
    answer: AnswerOption = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Show only the first so many replies: 20 by default, all as JSON.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how each reply was read: its answer, and by which rule.

    All replies are counted. Without --answer they are read as the kind that their recorded answers are of.
    """
    from outthink.reports.reading import counted, doubt, kind_of, replies, rule_of

    every = replies(file)
    first = list(islice(every, 200))
    if not first:
        raise UsageError(f"{file} holds no replies.")
    kind: AnswerKind = kind_of(first) if answer is None else given_kind(answer)
    most = limit if limit is not None else None if as_json else _SHOWN
    rules: Counter[str] = Counter()
    shown: list[dict[str, str | int | None]] = []
    total = cut_off = 0
    for reply in chain(first, every):
        total += 1
        read, rule = rule_of(kind, reply.text) if reply.complete else (None, "cut off")
        cut_off += not reply.complete
        rules[rule] += reply.complete
        if most is None or len(shown) < most:
            ends = one_line(reply.text[-4 * _WIDE :])
            shown.append(
                {
                    "problem": reply.problem,
                    "sample": reply.sample,
                    "rule": rule,
                    "answer": read,
                    "ends": ends[-_WIDE:],
                }
            )
    _add_keys(shown, kind)
    counts = {rule: count for rule, count in rules.most_common() if count}
    warning = doubt(counts)
    if as_json:
        print_json({"kind": kind, "replies": shown, "rules": counts, "cut_off": cut_off, "doubt": warning})
        return
    if shown:
        from rich.markup import escape
        from rich.table import Table

        table = Table("reply", "rule", "answer", "key", "ends with", box=None, pad_edge=False)
        for row in shown:
            cells = [one_line(f"{row['problem']} #{row['sample']}"), one_line(str(row["rule"]))]
            cells += [_short(row[name]) for name in ("answer", "key", "ends")]
            table.add_row(*map(escape, cells))
        print_table(table)
    if total > len(shown):
        typer.echo(f"... and {total - len(shown)} more (--limit {total} shows all).")
    typer.echo(f"{total} {'reply' if total == 1 else 'replies'}, read as {kind}: {counted(counts, cut_off)}.")
    if warning is not None:
        note(warning)


def _short(text: str | int | None) -> str:
    line = one_line(str("-" if text is None else text)[: 4 * _WIDE])
    return line if len(line) <= _WIDE else line[: _WIDE - 3] + "..."


def _add_keys(rows: list[dict[str, str | int | None]], kind: AnswerKind) -> None:
    """The canonical key of each answer, by which answers are compared; one without a key does not vote."""
    from outthink.answers.reader import Reader

    async def go() -> None:
        reader = Reader()
        try:
            for row in rows:
                read = row["answer"]
                row["key"] = await reader.key(kind, read) if isinstance(read, str) else None
        finally:
            await reader.close()

    asyncio.run(go())
