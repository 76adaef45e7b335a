"""Public names of the source that nothing in it mentions, so that only tests can call them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

CALLED = {"property", "cached_property", "staticmethod", "classmethod", "cache", "lru_cache", "override"}
"""Decorators after which somebody must still call the function; others, as of commands and routes, hand it on."""

Owner = tuple[str, ...]
"""A function, a class, or a class and its method; nothing at the top of a module."""


class Mention(NamedTuple):
    """A name that is mentioned: of which module, None for an attribute of anything, and who mentions it where."""

    home: str | None
    name: str
    module: str
    owner: Owner


class _Reader(ast.NodeVisitor):
    """The public names of one module, and what it mentions."""

    def __init__(self, module: str, tree: ast.Module, modules: Iterable[str]) -> None:
        self.module = module
        self.owner: Owner = ()
        self.public: list[Owner] = []
        self.mentions: list[Mention] = []
        self._names: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._modules: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    if inner in modules:
                        self._modules[alias.asname or alias.name] = inner
                    else:
                        self._names[alias.asname or alias.name].add((node.module, alias.name))
        for statement in tree.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._names[statement.name].add((module, statement.name))
        self.visit(tree)

    def visit(self, node: ast.AST) -> None:
        """What stands inside of a function belongs to it."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._define(node)
            return
        if isinstance(node, ast.Name):
            self._add(*self._names.get(node.id, ()))
        elif isinstance(node, ast.Attribute):
            self._add((None, node.attr))
            if isinstance(node.value, ast.Name):
                if node.value.id in self._modules:
                    self._add((self._modules[node.value.id], node.attr))
                elif node.value.id == "module":  # one of several, imported by its name
                    self._add(("", node.attr))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # tables name what they open
            home, colon, names = node.value.partition(":")
            if colon and re.fullmatch(r"[\w.]+", names):
                self._add(*((home, name) for name in names.split(".")), *((None, name) for name in names.split(".")))
            elif node.value.isidentifier():
                self._add((None, node.value))
        self.generic_visit(node)

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        outer = self.owner
        if not outer or (len(outer) == 1 and outer[0].lstrip("_")[:1].isupper()):
            self.owner = (*outer, node.name)
            decorators = {
                ast.unparse(one).partition("(")[0].rpartition(".")[2] or ast.unparse(one) for one in node.decorator_list
            }
            handed_on = not isinstance(node, ast.ClassDef) and decorators - CALLED
            if not handed_on and not any(name.startswith("_") for name in self.owner):
                self.public.append(self.owner)
        for child in ast.iter_child_nodes(node):
            if child not in node.decorator_list:
                self.visit(child)
        self.owner = outer

    def _add(self, *names: tuple[str | None, str]) -> None:
        self.mentions += [Mention(home, name, self.module, self.owner) for home, name in names]


def shown(pages: Iterable[Path]) -> set[str]:
    """What pages show to who uses the library: imported in their examples, or written as a call."""
    names: set[str] = set()
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom):
                    names |= {alias.name for alias in node.names}
        names |= set(re.findall(r"`(?:[\w.]+\.)?(\w+)\(", text))
    return names


def without_caller(modules: Mapping[str, Path], pages: Iterable[Path], allowed: Iterable[str]) -> list[str]:
    """Public names that are mentioned only by themselves, or by others that nothing mentions."""
    read = [
        _Reader(module, ast.parse(path.read_text(encoding="utf-8")), modules.keys()) for module, path in modules.items()
    ]
    known = shown(pages) | set(allowed)
    mentions: dict[tuple[str | None, str], set[Mention]] = defaultdict(set)
    for reader in read:
        for mention in reader.mentions:
            mentions[mention.home, mention.name].add(mention)
    lonely: set[tuple[str, Owner]] = set()

    def is_called(module: str, owner: Owner) -> bool:
        homes: tuple[str | None, ...] = (module, "") if len(owner) == 1 else (None,)
        return any(
            (mention.module, mention.owner[: len(owner)]) != (module, owner)
            and not any((mention.module, mention.owner[:size]) in lonely for size in (1, 2))
            for home in homes
            for mention in mentions[home, owner[-1]]
        )

    left = [(reader.module, owner) for reader in read for owner in reader.public if owner[-1] not in known]
    while new := {one for one in left if one not in lonely and not is_called(*one)}:
        lonely |= new
    return sorted(f"{module}.{'.'.join(owner)}" for module, owner in lonely)
