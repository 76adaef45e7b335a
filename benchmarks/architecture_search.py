"""Searches over recorded components at equal evaluations: random, TPE, REINFORCE, insights, and a language model.

Usage: python benchmarks/architecture_search.py architecture|stages|graph POOL... [--evaluations 10,20] [--repeats 100]

`architecture`: a pool with one answer of each of many models. Axes: whether each of the models in the middle of the
validation half generates, and which model verifies (it keeps the candidates that have its own answer, all if none);
the majority answers, and at most `--calls` answers are paid for.

`stages`: pools of several models on several tasks. Each stage answers its task by a vote of one model's samples, and
the pipeline is right where all stages are; the budget is FLOPs, those of `--passes` samples of the largest model in
each stage. The search `agent` asks a language model; what it says is kept in the file of `--replies`, and taken from
there where it was said before.

`graph`: pools of several models on several tasks. A node draws a recorded sample of its model. What it would write
after reading is not recorded: here an assistant has the majority of what it reads and its own draw, a fuser that of
what it reads. So this compares searches, and says nothing of how well models read.

Each repeat splits the questions anew in two halves (`graph`: thirds, by which it is tried, chosen and measured): what a
search chooses on one is scored on the other. Intervals are over the repeats, which share their questions.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

import outthink
from outthink.learn.agents import Talk, stage_agent, talking
from outthink.learn.graph_search import GraphOrder, search_graph
from outthink.learn.proposing import proposer
from outthink.learn.search import Point, Propose, SearchSpace, best_trial, searched
from outthink.maths.intervals import mean_and_interval
from outthink.models.engine import Engine, Shape
from outthink.records.pools import read_pool, read_rows
from outthink.reports.curves import majority
from outthink.reports.tables import markdown_table
from outthink.strategies.collective.answer_nodes import Nodes, ends, read_nodes

MODELS = 12  # of the middle
AMOUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
COLUMNS = (
    "kind",
    "pool",
    "search",
    "evaluations",
    "validation",
    "validation_less_random",
    "validation_low",
    "validation_high",
    "held_out",
    "less_random",
    "low",
    "high",
)
SIZES = {"0.6b": 0.6, "1.7b": 1.7, "4b": 4.0, "8b": 8.0}
TASKS = ("aime24", "aime25", "hmmt25")
MOST_SAID = 320  # tokens
GRAPH_NODES = 12
BATCH = 3  # questions on which a graph is tried
RUNS = 5  # of a graph on each question of the last third

Right = Callable[[Point, NDArray[np.intp]], NDArray[np.float64]]
"""(point, questions) -> its credit, whose mean is the score."""


def credit(keys: NDArray[np.intp], correct: NDArray[np.bool_], votes: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The chance (questions,) that the majority of the votes is right; ties share it, INVALID does not vote."""
    votes = votes & (keys >= 0)
    counts = ((keys[:, :, None] == keys[:, None, :]) & votes[:, None, :]).sum(-1) * votes
    leads = (counts == counts.max(-1, keepdims=True)) & votes
    weights = leads / np.maximum(counts, 1)  # each leading answer once
    total = weights.sum(-1)
    return np.where(total > 0, (weights * correct).sum(-1) / np.maximum(total, 1e-9), 0.0)


class Ensemble:
    """Generators and a verifier among models that answered each question once."""

    def __init__(self, pool: Path, calls: int, answer: str) -> None:
        data = read_pool(pool, answer=answer)  # type: ignore[arg-type]  # checked there
        rows = [row for _, row in read_rows(pool)]
        names = sorted(set.intersection(*({s["model"] for s in row["samples"]} for row in rows)))
        places = [{s["model"]: place for place, s in enumerate(row["samples"])} for row in rows]
        index = np.array([[place[name] for name in names] for place in places])
        assert all(problem.keys is not None for problem in data.problems)
        self.keys = np.array([p.keys[i] for p, i in zip(data.problems, index, strict=True)])  # type: ignore[index]
        self.correct = np.array([p.correct[i] for p, i in zip(data.problems, index, strict=True)])
        self.calls = calls
        self.questions = len(self.keys)

    def split(self, first: NDArray[np.intp]) -> tuple[SearchSpace, Right]:
        """The space by what is known of the first half, and the credit of a point on questions."""
        order = np.argsort(-self.correct[first].mean(0), kind="stable")
        start = (len(order) - MODELS) // 2
        middle = order[start : start + MODELS]
        space = SearchSpace(
            sizes=(2,) * MODELS + (MODELS + 1,),
            allowed=lambda point: 1 <= sum(point[:-1]) <= self.calls - (point[-1] > 0),
            cost=lambda point: float(sum(point[:-1]) + (point[-1] > 0)),
        )

        def right(point: Point, questions: NDArray[np.intp]) -> NDArray[np.float64]:
            keys, correct = self.keys[questions][:, middle], self.correct[questions][:, middle]
            votes = np.tile(np.array(point[:-1], bool), (len(questions), 1))
            if point[-1]:
                same = keys == keys[:, point[-1] - 1][:, None]
                kept = votes & same & (keys >= 0)
                votes = np.where(kept.any(-1, keepdims=True), kept, votes)
            return credit(keys, correct, votes)

        return space, right

    def reference(self, space: SearchSpace, right: Right, first: NDArray[np.intp]) -> dict[str, Point]:
        """What nobody has to search for: the vote of as many of the best models as are allowed."""
        return {f"the best {self.calls} vote": (1,) * self.calls + (0,) * (MODELS - self.calls) + (0,)}


