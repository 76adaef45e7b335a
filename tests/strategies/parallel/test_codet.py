"""CodeT: reading tests, choosing by consensus sets, and running everything in a real sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outthink.driver import solve_async
from outthink.errors import UsageError
from outthink.maths.selection import majority
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.sandbox.host import Limits, Sandbox
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.codet import consensus_choice, consensus_scores, consensus_sets, written_tests
from outthink.types import Budget, Code, Message, Problem, Sampling, Trace
from tests.tools.sandboxed import needs_sandbox

# ---------------------------------------------------------------- reading tests


def test_assertions_are_read_one_by_one_and_once() -> None:
    text = """Here they are:
```python
assert f(1)  ==  2   # a remark
def test_f():
    assert f(2) == 3, "no"
    x = 4
    assert f(x) == 5
assert g(1) == 2
assert f(1) == 2
for y in range(3):
    assert f(y)
assert all(f(z) > 0 for z in (1, 2)) and (lambda w: w)(f(0)) == 1
```
"""
    assert written_tests([text], ["f"]) == [
        "assert f(1) == 2",
        "assert f(2) == 3, 'no'",
        "assert all((f(z) > 0 for z in (1, 2))) and (lambda w: w)(f(0)) == 1",
    ]


def test_what_is_not_python_is_read_line_by_line() -> None:
    text = "<think>assert f(0) == 0</think>Tests:\n- none\nassert f(1) == 2\n"
    text += "  assert f('\\d') == 3\nassert f(4) ==\nassert"
    assert written_tests([text], ["f"]) == ["assert f(1) == 2", r"assert f('\\d') == 3"]
    assert written_tests(["```\nassert f(1) == 2\nassert f(", "", "\0", "assert f(" + "(" * 5000], ["f"]) == (
        ["assert f(1) == 2"]
    )


def test_names_that_a_test_may_use() -> None:
    text = "assert math.isclose(f(1), abs(-2))\nassert f(HELP) == 1\nassert f(1) == None"
    assert written_tests([text], ["f"]) == ["assert f(1) == None"]
    assert len(written_tests([text], ["f"], ["math", "HELP"])) == 3
    assert written_tests([text], []) == []
    assert written_tests(["assert helper(1)\nassert obj.f(1)"], ["f"], ["helper", "obj"]) == []


def test_texts_take_turns() -> None:
    texts = ["assert f(1)\nassert f(2)\nassert f(3)", "assert f(1)\nassert f(4)", "no"]
    assert written_tests(texts, ["f"]) == ["assert f(1)", "assert f(2)", "assert f(4)", "assert f(3)"]


# ---------------------------------------------------------------- choosing

# two right programs pass five tests each, three equally wrong ones pass three, and one odd one passes four others
PASSES = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 1, 0, 1, 0, 1],
    ]
)
KEYS = np.arange(6)


def test_a_consensus_set_scores_solutions_times_tests() -> None:
    assert consensus_sets(KEYS, PASSES).tolist() == [0, 0, 2, 2, 2, 5]
    assert consensus_scores(KEYS, PASSES).tolist() == [10, 10, 9, 9, 9, 4]  # sqrt of the solutions: 7.1, 5.2, 4
    choice = consensus_choice(KEYS, PASSES)
    assert (int(choice.index), float(choice.share)) == (0, 2 / 6)
    for order in permutations(range(6)):
        places = list(order)
        assert places[int(consensus_choice(KEYS[places], PASSES[places]).index)] in (0, 1)
    assert consensus_choice(KEYS, PASSES, lengths=[2, 1, 0, 0, 0, 0]).index == 1


def test_ties_go_to_the_larger_set_then_to_the_most_written_then_to_the_shorter() -> None:
    passes = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]])
    assert consensus_scores(KEYS[:3], passes).tolist() == [2, 2, 2]
    assert consensus_choice(KEYS[:3], passes).index == 1
    alike = np.ones((4, 2))
    assert consensus_choice([0, 1, 1, 2], alike, lengths=[1, 3, 2, 1]).index == 2
    assert consensus_choice([0, 1, 2, 3], alike, lengths=[3, 2, 1, 1]).index == 2


def test_what_fails_public_tests_ranks_below_all_that_pass_them() -> None:
    public = np.array([0, 0, 0, 0, 0, 1])
    assert consensus_choice(KEYS, PASSES, public=public).index == 5
    assert consensus_choice(KEYS, PASSES, public=1 - public).index == 0
    assert consensus_choice(KEYS, PASSES, public=np.zeros(6)).index == 0
    assert consensus_sets(KEYS, PASSES, public=[0, 1, 0, 0, 1, 1]).tolist() == [0, 1, 2, 2, 4, 5]
    assert consensus_choice(KEYS, np.zeros((6, 0)), public=[0, 0, 1, 0, 1, 0]).index == 2


def test_what_is_invalid_or_was_not_run() -> None:
    passes = PASSES.astype(float)
    passes[0] = np.nan
    assert consensus_scores(KEYS, passes)[1:].tolist() == [5, 9, 9, 9, 4]
    assert np.isnan(consensus_scores(KEYS, passes)[0])
    assert consensus_choice(KEYS, passes).index == 2
    assert consensus_choice([-1, -1, -1, -1, -1, 0], passes).index == 5
    assert consensus_choice([0, -1, -1, -1, -1, -1], passes).index == 0  # better than none
    assert consensus_choice([-1] * 6, passes).index == -1
    assert consensus_choice([0, 1], np.array([[1.0], [0.0]]), public=[np.nan, 0.0]).index == 1
    assert consensus_choice(np.zeros((2, 0), int), np.zeros((2, 0, 3))).index.tolist() == [-1, -1]


shapes = st.tuples(st.integers(1, 4), st.integers(1, 6))


@settings(deadline=None)
@given(hnp.arrays(np.int64, shapes, elements=st.integers(-1, 3)), st.data())
def test_a_batch_is_its_rows_and_no_tests_are_the_majority(keys: np.ndarray, data: st.DataObject) -> None:
    passes = data.draw(hnp.arrays(np.int64, (*keys.shape, 3), elements=st.integers(0, 1)))
    public = data.draw(hnp.arrays(np.int64, keys.shape, elements=st.integers(0, 1)))
    together = consensus_choice(keys, passes, public=public)
    alone = [consensus_choice(k, p, public=q) for k, p, q in zip(keys, passes, public, strict=True)]
    assert together.index.tolist() == [int(choice.index) for choice in alone]
    assert together.share == pytest.approx([float(choice.share) for choice in alone])
    first = majority(keys).index
    for nothing in (np.zeros((*keys.shape, 0)), np.zeros(passes.shape)):
        assert np.array_equal(consensus_choice(keys, nothing).index, first)
    assert np.array_equal(consensus_choice(keys, np.full(passes.shape, np.nan)).index, first)


# ---------------------------------------------------------------- in the sandbox

RIGHT = ["def f(x):\n    return x + 1", "def f(x):\n    return 1 + x"]
WRONG = ["def f(x):\n    return x - 1", "def f(x):\n    return -1 + x", "def f(x):\n    return (x) - (1) * 1"]
ODD = "def f(x):\n    return 2 * x"
TESTS = "```python\nassert f(1) == 2\nassert f(2) == 3\nassert f(-1) == 0\nassert f(5) == 4\n```"
ASKED = Problem(
    id="f", messages=(Message(content="Write f."),), answer="code", code=Code(entry_point="f", prelude="import math\n")
)


def writing(programs: Sequence[str], tests: str = TESTS, seen: list[Request] | None = None) -> ScriptedEngine:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if seen is not None:
            seen.append(request)
        if request.address[0] == "tester":
            return tests
        return f"```python\n{programs[child]}\n```" if "def" in programs[child] else programs[child]

    return ScriptedEngine(reply)


def chosen(
    programs: Sequence[str],
    written: str = TESTS,
    *,
    asked: Problem = ASKED,
    seconds: float = 5.0,
    seen: list[Request] | None = None,
    budget: dict[str, float] | None = None,
    models: dict[str, ScriptedEngine] | None = None,
    **parameters: Any,
) -> Trace:
    async def go() -> Trace:
        sandbox = Sandbox(Limits(seconds=seconds, cpu_seconds=seconds), workers=2)
        try:
            return await solve_async(
                asked,
                make_strategy("codet", {"n": len(programs), **parameters}),
                model=writing(programs, written, seen),
                models=models,
                sandbox=sandbox,
                sampling=Sampling(max_tokens=2000),
                budget=Budget(budget or {}),
            )
        finally:
            await sandbox.close()

    return asyncio.run(go())


def runs(trace: Trace) -> int:
    return sum(call.kind == "execute" for call in trace.calls)


@needs_sandbox
@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_best_agreement_wins_wherever_it_stands(order: int) -> None:
    programs = [*RIGHT, *WRONG, ODD]
    programs = [programs, programs[::-1], sorted(programs, key=len)][order]
    trace = chosen(programs)
    assert trace.answer in RIGHT  # 2 * 3 against 3 * 1 for those that are wrong
    assert trace.rounds[-1].scores == pytest.approx(
        [{0: 6, 1: 3, 2: 1}[(p in WRONG) + 2 * (p == ODD)] for p in programs]
    )
    assert trace.confidence == pytest.approx(2 / 6)
    assert runs(trace) == 6
    assert {line.role for line in trace.ledger()} == {"model", "tester", "sandbox"}


@needs_sandbox
def test_copies_run_once_and_count_each() -> None:
    copies = [WRONG[0], WRONG[0] + "  # a remark", RIGHT[0], ODD]
    trace = chosen(copies, "assert f(1) == 2\nassert f(5) == 4")
    assert runs(trace) == 3
    assert trace.rounds[-1].scores == (2.0, 2.0, 2.0, 2.0)  # 2 * 1; f(1) == 2 holds for 2x, too: again 2 * 1
    assert trace.answer == WRONG[0]  # a tie of sets of two with one test: what was written most often


@needs_sandbox
def test_public_tests_come_first() -> None:
    public = Problem(
        id="f",
        messages=ASKED.messages,
        answer="code",
        code=Code(entry_point="f", tests=("zero = 0\nassert f(zero) == 0", "assert f(1) == 2")),
    )
    trace = chosen([*RIGHT, *WRONG, ODD], asked=public)
    assert trace.answer == ODD
    assert trace.rounds[-1].scores == (6.0, 6.0, 3.0, 3.0, 3.0, 1.0)
    assert chosen([*WRONG, ODD], "I have no tests.", asked=public).answer == ODD


EXITS = """
def f(x):
    if x == 2:
        raise SystemExit
    return x + 1"""
DIES = """
import os
def f(x):
    if x == 2:
        os._exit(0)
    return x + 1"""
HANGS = """
def f(x):
    while x == 2:
        try:
            while True:
                pass
        except:
            pass
    return x + 1"""
SLOW = """
def f(x):
    while x == 2:
        pass
    return x + 1"""
BREAKS = "raise ValueError('at once')\ndef f(x):\n    return x + 1"
LEAVES = "import sys\ndef f(x):\n    return x + 1\nsys.exit(0)"
SYNTAX = "def f(x):\n    return x +"


@needs_sandbox
@pytest.mark.parametrize(
    ("source", "tests"),
    [(EXITS, 2), (DIES, 1), (HANGS, 1), (BREAKS, 0), (LEAVES, 0), (SYNTAX, 0)],
    ids=["exits", "dies", "hangs", "breaks", "leaves", "syntax"],
)
def test_what_crashes_or_hangs_fails_what_is_left(source: str, tests: int) -> None:
    trace = chosen([source, RIGHT[0]], seconds=2, test_seconds=0.2)
    assert trace.answer == RIGHT[0]
    assert trace.rounds[-1].scores == pytest.approx([tests, 3])


@needs_sandbox
def test_a_test_that_takes_too_long_does_not_cost_the_others() -> None:
    trace = chosen([SLOW, WRONG[0]], seconds=20, test_seconds=0.2)
    assert trace.rounds[-1].scores == pytest.approx([2, 1])


FORGES = [
    """
