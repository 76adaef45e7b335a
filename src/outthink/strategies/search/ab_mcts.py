"""AB-MCTS, adaptive branching tree search over whole answers: Thompson sampling decides whether to go wider or deeper.

Source: Wider or Deeper? (arXiv 2503.04412), its variants A and M and the choice between several models, read in the
authors' released code, treequest; the paper itself was not read. Differs: the prompt that refines an answer is that of
`revision`, and its feedback is the score; variant M draws from its posterior on a grid, not by MCMC.

Pays: where a check grades, such as the share of tests passed, and the model can repair. With nearly constant scores
it is close to random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import BudgetExhausted, EngineError, MissingResource, NothingCameBack, PromptTooLong
from outthink.maths.mixed import predicted
from outthink.maths.selection import best_of, codes, numbers
from outthink.model import Draw, Draws, Model, Models
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority, pick
from outthink.strategies.prompting import said_by
from outthink.strategies.sequential.revision import revision_prompt
from outthink.together import together, turn
from outthink.types import Candidate, Problem

Prior = Literal["gaussian", "beta", "mixed"]
Floats = NDArray[np.float64]

_M, _KAPPA, _NU, _T2 = 0.0, 1.0, 1.0, 0.1  # the Gaussian prior
_A, _B = 0.5, 0.5  # the Beta prior
_FEEDBACK = "\n\n(A check gave this attempt {score:.2f} of 1.)"
_SAME, _ENOUGH = 0.75, 4  # a subtree of so many nodes, of which so many have one score, is not gone down to (variant M)
_ASK = {"gaussian": 200, "beta": 200, "mixed": 3000}  # microseconds


def gaussian(observed: ArrayLike) -> tuple[Floats, Floats, Floats, Floats]:
    """The posterior (m, kappa, nu, t2), each (...,), of a normal-inverse-chi-square prior after scores (..., n).

    The variance is nu t2 / chi2(nu), and the mean is normal around m with variance / kappa. NaN is no score. The order
    of the scores does not matter.
    """
    scores = np.sort(np.asarray(observed, float), axis=-1)  # sums in one order are equal in the last digit, too
    n = (~np.isnan(scores)).sum(-1)
    mean = np.nansum(scores, -1) / np.maximum(n, 1)
    kappa, nu = _KAPPA + n, _NU + n
    spread = np.nansum((scores - mean[..., None]) ** 2, -1) + _KAPPA * n / kappa * (mean - _M) ** 2
    return (_KAPPA * _M + n * mean) / kappa, kappa, nu, (_NU * _T2 + spread) / nu


def beta(observed: ArrayLike) -> tuple[Floats, Floats]:
    """The posterior (a, b), each (...,), of a Beta prior after scores (..., n) in [0, 1], as above."""
    scores = np.sort(np.asarray(observed, float), axis=-1)
    return _A + np.nansum(scores, -1), _B + np.nansum(1.0 - scores, -1)


def thompson(observed: ArrayLike, prior: Prior, random: np.random.Generator) -> Floats:
    """A draw (...,) of the mean score from its posterior after scores (..., n); NaN is no score.

    With "mixed" it is that of "gaussian", which serves where nothing is a subtree.
    """
    if prior == "beta":
        return np.asarray(random.beta(*beta(observed)))
    m, kappa, nu, t2 = gaussian(observed)
    return np.asarray(random.normal(m, np.sqrt(nu * t2 / random.chisquare(nu) / kappa)))


@dataclass(eq=False, kw_only=True, slots=True)
class AnswerNode:
    """An answer in the tree; the root is none.

    Args:
        number: 0 is the root, then in the order in which they came.
        score: what the search was told, 0 where it is missing.
        wider: scores of the children.
        deeper: scores of all descendants of the children.
        draws: of its further children, by the role that writes them.
    """

    number: int = 0
    parent: AnswerNode | None = None
    candidate: Candidate | None = None
    score: float = 0.0
    children: list[AnswerNode] = field(default_factory=list)
    wider: list[float] = field(default_factory=list)
    deeper: list[float] = field(default_factory=list)
    draws: dict[str, Draws] = field(default_factory=dict)

    @property
    def below(self) -> list[float]:
        """Scores of the node and of everything below it."""
        return [self.score, *self.wider, *self.deeper]


class AnswerTree:
    """Says where the next answer is to be written, and learns from its score."""

    def __init__(self, prior: Prior) -> None:
        self.nodes = [AnswerNode()]
        self._prior = prior

    def ask(self, random: np.random.Generator) -> AnswerNode:
        """The node that gets the next child; asking changes nothing."""
        node = self.nodes[0]
        while node.children and (child := self._deeper(node, random)) is not None:
            node = child
        return node

    def _deeper(self, node: AnswerNode, random: np.random.Generator) -> AnswerNode | None:
        """The child to go down to; None for a new one here."""
        if self._prior == "mixed":
            children = [child for child in node.children if not _settled(child.below)]
            draws = predicted(_table([child.below for child in children]), random)
            return [*children, None][int(draws.argmax())]
        if self.goes_wider(node, random):
            return None
        draws = thompson(_table([child.below for child in node.children]), self._prior, random)
        return node.children[int(draws.argmax())]

    def goes_wider(self, node: AnswerNode, random: np.random.Generator) -> bool:
        """Whether a new child of the node is drawn as better than what its children lead to."""
        wider, deeper = thompson(_table([node.wider, node.deeper]), self._prior, random)
        return bool(wider >= deeper)

    def tell(self, parent: AnswerNode, candidate: Candidate, score: float) -> None:
        """An answer has come, with a score in [0, 1]."""
        child = AnswerNode(number=len(self.nodes), parent=parent, candidate=candidate, score=score)
        self.nodes.append(child)
        parent.children.append(child)
        parent.wider.append(score)
        above = parent.parent
        while above is not None:
            above.deeper.append(score)
            above = above.parent


def _settled(scores: Sequence[float]) -> bool:
    """Whether a subtree gives nearly always the same score."""
    most = Counter(round(score, 2) for score in scores).most_common(1)[0][1]
    return len(scores) >= _ENOUGH and most >= _SAME * len(scores)


def _table(rows: Sequence[Sequence[float]]) -> Floats:
    """Scores (k, longest), filled up with NaN."""
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for row, scores in zip(table, rows, strict=True):
        row[: len(scores)] = scores
    return table


@dataclass(frozen=True, kw_only=True)
class ABMCTS:
    """A tree of n answers; an answer is fresh or refines another one. The one with the highest score is the answer.

    The scores must be in [0, 1]. A missing one, and that of an answer that cannot be read, counts as 0 in the search.
    An answer that failed is told to nobody and not asked for again.

    Args:
        n: answers asked for; at least 1.
        batch: answers asked for at a time, at least 1: the search learns of their scores together, so a larger batch
            makes a wider tree. The authors advise at most 5.
        prior: of the mean score at a node: "gaussian", around 0 and heavy-tailed; "beta", with half a success and
            half a failure; "mixed" is variant M, in which children are groups of scores around a common mean.
        roles: further models that write, by the roles that they were given for; which one writes an answer is drawn by
            the scores of all answers of each.
        feedback: tell a model the score of the answer that it refines.
    """

    n: int = 16
    batch: int = 4
    prior: Prior = "gaussian"
    roles: tuple[str, ...] = ()
    feedback: bool = False

    @property
    def at_once(self) -> int:
        """Answers of a batch."""
        return min(self.n, self.batch)

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "batch"))
        if len({*self.roles, "model"}) <= len(self.roles):
            raise ValueError(f"roles must be different ones beside the main model, not {', '.join(self.roles)}")

    async def run(
        self, problem: Problem, report: Report, *, model: Model, models: Models, verifier: Scores, rng: Rng
    ) -> None:
        """One batch at a time; reports before its scores and after."""
        for role in self.roles:
            if not models.has(role):
                raise MissingResource(f"ab_mcts needs the model {role}: pass roles={{...}}, or --role {role}=MODEL.")
        writers = {"model": model, **{role: models.role(role) for role in self.roles}}
        written: dict[str, list[float]] = {role: [] for role in writers}
        tree = AnswerTree(self.prior)
        answers: list[Candidate] = []
        scores: dict[str, float | None] = {}
        failures: list[Exception] = []
        for first in range(0, self.n, self.batch):
            asks = range(first, min(first + self.batch, self.n))
            wishes: Counter[tuple[AnswerNode, str]] = Counter()
            for ask in asks:
                await turn(_ASK[self.prior])
                random = rng.at("ab_mcts", ask)
                node, role = tree.ask(random), "model"
                if self.roles:
                    role = [*writers][int(thompson(_table([*written.values()]), self.prior, random).argmax())]
                wishes[node, role] += 1
            grown = await together(
                *(self._grown(problem, writers[role], role, node, n) for (node, role), n in wishes.items())
            )
            new = [
                (node, role, child)
                for (node, role), children in zip(wishes, grown, strict=True)
                if isinstance(children, list)
                for child in children
            ]
            if new:
                answers += [child for *_, child in new]
                self._report(report, answers, scores)
                readable = [child for *_, child in new if child.key is not None]
                judgements = await verifier.attempt(problem, readable)
                scores.update(zip((child.id for child in readable), judgements, strict=True))
                for node, role, child in new:
                    score = _in_range(scores.get(child.id))
                    tree.tell(node, child, score)
                    written[role].append(score)
                self._report(report, answers, scores)
            failures += [failure for failure in grown if isinstance(failure, Exception)]
        if not answers:
            raise failures[-1]

    async def _grown(
        self, problem: Problem, model: Model, role: str, node: AnswerNode, n: int
    ) -> list[Candidate] | BudgetExhausted | NothingCameBack | PromptTooLong:
        """Up to n further children of the node; child k of it is sample k of its prompt, whenever it is asked for."""
        if role not in node.draws:
            node.draws[role] = await self._draws(problem, model, node)
        try:
            return await node.draws[role].draw(n)
        except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
            return failure  # the other answers of the batch stand

    async def _draws(self, problem: Problem, model: Model, node: AnswerNode) -> Draws:
        if node.candidate is None:
            return model.draws(problem)
        told = _FEEDBACK.format(score=node.score) if self.feedback else ""
        (said,) = (await said_by([node.candidate])).values()
        messages = revision_prompt(problem, [f"{said}{told}"])
        draw = Draw(messages=messages, parents=(node.candidate,))
        return model.lane("node", node.number).draws(problem, draw)

    def _report(self, report: Report, answers: Sequence[Candidate], scores: Mapping[str, float | None]) -> None:
        known = [scores.get(answer.id) for answer in answers]
        if all(score is None for score in known):
            chosen, share = by_majority(answers)
        else:  # of equal scores the earliest, as in the released code
            chosen, share = pick(answers, best_of(codes([answer.key for answer in answers]), numbers(known)))
        report(answers, chosen=chosen, scores=known, confidence=share)


def _in_range(score: float | None) -> float:
    """What the search is told; raises EngineError where the priors do not fit the score."""
    if score is not None and not 0 <= score <= 1:
        raise EngineError(
            f"AB-MCTS needs scores in [0, 1], and one is {score:.6g}: map them by a sigmoid or a fixed range first."
        )
    return 0.0 if score is None else score