class Pipeline:
    """Stages, each a vote of one model's samples on its own task."""

    def __init__(self, pools: list[Path], passes: float, answer: str) -> None:
        self.right: list[list[NDArray[np.float64]]] = []  # by stage and model: (amounts, questions)
        self.flops: list[list[float]] = []  # of one sample
        for task in TASKS:
            right, flops = [], []
            for name, size in SIZES.items():
                (path,) = [one for one in pools if name in one.name and task in one.name]
                pool = read_pool(path, answer=answer)  # type: ignore[arg-type]  # checked there
                votes = majority(pool, AMOUNTS, subsamples=200, seed=0)
                right.append(np.array([votes[n].accuracy for n in AMOUNTS]))
                flops.append(2e9 * size * mean(float(p.tokens.mean()) for p in pool.problems if p.tokens is not None))
            self.right.append(right)
            self.flops.append(flops)
        self.questions = min(right[0].shape[-1] for right in self.right)
        self.most = passes * sum(flops[-1] for flops in self.flops)

    def cost(self, point: Point) -> float:
        return sum(
            flops[model] * AMOUNTS[amount]
            for flops, model, amount in zip(self.flops, point[::2], point[1::2], strict=True)
        )

    def split(self, first: NDArray[np.intp]) -> tuple[SearchSpace, Right]:
        """The space, and the score of a point: question i of each task, with every question of the others."""
        space = SearchSpace(
            sizes=(len(SIZES), len(AMOUNTS)) * len(TASKS),
            allowed=lambda point: self.cost(point) <= self.most * 1.000001,
            cost=self.cost,
            stages=tuple((2 * place, 2 * place + 1) for place in range(len(TASKS))),
            values=(tuple(SIZES), AMOUNTS) * len(TASKS),
            most=self.most,
        )

        def right(point: Point, questions: NDArray[np.intp]) -> NDArray[np.float64]:
            means = [
                self.right[stage][model][amount][questions].mean()
                for stage, (model, amount) in enumerate(zip(point[::2], point[1::2], strict=True))
            ]
            return np.array([float(np.prod(means))])

        return space, right

    def reference(self, space: SearchSpace, right: Right, first: NDArray[np.intp]) -> dict[str, Point]:
        """What nobody has to search for, and the best point on the first half."""
        # the score is a product of a factor a stage, so the best is that of the best trade of their costs
        options = [
            [
                (flops[model] * n, float(means[model][amount][first].mean()), (model, amount))
                for model in range(len(SIZES))
                for amount, n in enumerate(AMOUNTS)
            ]
            for means, flops in zip(self.right, self.flops, strict=True)
        ]
        best = max(
            (one for one in itertools.product(*options) if sum(cost for cost, _, _ in one) <= self.most * 1.000001),
            key=lambda one: np.prod([score for _, score, _ in one]),
        )
        largest = (len(SIZES) - 1, 0) * len(TASKS)
        return {"the largest model once": largest, "all settings": tuple(v for _, _, pair in best for v in pair)}


def row_tokens(row: dict[str, Any]) -> list[float]:
    """Of each sample of a question."""
    return [float(one["tokens"]) for one in row["samples"]]


