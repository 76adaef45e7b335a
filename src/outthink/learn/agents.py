"""A language model that proposes the next setting of a search: pipelines as in AgentTTS, graphs as in Agent-REINFORCE.

What it writes is JSON that is checked: it names known models, nodes and edges only, and nothing of it is run. What
cannot be used is asked for again with the reason, three times in all; then chance proposes.

Source: AgentTTS (2508.00890) and Agent-REINFORCE (2511.00086), by notes on them and on the code of the second. Prompts
are ours; what the sources call insights is given as a guess, without their numbers. Differs: a setting that was tried
cannot be used again; the agent sees scores of the questions that the search has, and no question.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from outthink import jsonl
from outthink.answers.thoughts import spoken
from outthink.driver import solve_async
from outthink.errors import UsageError
from outthink.learn.graphs import EDGE, END, ENDS, TYPES, AnswerGraphSpace
from outthink.learn.proposing import by_chance, drawn, every_model, lowered, softmax
from outthink.learn.search import Archive, Point, Propose, SearchSpace
from outthink.models.engine import Engine
from outthink.rng import generator
from outthink.types import Message, Problem, Sampling

T = TypeVar("T")
Talk = Callable[[str], Awaitable[str]]
"""A prompt -> what the model writes."""

TRIES = 3
CANDIDATES = 3  # pipelines that are asked for at once
_SHOWN = 8  # settings of the archive
_ROUNDS = 3  # graphs
_LONGEST = 20_000  # letters of a reply that are read
_TEMPERATURE = 0.7  # at 0 a prompt that is sent again has the same reply
_BEGINNINGS = 64  # places where its JSON may begin
_GUIDELINES, _GUIDELINE = 4, 200  # that are kept, and letters of each

_STAGES = (
    "You tune a pipeline of {stages} stages. For each stage you choose a model and how many samples of it are drawn. "
    "The score is the share of questions on which the whole pipeline is right.\n\n"
    "What one sample costs, in percent of the budget:\n{prices}\n"
    "Samples that can be chosen: {amounts}. All stages together may cost at most 100.\n\n"
    "Tried so far, best first:\n{tried}\n\n"
    "Your guidelines so far:\n{guidelines}\n\n"
    "Guesses that may help: a stage has an amount beyond which more samples do not help, so look around the best "
    "pipeline and do not only spend all; after one stage has changed, tune the ones beside it anew.\n\n"
    "Write what you have learned, as at most {most} short guidelines, and {wanted} new pipelines that were not tried. "
    'Reply with one JSON object and nothing else, in this form: {{"guidelines": ["..."], "candidates": {example}}}'
)
_MIXES = (
    "Graphs of calls to language models will answer questions. Choose which models they have. What each one got right "
    "alone, and what its node costs:\n{models}\n\nThe mixes:\n{mixes}\n\n"
    "A guess that may help: some tasks want few large models, others many small ones. Choose the two mixes that you "
    'expect most of. Reply with one JSON object and nothing else, such as {{"mixes": [1, 2]}}'
)
_GRAPH = (
    "You design a graph of calls to language models that answers questions. Its nodes are numbered from 1 to {count}, "
    "and it may have at most: {mix}. A node of type assistant answers the question; it reads the answers of the nodes "
    "in its list reads, and corrects them. A fuser merges the answers that it reads, at least one of an assistant. The "
    "end is a fuser of the model {end}, which merges what it reads, or a vote on what it reads. There are no circles. "
    "A node that reads more costs more; the whole graph may cost at most 100.\n\n"
    "Last rounds:\n{rounds}\n\nProbabilities of edges so far, those that are not named are {edge}:\n{table}\n\n"
    "Write the next graph, which was not tried, and new probabilities: higher only for edges of the last graph that "
    "helped, lower for those of graphs that were poor. Guesses that may help: build outward from the end; a node that "
    "reads much wants a large model and different models before it; a wide graph has more views, a deep one more "
    "corrections, but deep chains overwrite right answers.\n\n"
    "Reply with one JSON object and nothing else, in the form of the last graph with its table: {example}"
)


def talking(
    engine: Engine,
    on_call: Callable[[Mapping[str, float]], None],
    *,
    seed: int = 0,
    max_tokens: int = 512,
    kept: Path | None = None,
) -> Talk:
    """What an engine writes to each prompt.

    Args:
        on_call: is told what each call cost.
        kept: a file of its replies. What this engine was told before in the same place is not asked again; its cost
            then is told now.

    Raises EngineError where nothing comes back, and UsageError where the file cannot be used.
    """
    numbers = itertools.count(seed * 10_000)
    known = _kept(kept) if kept is not None and kept.exists() else {}

    async def talk(prompt: str) -> str:
        number = next(numbers)
        place = json.dumps([engine.spec.name, number, max_tokens, prompt])
        told = hashlib.sha256(place.encode()).hexdigest()[:16]
        if told not in known:
            problem = Problem(id=f"agent-{number}", messages=(Message(content=prompt),), answer="chat")
            sampling = Sampling(temperature=_TEMPERATURE, max_tokens=max_tokens)
            trace = await solve_async(problem, "self_consistency?n=1", model=engine, sampling=sampling, seed=number)
            known[told] = {"told": told, "said": trace.text or "", "cost": trace.cost}
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                with jsonl.Appender(kept) as file:
                    file.append(json.dumps(known[told]))
        on_call(known[told]["cost"])
        return str(known[told]["said"])

    return talk


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file of replies, by the place and the words of what was told."""
    known = {}
    for number, row in jsonl.read(path):
        if not (isinstance(row.get("told"), str) and isinstance(row.get("cost"), dict) and "said" in row):
            raise UsageError(f"Line {number} of {path} is no reply of an agent: remove it.")
        known[row["told"]] = row
    return known


