"""Reads directed graphs in Graphviz DOT as a model writes them: nodes with their attributes, and edges.

Source: the grammar of the DOT language (graphviz.org), from memory. Differs: an undirected edge goes from the first
node to the second; a `#` after a space begins a comment, too; ports are left out; nesting and the number of edges have
limits.

The time it takes is in proportion to the length of the text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_BEGIN = re.compile(r"\b(?:di)?graph\b[^{}]{0,200}\{", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```.*$", re.MULTILINE)
_BLANK = re.compile(r"\s+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_WORD = re.compile(r"-?\.\d+|-?\d+\.\d*|-?\w+")
_MARKS = frozenset("{}[];,=:+")
_ARROWS = ("->", "--")
_DEEPEST = 50
_MOST_EDGES = 100_000
_TRIES = 8  # beginnings that are looked at


@dataclass(slots=True)
class Graph:
    """Nodes by name in the order in which they are first named, each with its attributes; and edges.

    Names of attributes are in small letters; values are as written, without quotes.
    """

    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)


def read_dot(text: str) -> Graph | None:
    """The last graph in a text, which may have other words around it; None where there is none that can be read.

    A text without `graph ... {` is read as the inside of a graph.
    """
    last, start = None, 0
    for _ in range(_TRIES):
        begin = _BEGIN.search(text, start)
        if begin is None:
            break
        start = begin.end()
        try:
            reading = _Reading(_tokens(text, start))
            reading.statements({}, 0)
            last, start = reading.graph, reading.end
        except ValueError:
            continue
    if last is not None or _BEGIN.search(text):
        return last
    try:
        reading = _Reading(_tokens(_FENCE.sub("", text), 0))
        reading.statements({}, 0)
    except ValueError:
        return None
    return reading.graph if reading.graph.nodes else None


Token = tuple[str, str, int]
"""(a mark, an arrow, "word", "name" or "end"; its text; where it ends): a "word" may be a word of the language."""


def _tokens(text: str, at: int) -> list[Token]:
    """The tokens from a place to the `}` that closes what is open there, or to the end of the text.

    Raises ValueError where it is no DOT.
    """
    tokens: list[Token] = []
    depth = 0
    while at < len(text):
        if blank := _BLANK.match(text, at):
            at = blank.end()
        elif text.startswith("//", at) or (text[at] == "#" and (at == 0 or text[at - 1].isspace())):
            at = text.find("\n", at) % (len(text) + 1)
        elif text.startswith("/*", at):
            at = text.index("*/", at + 2) + 2
        elif text.startswith(_ARROWS, at):
            tokens.append((text[at : at + 2], "", at + 2))
            at += 2
        elif text[at] in _MARKS:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
            if depth < 0:
                tokens.append(("end", "", at))
                return tokens
            tokens.append((text[at - 1], "", at))
        elif text[at] == "<":
            end = _closing(text, at)
            tokens.append(("name", text[at + 1 : end - 1], end))
            at = end
        elif quoted := _QUOTED.match(text, at):
            at = quoted.end()
            tokens.append(("name", re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), at))
        elif word := _WORD.match(text, at):
            at = word.end()
            tokens.append(("word", word[0], at))
        else:
            raise ValueError(f"this is no DOT: {text[at : at + 20]!r}")
    tokens.append(("end", "", at))
    return tokens


def _closing(text: str, at: int) -> int:
    """Where the string in angle brackets that begins here has ended."""
    depth = 0
    for mark in re.compile("[<>]").finditer(text, at):
        depth += 1 if mark[0] == "<" else -1
        if depth == 0:
            return mark.end()
    raise ValueError("a string in angle brackets does not end")


class _Reading:
    """Reads tokens into a graph; every method raises ValueError where they are no DOT."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.graph = Graph()
        self.end = tokens[-1][2]
        """Where the graph ends in its text."""
        self._tokens = tokens
        self._at = 0

    def statements(self, defaults: Mapping[str, str], depth: int) -> list[str]:
        """Read up to the next `}` that nothing here opens, or the end; the names of the nodes in between.

        Args:
            defaults: attributes of nodes that are first named here.
        """
        if depth > _DEEPEST:
            raise ValueError("subgraphs lie too deep in each other")
        inside: dict[str, None] = {}
        while (kind := self._kind()) not in ("end", "}"):
            word = self._tokens[self._at][1].lower() if kind == "word" else ""
            if kind in ";,":
                self._at += 1
            elif word in ("node", "edge", "graph") and self._kind(1) == "[":
                self._at += 1
                attributes = self._attributes()
                defaults = {**defaults, **attributes} if word == "node" else defaults
            elif kind in ("word", "name") and self._kind(1) == "=":
                self._at += 2
                self._name()
            else:
                inside.update(dict.fromkeys(self._nodes_or_edges(defaults, depth)))
        if depth and self._kind() != "}":
            raise ValueError("a subgraph does not end")
        return list(inside)

    def _nodes_or_edges(self, defaults: Mapping[str, str], depth: int) -> list[str]:
        """One statement with nodes, or edges between them."""
        ends = [self._operand(defaults, depth)]
        while self._kind() in _ARROWS:
            self._at += 1
            ends.append(self._operand(defaults, depth))
        attributes = self._attributes()
        if len(ends) == 1:
            for name in ends[0]:
                self.graph.nodes[name].update(attributes)
        for starts, stops in itertools.pairwise(ends):
            if len(self.graph.edges) + len(starts) * len(stops) > _MOST_EDGES:
                raise ValueError("there are too many edges")
            self.graph.edges += itertools.product(starts, stops)
        return [name for names in ends for name in names]

    def _operand(self, defaults: Mapping[str, str], depth: int) -> list[str]:
        """A subgraph, or nodes with commas between them."""
        if self._kind() == "word" and self._tokens[self._at][1].lower() == "subgraph":
            self._at += 1
            if self._kind() in ("word", "name"):
                self._name()
        if self._kind() == "{":
            self._at += 1
            inside = self.statements(defaults, depth + 1)
            self._at += 1
            return inside
        names = [self._node(defaults)]
        while self._kind() == "," and self._kind(1) in ("word", "name"):
            self._at += 1
            names.append(self._node(defaults))
        return names

    def _node(self, defaults: Mapping[str, str]) -> str:
        name = self._name()
        while self._kind() == ":":  # ports, which say where an edge touches
            self._at += 1
            self._name()
        self.graph.nodes.setdefault(name, dict(defaults))
        return name

    def _attributes(self) -> dict[str, str]:
        """Lists of attributes in brackets, if there are any."""
        attributes: dict[str, str] = {}
        while self._kind() == "[":
            self._at += 1
            while self._kind() != "]":
                if self._kind() in (",", ";"):
                    self._at += 1
                    continue
                name = self._name().lower()
                value = ""
                if self._kind() == "=":
                    self._at += 1
                    value = self._name()
                attributes[name] = value
            self._at += 1
        return attributes

    def _name(self) -> str:
        if self._kind() not in ("word", "name"):
            raise ValueError("a name is missing")
        parts = [self._tokens[self._at][1]]
        self._at += 1
        while self._kind() == "+" and self._kind(1) == "name":  # quoted strings may be put together
            parts.append(self._tokens[self._at + 1][1])
            self._at += 2
        return "".join(parts)

    def _kind(self, ahead: int = 0) -> str:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)][0]