class Graphs:
    """Graphs whose nodes draw recorded answers, and vote where they read."""

    def __init__(self, pools: list[Path], answer: str) -> None:
        self.drawn: dict[str, list[list[tuple[str | None, bool]]]] = {}  # by model: questions, samples
        written: list[float] = []
        for name in SIZES:
            self.drawn[name] = []
            for path in (one for one in sorted(pools) if name in one.name):
                pool = read_pool(path, answer=answer)  # type: ignore[arg-type]  # checked there
                for problem, (_, row) in zip(pool.problems, read_rows(path), strict=True):
                    texts = [one["answer"] for one in row["samples"]]
                    self.drawn[name].append([*zip(texts, problem.correct.tolist(), strict=True)])
                    written += row_tokens(row)
        self.questions = len(next(iter(self.drawn.values())))
        self.answer = round(mean(written))

    def right(self, nodes: Nodes, question: int, rng: np.random.Generator) -> bool:
        """Whether a run of the graph on a question is right."""
        said: list[tuple[str | None, bool]] = []
        for node in nodes:
            heard = [said[read - 1] for read in node.reads]
            if node.type == "assistant":
                samples = self.drawn[node.model][question]
                heard.append(samples[rng.integers(len(samples))])
            said.append(_most_frequent(heard))
        return _most_frequent([said[place] for place in ends(nodes)])[1]

    async def search(self, by: str, evaluations: int, repeat: int) -> tuple[float, float]:
        """The score of the best graph in the search, and on the last third."""
        order = np.random.default_rng([repeat, 8]).permutation(self.questions)
        parts = [order[place::3].tolist() for place in range(3)]

        async def measure(nodes: Nodes, phase: str, number: int) -> float:
            part = parts[1]
            if phase != "again":
                size = 1 if phase == "pre-test" else BATCH
                part = [parts[0][(number * size + place) % len(parts[0])] for place in range(size)]
            rng = np.random.default_rng([repeat, number, len(phase)])
            return mean(self.right(nodes, question, rng) for question in part)

        wanted = GraphOrder(
            shapes={name: Shape(parameters=round(size * 1e9)) for name, size in SIZES.items()},
            alone={name: mean(one for q in parts[0] for _, one in rows[q]) for name, rows in self.drawn.items()},
            end=next(reversed(SIZES)),
            nodes=GRAPH_NODES,
            task=100,
            answer=self.answer,
        )
        best, trials, _ = await search_graph(wanted, measure, by=by, evaluations=evaluations, seed=repeat)  # type: ignore[arg-type]  # a name
        return max(trial.score or 0.0 for _, trial in trials), self.held_out(best, repeat)

    def held_out(self, nodes: Nodes, repeat: int) -> float:
        """The score on the last third, over several runs."""
        order = np.random.default_rng([repeat, 8]).permutation(self.questions)
        rng = np.random.default_rng([repeat, 9])
        return mean(self.right(nodes, question, rng) for question in order[2::3].tolist() for _ in range(RUNS))

    def references(self) -> dict[str, Nodes]:
        """What nobody has to search for."""
        small, large = next(iter(SIZES)), next(reversed(SIZES))
        return {
            "the largest model once": read_nodes(f"assistant@{large}"),
            f"{GRAPH_NODES} of the smallest vote": read_nodes(f"assistant:{GRAPH_NODES}@{small}"),
        }


def _most_frequent(said: list[tuple[str | None, bool]]) -> tuple[str | None, bool]:
    """The most frequent answer that there is, the first of several."""
    known = [one for one in said if one[0] is not None]
    return max(known, key=lambda one: sum(other[0] == one[0] for other in known), default=(None, False))