def read_object(reply: str) -> dict[str, Any]:
    """The first JSON object of a reply; raises ValueError in a sentence where there is none."""
    text = spoken(reply)[:_LONGEST]
    start = text.find("{")
    for _ in range(_BEGINNINGS):
        if start < 0:
            break
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start)
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could be sent to no model
        except RecursionError:
            break  # what is nested so deep is no answer from any beginning
        except ValueError:
            start = text.find("{", start + 1)
            continue
        if isinstance(value, dict):
            return value
    raise ValueError("It has no JSON object that can be read.")


async def heard(talk: Talk, prompt: str, read: Callable[[dict[str, Any]], T]) -> T | None:
    """What is read of a reply, which is asked for at most three times, with what was wrong; None: nothing could be."""
    said = prompt
    for _ in range(TRIES):
        reply = await talk(said)
        try:
            return read(read_object(reply))
        except ValueError as wrong:
            said = f"{prompt}\n\nYour last reply could not be used. {wrong} Reply with the JSON object only."
    return None


def _fresh(archive: Archive, proposals: Iterable[Point], wanted: int) -> list[Point]:
    """The first so many that can be evaluated and were not."""
    fresh: list[Point] = []
    for proposal in itertools.islice(proposals, 200 * wanted):
        point = archive.space.within(proposal)
        if point is not None and point not in archive.known and point not in fresh:
            fresh.append(point)
        if len(fresh) == wanted:
            break
    return fresh


# ---------------------------------------------------------------------------------------------- pipelines


def stage_agent(talk: Talk, seed: int = 0) -> Propose:
    """AgentTTS: every model in every stage first, then what the agent makes of the archive, a few at a time."""

    async def proposing(archive: Archive) -> AsyncIterator[Point]:
        for point in every_model(archive):
            yield point
        guidelines: list[str] = []
        chance = by_chance(archive, seed)
        while True:
            prompt = stages_prompt(archive, guidelines)
            read = await heard(talk, prompt, lambda reply: read_candidates(archive, reply))
            if read is not None:
                guidelines, points = read
            else:
                points = _fresh(archive, chance, CANDIDATES)
            if not points:
                return
            for point in points:
                yield point

    return proposing


