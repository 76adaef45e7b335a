"""Rows of a file: JSON objects one a line or in one list, or a table with a header (CSV, TSV), each with its line.

Source: none. Differs: a number keeps the digits that are written in the file, so that no answer is rounded and none is
too long; UTF-8 and UTF-16 with a byte order mark are read, and any line ends.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outthink.errors import UsageError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
"""Endings of the files that are read."""

MAX_DEPTH = 100
"""Levels of lists and objects in an answer, as many as a reply may have."""

_LONG = 4000  # digits; of more Python itself makes no int
_OBJECT = "expected an object with 'question' and 'answer'"


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a file that is no int: its text there, such as 0.10, 1e400, NaN, or an integer of 5,000 digits."""

    text: str

    def finite(self) -> bool:
        """Whether it is a number at all, and not too large for a float, save where it is an integer."""
        return self.text.lstrip("-").isdigit() or math.isfinite(float(self.text))

    def plain(self) -> float | str:
        """As Python has it: a float; an integer as its text."""
        return self.text if self.text.lstrip("-").isdigit() else float(self.text)


def rows(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(number, where in the file, object) of every row; fields without a value in a table are None.

    Rows are counted by the line on which they begin, as "line 3"; those of a list of which several begin on one line
    by their order, as "entry 3". Numbers are int, or Number.

    Raises UsageError that says where what cannot be read is, or that there is none.
    """
    none = True
    for number, spot, row in _rows(path, _text(path)):
        none = False
        yield number, spot, row
    if none:
        raise UsageError(f"{path.name} holds no questions")


def _rows(path: Path, text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    begin = len(text) - len(text.lstrip())
    if begin == len(text):
        return
    if path.suffix.lower() in (".csv", ".tsv"):
        yield from _table(path.name, text, "," if path.suffix.lower() == ".csv" else "\t")
        return
    if text[begin] == "[":
        place: int | None = begin
    else:
        place = _only_list(text, begin) if path.suffix.lower() == ".json" else None
    if place is not None:
        yield from _list(path.name, text, place)
        return
    if path.suffix.lower() == ".json":
        row = _whole(text)
        if isinstance(row, dict):
            yield _on_line(path.name, text.count("\n", 0, begin) + 1, row)
            return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _on_line(path.name, number, _value(path.name, number, line, 0)[0])


def _on_line(name: str, number: int, value: Any) -> tuple[int, str, dict[str, Any]]:
    return number, (spot := f"line {number}"), _object(value, name, spot)


def plain(value: Any) -> Any:
    """A value of a row without Number, for what only passes it on."""
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    return value.plain() if isinstance(value, Number) else value


def missing(value: Any) -> bool:
    """Whether a field has no value: null, or the NaN that tables are exported with."""
    return value is None or (isinstance(value, Number) and value.text == "NaN")


def written(value: Any) -> str | None:
    """A text, a number or a truth value as a text without white space around it; None for all else.

    Raises ValueError for a number that is none, such as NaN or 1e400.
    """
    if isinstance(value, Number):
        if not value.finite():
            raise ValueError(f"{value.text} is not a number that an answer can be")
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip() if isinstance(value, str | int | float) else None


def json_text(value: Any, depth: int = 0) -> str:
    """A value of a row as JSON; raises ValueError for NaN and its like, and where it is nested too deeply."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{json_text(one, depth + 1)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(json_text(one, depth + 1) for one in value) + "]"
    if isinstance(value, Number):
        return written(value) or ""
    return json.dumps(value, ensure_ascii=False)


def loads(text: str) -> Any:
    """The value of a JSON text, with numbers as in rows; raises ValueError or RecursionError where it is none."""
    return json.loads(text, parse_int=_integer, parse_float=Number, parse_constant=Number)


def _integer(text: str) -> int | Number:
    return int(text) if len(text) < _LONG else Number(text)


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=Number, parse_constant=Number)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from error
    code = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(code)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"Cannot read {path}: line {line} is not {code[:5].upper()}; save the file as UTF-8."
        ) from error


def _value(name: str, number: int, text: str, place: int) -> tuple[Any, int]:
    """(JSON value that begins at `place`, where it ends), where nothing else follows on a line of its own."""
    try:
        if place == 0 and "\n" not in text:  # a line: nothing may follow
            return loads(text), len(text)
        return _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        raise UsageError(f"{name}, line {number}: this is not JSON ({error.msg} at column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}, line {number}: this is not JSON that can be read ({error})") from error


def _object(value: Any, name: str, spot: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{name}, {spot}: {_OBJECT}")
    return value


def _whole(text: str) -> Any:
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return None


def _only_list(text: str, begin: int) -> int | None:
    """Where the one list of objects begins that a JSON object holds; None where it is another object, or none."""
    lists, place = [], begin + 1
    try:
        while True:
            place = _skip(text, place, ",")
            if text[place] == "}":
                break
            _, place = _DECODER.raw_decode(text, place)
            value_at = _skip(text, place, ":")
            value, place = _DECODER.raw_decode(text, value_at)
            if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
                lists.append(value_at)
        return lists[0] if len(lists) == 1 and not text[place + 1 :].strip() else None
    except (ValueError, RecursionError, IndexError):
        return None


def _list(name: str, text: str, place: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    values = list(_values(name, text, place))
    if len({number for number, _ in values}) == len(values):
        yield from (_on_line(name, number, value) for number, value in values)
        return
    for entry, (_, value) in enumerate(values, 1):  # as in a file that is one line, where lines tell nothing
        yield entry, (spot := f"entry {entry}"), _object(value, name, spot)


def _values(name: str, text: str, place: int) -> Iterator[tuple[int, Any]]:
    """(line on which it begins, value) of all that a list holds."""
    number, counted = 1, 0
    place = _skip(text, place + 1, "")
    while text[place : place + 1] != "]":
        number, counted = number + text.count("\n", counted, place), place
        if place >= len(text):
            raise UsageError(f"{name}, line {number}: the list that begins with [ has no end")
        value, end = _value(name, number, text, place)
        yield number, value
        after = _skip(text, end, "")
        if text[after : after + 1] not in (",", "]"):
            number += text.count("\n", counted, after)
            raise UsageError(f"{name}, line {number}: this is not JSON (expected a comma or ] between two rows)")
        place = _skip(text, after + (text[after] == ","), "")


def _skip(text: str, place: int, mark: str) -> int:
    """The next place that is neither white space nor `mark`."""
    while place < len(text) and (text[place] in " \t\r\n" or (mark and text[place] == mark)):
        place += 1
    return place


def _table(name: str, text: str, delimiter: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    begin = 1
    try:
        for cells in table:
            number, begin = begin, table.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header):
                    raise UsageError(f"{name}, line {number}: two columns have the same name")
                continue
            if len(cells) != len(header):
                raise UsageError(f"{name}, line {number}: {len(cells)} cells, but the header has {len(header)}")
            yield _on_line(name, number, {column: cell or None for column, cell in zip(header, cells, strict=True)})
    except csv.Error as error:
        raise UsageError(f"{name}, line {begin}: this cannot be read as a table ({error})") from error