class Agent:
    """A language model that proposes; a file holds what it said."""

    def __init__(self, model: str, kept: Path | None) -> None:
        self.engine: Engine = outthink.open_engine(model)
        self.kept = kept
        self.calls = 0
        self.tokens = 0.0

    def talk(self, seed: int) -> Talk:
        """One of its own for each search."""
        return talking(self.engine, self._add, seed=seed, max_tokens=MOST_SAID, kept=self.kept)

    def _add(self, cost: Mapping[str, float]) -> None:
        self.calls += 1
        self.tokens += cost["tokens"]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("architecture", "stages", "graph"))
    parser.add_argument("pools", nargs="+", type=Path)
    parser.add_argument("--answer", default="math")
    parser.add_argument("--evaluations", default="10,20,40")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--csv", type=Path, help="a table that the rows are added to")
    parser.add_argument("--calls", type=int, default=7)
    parser.add_argument("--passes", type=float, default=4)
    parser.add_argument(
        "--searches", default="random,tpe,reinforce,insights", help="random is what others are compared to"
    )
    parser.add_argument("--agent", default="qwen2.5-coder-1.5b-instruct", help="the model of the search agent")
    parser.add_argument("--replies", type=Path, help="a file of what it said")
    given = parser.parse_args()
    if given.kind == "graph":
        compare_graphs(given)
        return
    made: Ensemble | Pipeline
    if given.kind == "architecture":
        made = Ensemble(given.pools[0], given.calls, given.answer)
    else:
        made = Pipeline(given.pools, given.passes, given.answer)
    ways = given.searches.split(",")
    agent = Agent(given.agent, given.replies) if "agent" in ways else None
    budgets = [int(one) for one in given.evaluations.split(",")]
    scores: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in itertools.product(ways, budgets)}
    references: dict[str, list[tuple[float, float]]] = {}
    for repeat in range(given.repeats):
        order = np.random.default_rng([repeat, 7]).permutation(made.questions)
        first, second = order[: made.questions // 2], order[made.questions // 2 :]
        space, right = made.split(first)

        async def evaluate(point: Point, right=right, first=first) -> float:  # type: ignore[no-untyped-def]  # of this turn
            return float(right(point, first).mean())

        known = made.reference(space, right, first)
        for name, point in known.items():
            references.setdefault(name, []).append(
                (float(right(point, first).mean()), float(right(point, second).mean()))
            )
        for by, budget in scores:
            propose: Propose = (
                stage_agent(agent.talk(repeat), repeat) if by == "agent" and agent is not None else proposer(by, repeat)  # type: ignore[arg-type]  # one of its names
            )
            trials = asyncio.run(searched(space, evaluate, propose, evaluations=budget))
            best = best_trial(space, trials)
            assert best.score is not None
            scores[by, budget].append((best.score, float(right(best.point, second).mean())))
    rows: list[tuple[str, ...]] = []
    exact: list[tuple[object, ...]] = []
    for name, pairs in references.items():
        seen_mean, held_mean = np.array(pairs).mean(0)
        exact.append((name, "", f"{100 * seen_mean:.1f}%", "", "", "", f"{100 * held_mean:.1f}%", "", "", ""))
        rows.append((name, "", f"{100 * seen_mean:.1f}%", "", f"{100 * held_mean:.1f}%", ""))
    for by, budget in scores:
        chosen, held = (np.array(one) for one in zip(*scores[by, budget], strict=True))
        base = np.array([one for _, one in scores["random", budget]])
        seen = np.array([one for one, _ in scores["random", budget]])
        margins = ["", "", ""] * 2
        if by != "random":
            margins = [
                f"{100 * value:+.1f}"
                for one, other in ((chosen, seen), (held, base))
                for value in _interval(one - other)
            ]
        exact.append(
            (by, budget, f"{100 * chosen.mean():.1f}%", *margins[:3], f"{100 * held.mean():.1f}%", *margins[3:])
        )
        rows.append(
            (
                by,
                str(budget),
                f"{100 * chosen.mean():.1f}%",
                _margin(chosen - seen) if by != "random" else "",
                f"{100 * held.mean():.1f}%",
                _margin(held - base) if by != "random" else "",
            )
        )
    _kept(given, exact)
    header = ("search", "evaluations", "validation", "less random", "held out", "less random (95%)")
    print(markdown_table(header, rows))
    if agent is not None:
        print(f"agent: {agent.calls} calls, {agent.tokens:.0f} tokens")
        asyncio.run(agent.engine.close())


def compare_graphs(given: argparse.Namespace) -> None:
    """Print one table of searches for graphs."""
    made = Graphs(given.pools, given.answer)
    rows: list[tuple[object, ...]] = []
    repeats = range(given.repeats)
    for name, nodes in made.references().items():
        held = mean(made.held_out(nodes, repeat) for repeat in repeats)
        rows.append((name, "", "", *[""] * 3, f"{100 * held:.1f}%", *[""] * 3))
    for evaluations in map(int, given.evaluations.split(",")):
        base = np.zeros((0, 2))
        for by in given.searches.split(","):
            came = np.array([asyncio.run(made.search(by, evaluations, repeat)) for repeat in repeats])
            base = came if by == "random" else base
            margins = [""] * 3 if by == "random" else [f"{100 * one:+.1f}" for one in _interval((came - base)[:, 1])]
            seen, last = (f"{100 * one:.1f}%" for one in came.mean(0))
            rows.append((by, evaluations, seen, *[""] * 3, last, *margins))
    _kept(given, rows)
    header = ("search", "evaluations", "best in the search", "held out", "less random", "low", "high")
    print(markdown_table(header, [tuple(map(str, (*row[:3], *row[6:]))) for row in rows]))


def _kept(given: argparse.Namespace, rows: list[tuple[object, ...]]) -> None:
    """Add the rows to the table of `--csv`."""
    if given.csv is None:
        return
    new = not given.csv.exists()
    with given.csv.open("a", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        if new:
            table.writerow(COLUMNS)
        table.writerows((given.kind, given.pools[0].parent.name, *row) for row in rows)


def _interval(differences: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(mean_and_interval(differences.tolist(), least=-1.0))


def _margin(differences: NDArray[np.float64]) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * value for value in _interval(differences)))


if __name__ == "__main__":
    main()