def stages_prompt(archive: Archive, guidelines: Sequence[str]) -> str:
    """What the agent is told: prices, what was tried, its guidelines."""
    space = archive.space
    prices = "\n".join(
        f"stage {number}: "
        + ", ".join(
            f"{name} {_percent(_sample_price(space, stage, place) / space.most)}"
            for place, name in enumerate(space.values[stage[0]])
        )
        for number, stage in enumerate(space.stages, start=1)
    )
    ranked = archive.ranked()
    tried = "\n".join(
        f"{json.dumps(_pipeline(space, trial.point))} score {_percent(trial.score or 0.0)}, "
        f"cost {_percent(space.cost(trial.point) / space.most)}"
        for trial in ranked[:_SHOWN]
    )
    best = ranked[0].point if ranked else (0,) * len(space.sizes)
    return _STAGES.format(
        stages=len(space.stages),
        prices=prices,
        amounts=", ".join(str(value) for value in space.values[space.stages[0][1]]),
        tried=tried or "none",
        guidelines="\n".join(f"- {text}" for text in guidelines) or "none",
        most=_GUIDELINES,
        wanted=CANDIDATES,
        example=json.dumps([_pipeline(space, best)]),
    )


def read_candidates(archive: Archive, reply: Mapping[str, Any]) -> tuple[list[str], list[Point]]:
    """Guidelines, and pipelines that were not tried; what costs too much has fewer samples.

    A pipeline is a list of [model, samples], one for each stage, with samples of at least 1, of which the next lower
    number that can be chosen is taken. Raises ValueError in a sentence where none can be used.
    """
    space = archive.space
    candidates = reply.get("candidates")
    if not isinstance(candidates, list):
        raise ValueError('It has no list "candidates".')
    wrong = "It has no candidate."
    points: list[Point] = []
    for candidate in candidates[: 4 * CANDIDATES]:
        try:
            point = _pipeline_point(space, candidate)
        except ValueError as cause:
            wrong = str(cause)
            continue
        if point in archive.known or point in points:
            wrong = "Its candidates were tried already."
            continue
        points.append(point)
    if not points:
        raise ValueError(wrong)
    told = reply.get("guidelines")
    texts = [text for text in told if isinstance(text, str)] if isinstance(told, list) else []
    return [" ".join(text.split())[:_GUIDELINE] for text in texts[:_GUIDELINES]], points[:CANDIDATES]


def _pipeline_point(space: SearchSpace, candidate: Any) -> Point:
    if not isinstance(candidate, list) or len(candidate) != len(space.stages):
        raise ValueError(f"A candidate must be a list of {len(space.stages)} stages.")
    point = [0] * len(space.sizes)
    for (model, amount), stage in zip(space.stages, candidate, strict=True):
        if not isinstance(stage, list) or len(stage) != 2:
            raise ValueError("A stage must be a list of a model and its samples.")
        name, samples = stage
        if name not in space.values[model]:
            raise ValueError(f"The models are {', '.join(map(str, space.values[model]))}.")
        if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
            raise ValueError("Samples must be a whole number of at least 1.")
        point[model] = space.values[model].index(name)
        fitting = [place for place, value in enumerate(space.values[amount]) if value <= samples]
        if not fitting:
            raise ValueError(f"Samples of a stage are at least {space.values[amount][0]}.")
        point[amount] = max(fitting)
    within = lowered(space, tuple(point))
    if not space.allowed(within):
        raise ValueError("Its candidates cost more than 100 even with the fewest samples.")
    return within


def _pipeline(space: SearchSpace, point: Point) -> list[list[Any]]:
    """As the agent reads and writes it."""
    return [[space.values[model][point[model]], space.values[amount][point[amount]]] for model, amount in space.stages]


def _sample_price(space: SearchSpace, stage: tuple[int, int], model: int) -> float:
    """What one more sample of a model costs in a stage."""
    more = [0] * len(space.sizes)
    more[stage[0]] = model
    fewest = space.cost(tuple(more))
    more[stage[1]] = 1 if space.sizes[stage[1]] > 1 else 0
    further = int(space.values[stage[1]][more[stage[1]]]) - int(space.values[stage[1]][0])
    return (space.cost(tuple(more)) - fewest) / max(further, 1)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