import sys
word = sys.stdin.readline().strip()
for n in range(9):
    print(word, n)
def f(x):
    return None""",
    """
def f(x):
    print(0)
    return None
for n in range(9):
    print(n)
    print("", n)""",
    """
import os
os.write(1, b" 0\\n 1\\n0\\n1\\n")
os.close(0)
def f(x):
    return None""",
    """
def print(*_):
    pass
def exec(*_):
    pass
drive = compile = exec
def f(x):
    return None""",
]
NOISY = """
def print(*_):
    pass
def range(*_):
    pass
write = run = timer = word = 3
def f(x):
    return x + 1"""
LOUD = """
def f(x):
    print("x" * 200_000)
    return x + 1
print("x" * 200_000)"""
USES = """
from dataclasses import dataclass
@dataclass
class Box:
    v: "int"
def f(x):
    return int(math.floor(Box(x).v)) + 1"""


@needs_sandbox
@pytest.mark.parametrize("source", FORGES, ids=["reads", "prints", "writes", "shadows"])
def test_a_solution_that_writes_what_results_look_like_passes_nothing(source: str) -> None:
    trace = chosen([source, RIGHT[0]])
    assert trace.rounds[-1].scores == pytest.approx([0, 3])
    assert trace.answer == RIGHT[0]


@needs_sandbox
def test_what_a_solution_shadows_or_prints_does_not_disturb_its_tests() -> None:
    trace = chosen([NOISY, LOUD, USES, RIGHT[0]])
    assert trace.rounds[-1].scores == pytest.approx([12] * 4)


@needs_sandbox
def test_the_name_of_the_function_is_found_where_the_problem_does_not_say() -> None:
    silent = Problem(id="f", messages=ASKED.messages, answer="code")
    assert chosen([WRONG[0], *RIGHT], asked=silent).answer in RIGHT


@needs_sandbox
def test_same_seed_same_programs() -> None:
    one, two = (chosen([*RIGHT, WRONG[0]]) for _ in range(2))
    assert one.rounds[-1].scores == two.rounds[-1].scores
    assert [call.address for call in one.calls] == [call.address for call in two.calls]


@needs_sandbox
@pytest.mark.parametrize(
    ("programs", "tests"),
    [
        ([RIGHT[0]] * 3, 0),  # nothing to choose among
        ([RIGHT[0]], 0),
        (["nothing that is code", "nor this", RIGHT[0]], 0),
        ([WRONG[0], WRONG[0], RIGHT[0]], 4),  # no test can be read
    ],
)
def test_the_majority_stands_where_there_is_nothing_to_test(programs: list[str], tests: int) -> None:
    seen: list[Request] = []
    trace = chosen(programs, "No tests today.", seen=seen)
    assert trace.answer == max(programs, key=lambda p: (p.startswith("def"), programs.count(p)))
    assert sum(request.address[0] == "tester" for request in seen) == tests
    assert (runs(trace), trace.stopped) == (0, "finished")


@needs_sandbox
def test_a_budget_of_tokens_or_of_execution_ends_it_with_the_majority() -> None:
    programs = [WRONG[0], WRONG[0], RIGHT[0]]
    trace = chosen(programs, budget={"tokens": 2200})
    assert (trace.answer, trace.stopped, runs(trace)) == (WRONG[0], "budget", 0)
    trace = chosen(programs, budget={"execution_seconds": 3.0})  # less than the worst case of one program
    assert (trace.answer, trace.stopped, runs(trace)) == (WRONG[0], "budget", 0)


@needs_sandbox
def test_a_tester_of_its_own_writes_the_tests() -> None:
    tester = ScriptedEngine(lambda request, child, rng: "assert f(1) == 0")
    trace = chosen([*RIGHT, WRONG[0]], models={"tester": tester})
    assert trace.answer == WRONG[0]
    assert {call.n for call in trace.calls if call.role == "tester"} == {4}


@needs_sandbox
def test_at_most_so_many_tests_and_the_prompt_says_what_is_asked() -> None:
    seen: list[Request] = []
    trace = chosen([RIGHT[0], WRONG[0]], "assert f(5) == 4\nassert f(1) == 2\nassert f(2) == 3", tests=1, seen=seen)
    assert trace.answer == WRONG[0]
    prompt = next(request.messages[-1].text for request in seen if request.address[0] == "tester")
    assert prompt.startswith("Write f.")
    assert "8 assertions" in prompt
    assert "assert f(input) == expected" in prompt


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"tests": 0}, "tests must be at least 1"),
        ({"test_samples": 0}, "test_samples must be at least 1"),
        ({"tests_each": 0}, "tests_each must be at least 1"),
        ({"test_seconds": 0}, "test_seconds must be above 0"),
        ({"test_seconds": float("nan")}, "test_seconds must be above 0"),
    ],
)
def test_bad_hyperparameters(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_strategy("codet", parameters)
