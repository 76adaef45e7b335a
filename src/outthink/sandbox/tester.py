"""Runs tests on a program that is in another process: the verdict is made here, where the program cannot reach.

The tests are Python and run here. Names that they use and do not define are those of the prelude, save its classes and
what is to be tested, and then those of the program, which are asked for by name. To be tested is the entry point; where
there is none, all that the tests call. A name of Python itself is the program's only where the tests call nothing else,
and a module of the standard library is the real one, whatever the program calls by its name.
"""

from __future__ import annotations

import ast
import builtins
import importlib
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
    shown = _shown_as_classes(trees)
    asked = {*plan["names"]}
    if not called - vars(builtins).keys():
        asked |= called
    elif not asked:
        asked = called - vars(builtins).keys()
    if not plan["names"]:
        asked = asked - _helpers(prelude) or asked
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
        if isinstance(value, Remote) and name in sys.stdlib_module_names and name not in asked | called:
            space[name] = importlib.import_module(name)  # math.isclose is not for the program to say
        elif isinstance(value, Remote) and (name in classes or (name[:1].isupper() and name in shown)):
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


def _helpers(trees: Iterable[ast.Module]) -> set[str]:
    """Functions of the prelude that are whole, so that the answer need not define them."""
    return {
        one.name
        for tree in trees
        for one in tree.body
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and not all(map(_says_nothing, one.body))
    }


def _says_nothing(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, `pass`, `...` or `raise NotImplementedError`."""
    named = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return (
        isinstance(node, ast.Pass)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Raise) and named == {"NotImplementedError"})
    )


def _shown_as_classes(trees: Iterable[ast.Module]) -> set[str]:
    """Names that the tests use as only classes are used.

    That is: with attributes, of their own or of what they return; for isinstance, except or as a base; calls that are
    compared with each other, or handed to another function of the program.
    """
    shown: set[str] = set()

    def name_of(node: ast.AST) -> str:
        """The name of `Name` and `Name(...)`, "" of all else."""
        node = node.func if isinstance(node, ast.Call) else node
        return node.id if isinstance(node, ast.Name) else ""

    for tree in trees:
        made: dict[str, str] = {}  # variables, and what was called for their values
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and isinstance(node.value, ast.Call):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        made[target.id] = name_of(node.value)
            elif isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
                made[node.optional_vars.id] = name_of(node.context_expr)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                shown |= {name_of(node.value), made.get(name_of(node.value), "")}
            elif isinstance(node, ast.ExceptHandler) and node.type is not None:
                shown |= {one.id for one in ast.walk(node.type) if isinstance(one, ast.Name)}
            elif isinstance(node, ast.ClassDef):
                shown |= {name_of(base) for base in node.bases}
            elif isinstance(node, ast.Call):
                function = name_of(node)
                if function in ("isinstance", "issubclass"):
                    shown |= (
                        {one.id for one in ast.walk(node.args[-1]) if isinstance(one, ast.Name)} if node.args else set()
                    )
                elif function and not hasattr(builtins, function):
                    shown |= {name_of(one) for one in node.args if isinstance(one, ast.Call)}
            elif isinstance(node, ast.Compare | ast.BinOp):
                sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.left, node.right]
                called = [name_of(one) for one in sides]
                made_of = [made.get(name, name) for name in called]
                shown |= {name for name in made_of if made_of.count(name) > 1}
    return shown