# ---------------------------------------------------------------------------------------------- graphs


async def chosen_mixes(
    talk: Talk, mixes: Sequence[Sequence[int]], alone: Mapping[str, float], prices: Sequence[int]
) -> list[int] | None:
    """The places of the two mixes, or the one there is, that the agent picks; None where it cannot be understood."""
    models = "\n".join(
        f"{role}: {_percent(score)} percent right, costs {price}"
        for (role, score), price in zip(alone.items(), prices, strict=True)
    )
    listed = "\n".join(f"{number}. {_mix(alone, mix)}" for number, mix in enumerate(mixes, start=1))
    wanted = min(2, len(mixes))

    def read(reply: Mapping[str, Any]) -> list[int]:
        told = reply.get("mixes")
        numbers = [one for one in told if type(one) is int] if isinstance(told, list) else []
        if len({*numbers}) != wanted or not all(1 <= number <= len(mixes) for number in numbers):
            raise ValueError(f'"mixes" must be {wanted} different numbers from 1 to {len(mixes)}.')
        return [number - 1 for number in dict.fromkeys(numbers)]

    return await heard(talk, _MIXES.format(models=models, mixes=listed), read)


def _mix(roles: Iterable[str], mix: Sequence[int]) -> str:
    return ", ".join(f"{count} x {role}" for role, count in zip(roles, mix, strict=True) if count)


def graph_agent(talk: Talk, graphs: AnswerGraphSpace, seed: int = 0) -> Propose:
    """Agent-REINFORCE: the agent reads the last graph, its accuracy and its table of edges, and writes the next ones.

    The first graph is drawn by chance. So is a later one where the agent could not be understood, by its table.
    """

    async def proposing(archive: Archive) -> AsyncIterator[Point]:
        table: dict[tuple[int, int], float] = {}
        rng = generator(seed, 3)
        points = _fresh(archive, by_chance(archive, seed), 1)
        while points:
            yield points[0]
            prompt = graph_prompt(archive, graphs, table)
            read = await heard(talk, prompt, lambda reply: read_graph(archive, graphs, reply))
            if read is not None:
                point, told = read
                table |= told
                points = [point]
            else:
                points = _fresh(archive, _by_table(graphs, table, rng), 1)

    return proposing


def _by_table(
    graphs: AnswerGraphSpace, table: Mapping[tuple[int, int], float], rng: np.random.Generator
) -> Iterable[Point]:
    """Graphs by the probabilities of the table, none of which is quite sure; edges that it does not name as before."""
    odds = [softmax(np.array(axis)) for axis in graphs.space.logits]
    for axis, pair in enumerate(graphs.pairs):
        if pair in table:
            share = min(max(table[pair], 0.05), 0.95)
            odds[axis] = np.array([1 - share, share])
    while True:
        yield drawn(odds, rng)


def graph_prompt(archive: Archive, graphs: AnswerGraphSpace, table: Mapping[tuple[int, int], float]) -> str:
    """What the agent is told: models, cap, the last rounds, and the table."""
    last = archive.trials[-_ROUNDS:]
    rounds = "\n".join(
        f"{json.dumps(_graph(graphs, trial.point))} accuracy "
        f"{'unknown' if trial.score is None else _percent(trial.score)}, "
        f"cost {_percent(graphs.cost(trial.point) / graphs.cap)}"
        for trial in last
    )
    named = {_edge(pair): round(share, 2) for pair, share in table.items()}
    return _GRAPH.format(
        count=graphs.count,
        mix=_mix(graphs.roles, graphs.mix),
        end=graphs.end,
        rounds=rounds,
        edge=round(float(1 / (1 + np.exp(-EDGE))), 2),
        table=json.dumps(named),
        example=json.dumps({**_graph(graphs, last[-1].point), "table": {"1>end": 0.3}}),
    )


