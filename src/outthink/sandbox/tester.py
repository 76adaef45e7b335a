"""Runs tests on a program that is in another process: the verdict is made here, where the program cannot reach.

The tests are Python and run here. Names that they use and do not define are those of the prelude, save its classes and
what is to be tested, and then those of the program, which are asked for by name. To be tested is the entry point; where
there is none, all that the tests call. A name of Python itself is the program's only where the tests call nothing else.
"""

from __future__ import annotations

import ast
import builtins
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from outthink.sandbox.peer import Gone, Late, Peer, Remote, Unreadable


def run_tests(peer: Peer, plan: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
    """Run the tests of a plan one after the other and report on each; a program that has ended fails all that follow.

    Args:
        plan: "tests"; "prelude" and "names", which are never taken from it; "seconds" of CPU time of the program for
            each test, or None.
        report: called with {"ok": whether it passed, "error": one line or None}, once for each test, in order.
    """
    tests: list[str] = plan["tests"]
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        begun = peer.receive()
        if begun[0] != "ready":
            raise Unreadable(str(begun[1]))
        _prepare(peer, plan, vars(module))
    except BaseException as cause:
        for _ in tests:
            report({"ok": False, "error": line_of(cause)})
        if isinstance(cause, Gone):
            raise
        return
    for number, test in enumerate(tests):
        try:
            code = _compiled(test)
            if plan["seconds"] is not None:
                peer.ask("timer", plan["seconds"])
            exec(code, vars(module))
            if plan["seconds"] is not None:
                peer.ask("timer", 0)
        except (Gone, Unreadable) as cause:
            for _ in tests[number:]:
                report({"ok": False, "error": line_of(cause)})
            if isinstance(cause, Gone):
                raise
            return
        except BaseException as cause:
            report({"ok": False, "error": line_of(cause)})
        else:
            report({"ok": True, "error": None})


def line_of(cause: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(cause, Late):
        return "the test took too long"
    if isinstance(cause, Unreadable):
        return str(cause)[:500]
    if isinstance(cause, SystemExit):
        return f"exited with {cause.code} before its end"[:500]
    try:
        lines = "".join(traceback.format_exception_only(cause)).strip().splitlines()
        return (lines[-1] if isinstance(cause, SyntaxError) else lines[0])[:500]
    except Exception:
        return type(cause).__name__[:500]


def _compiled(source: str) -> types.CodeType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(source, "<test>", "exec", dont_inherit=True)


def _prepare(peer: Peer, plan: dict[str, Any], space: dict[str, Any]) -> None:
    """Put what the tests use where they look for it."""
    trees = [*_trees(plan["tests"])]
    prelude = [*_trees([plan["prelude"]])]
    wanted, called = _names(trees)
    classes: set[str] = set()
    asked = {*plan["names"]}
    if not called - vars(builtins).keys():
        asked |= called
    elif not asked:
        asked = called - vars(builtins).keys()
    if prelude:
        try:
            exec(_compiled(plan["prelude"]), space)
        except BaseException:  # it may need what only the program has
            space.clear()
            space["__name__"] = "__main__"
        else:
            classes = {
                name for name, value in space.items() if isinstance(value, type) and value.__module__ == "__main__"
            }
            for name in classes | asked:
                space.pop(name, None)
            wanted |= classes
    peer.modules = frozenset(wanted)
    own = {one.name for tree in trees for one in tree.body
           if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}  # fmt: skip
    for name in sorted(wanted | asked):
        if name in space or (name not in asked and (hasattr(builtins, name) or name in own)):
            continue
        try:
            space[name] = value = peer.ask("name", name)
        except NameError:
            continue
        if isinstance(value, Remote) and (name in classes or name[:1].isupper()):
            # A class as the tests see it: they are about what it does. Other names are those of functions, whatever the
            # program has made of them.
            peer.named.add(object.__getattribute__(value, "_place"))


def _trees(sources: Iterable[str]) -> Iterable[ast.Module]:
    for source in sources:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue


def _names(trees: Iterable[ast.Module]) -> tuple[set[str], set[str]]:
    """The names that sources read, and those that they call."""
    read: set[str] = set()
    called: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                read.add(node.id)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called.add(node.func.id)
    return read, called
