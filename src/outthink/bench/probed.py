"""Samples that are written piece by piece, with an answer forced after each piece, for pools of thoughts.

Every forced answer is a continuation of its own, and the thought goes on from where it was, without it. So what is
recorded is what a strategy would have seen that cuts thoughts there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from outthink.model import Draw, Model
from outthink.models.engine import confidences_of
from outthink.strategies import Report
from outthink.strategies.choosing import by_majority
from outthink.strategies.probing import Probing, Thoughts
from outthink.types import Candidate, Problem, Trace

_ANSWER = 64  # most tokens of a forced answer


@dataclass(frozen=True, kw_only=True)
class Probed:
    """All thoughts to their ends.

    Args:
        n: samples.
        every: tokens of a piece.
        forced: what forces an answer.
        draw: what else is asked of the pieces, such as logprobs.
    """

    n: int
    every: int
    forced: str
    draw: Draw

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch of pieces, then one of answers."""
        how = Probing(every=self.every, forced=self.forced, answer_tokens=_ANSWER, draw=self.draw)
        written = Thoughts(how, self.n, problem, model)
        while not (board := written.board()).ended.all():
            await written.write(np.where(board.ended, 0, 1)[0])
            now = written.answers(0)
            chosen, share = by_majority(now)
            report([one for one in now if one.address[0] == "model"], chosen=chosen, confidence=share)


def thoughts(trace: Trace, forced: str) -> list[tuple[Candidate, list[Candidate | None]]]:
    """Each sample of a trace as one candidate, with the answers that were forced within it, in order; None failed.

    One that came neither to an end nor to the most tokens that it may have, since a call failed, is left out.
    """
    following: dict[str, list[Candidate]] = {}
    for one in trace.candidates:
        if one.continues:
            following.setdefault(one.parents[0], []).append(one)
    samples = []
    for first in sorted((one for one in trace.candidates if not one.parents), key=lambda one: int(one.address[-1])):
        pieces: list[Candidate] = [first]
        probes: list[Candidate | None] = []
        while following.get(pieces[-1].id):
            next_pieces = []
            for one in following[pieces[-1].id]:
                if one.text == forced and not one.tokens:
                    probes.append(next(iter(following.get(one.id, [])), None))
                else:
                    next_pieces.append(one)
            if not next_pieces:
                break
            pieces.append(next_pieces[0])
        whole = _joined(pieces)
        if whole.finish != "length" or whole.tokens >= trace.sampling.cap:
            samples.append((whole, probes))
    return samples


def _joined(pieces: Sequence[Candidate]) -> Candidate:
    """The pieces of a sample as one."""
    ids, logprobs = [one.token_ids for one in pieces], [one.logprobs for one in pieces]
    near = [confidences_of(one.observed) for one in pieces]
    values = tuple(chain.from_iterable(each for each, _ in near))
    observed = {"top_logprobs": {"k": min((k for _, k in near if k), default=0), "confidences": values}}
    return replace(
        pieces[-1],
        text="".join(one.text for one in pieces),
        tokens=sum(one.tokens for one in pieces),
        token_ids=None if None in ids else tuple(chain.from_iterable(one for one in ids if one is not None)),
        logprobs=None if None in logprobs else tuple(chain.from_iterable(one for one in logprobs if one is not None)),
        observed=observed if values else {},
    )