def read_graph(
    archive: Archive, graphs: AnswerGraphSpace, reply: Mapping[str, Any]
) -> tuple[Point, dict[tuple[int, int], float]]:
    """The next graph, and new probabilities of edges.

    Edges that close a circle are dropped, and what costs too much loses nodes. Raises ValueError in a sentence where
    it names what is not there, has more nodes of a model than the mix, or was tried.
    """
    listed, end = reply.get("nodes"), reply.get("end")
    if not isinstance(listed, list) or not all(isinstance(node, dict) for node in listed):
        raise ValueError('It has no list "nodes" of objects.')
    if not isinstance(end, dict) or end.get("type") not in ENDS:
        raise ValueError(f'"end" must be an object with a type, {" or ".join(ENDS)}, and reads.')
    nodes = {_number(graphs, node.get("id")): node for node in listed}
    if len(nodes) < len(listed):
        raise ValueError("A node is there twice.")
    edges = [(read, number) for number, node in nodes.items() for read in _reads(graphs, node)]
    edges += [(read, END) for read in _reads(graphs, end)]
    for node in nodes.values():
        if node.get("type") not in TYPES:
            raise ValueError(f"The types of nodes are {' and '.join(TYPES)}.")
        if node.get("model") not in graphs.roles:
            raise ValueError(f"The models are {', '.join(graphs.roles)}.")
    left = dict(zip(graphs.roles, graphs.mix, strict=True))
    for node in nodes.values():
        left[node["model"]] -= 1
    if short := [role for role, count in left.items() if count < 0]:
        raise ValueError(f"There are more nodes of the model {short[0]} than {_mix(graphs.roles, graphs.mix)}.")
    if strange := {read for read, _ in edges} - {*nodes}:
        raise ValueError(f"Node {min(strange)} is read and not described.")
    spare = [role for role, count in left.items() for _ in range(count)]
    numbers = range(1, graphs.count + 1)
    point = graphs.repaired(
        graphs.point(
            edges,
            [nodes[number]["type"] if number in nodes else TYPES[0] for number in numbers],
            [nodes[number]["model"] if number in nodes else spare.pop(0) for number in numbers],
            end["type"],
        )
    )
    if point is None:
        raise ValueError("No node leads to the end within the cost.")
    if point in archive.known:
        raise ValueError("This graph was tried already.")
    return point, _read_table(graphs, reply.get("table", {}))


def _number(graphs: AnswerGraphSpace, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= graphs.count:
        raise ValueError(f"The numbers of nodes are from 1 to {graphs.count}.")
    return int(value)


def _reads(graphs: AnswerGraphSpace, node: Mapping[str, Any]) -> list[int]:
    reads = node.get("reads", [])
    if not isinstance(reads, list):
        raise ValueError('"reads" must be a list of numbers of nodes.')
    return list(dict.fromkeys(_number(graphs, read) for read in reads))


def _read_table(graphs: AnswerGraphSpace, told: Any) -> dict[tuple[int, int], float]:
    if not isinstance(told, dict):
        raise ValueError('"table" must be an object such as {"1>end": 0.3}.')
    names = {_edge(pair): pair for pair in graphs.pairs}
    table: dict[tuple[int, int], float] = {}
    for name, share in told.items():
        if name not in names:
            raise ValueError(f'"table" has edges such as "1>2" and "1>end", from 1 to {graphs.count}.')
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError("A probability must be from 0 to 1.")
        table[names[name]] = float(share)
    return table


def _edge(pair: tuple[int, int]) -> str:
    return f"{pair[0]}>{'end' if pair[1] == END else pair[1]}"


def _graph(graphs: AnswerGraphSpace, point: Point) -> dict[str, Any]:
    """As the agent reads and writes it; nodes that are not run are left out."""
    edges, types, models, end = graphs.parts(point)

    def reads(node: int) -> list[int]:
        return [first for first, then in edges if then == node]

    used = sorted({first for first, _ in edges})
    nodes = [{"id": n, "type": types[n - 1], "model": models[n - 1], "reads": reads(n)} for n in used]
    return {"nodes": nodes, "end": {"type": end, "reads": reads(END)}}
