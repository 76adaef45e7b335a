"""How much of a tree of steps its paths share, from a trace.

Source: the unique tokens of a level are the size of the key-value cache in ETS (Hooper et al., arXiv 2502.13575, as in
its released code). Differs: all nodes that were sampled at a level count, since all are resident while they are
scored; and only what was written counts, the prompt, which every path shares, is left out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from outthink.types import Candidate, Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """Completion tokens of a tree.

    Args:
        logical: summed over the paths from a first step to a leaf, as if each had been written by itself.
        unique: written in fact; `logical` / `unique` is how often a token serves on average.
        cached: prompt tokens that the engine had in its cache, so did not read again.
        levels: steps of the longest path; a search by levels waits so many times.
        resident: unique tokens of the paths that end at a level, mean over levels.
        peak: the same at the level where they are most.
    """

    logical: int
    unique: int
    cached: int
    levels: int
    resident: float
    peak: int


def sharing(trace: Trace) -> Sharing:
    """The sharing of what the main model wrote; judges and other roles have no part in it."""
    nodes = {candidate.id: candidate for candidate in trace.candidates if candidate.address[0] == "model"}
    parents = {name: _parent(candidate, nodes) for name, candidate in nodes.items()}
    length: dict[str, int] = {}
    depth: dict[str, int] = {}
    for name in nodes:
        line = [name]
        while line[-1] not in length and (above := parents[line[-1]]) is not None:
            line.append(above)
        for node in reversed(line):
            above = parents[node]
            length[node] = nodes[node].tokens + (length[above] if above is not None else 0)
            # a text that was put there and not written, such as a prefill, is no step
            depth[node] = (nodes[node].tokens > 0) + (depth[above] if above is not None else 0)
    inner = {above for above in parents.values() if above is not None}
    levels: dict[int, list[str]] = defaultdict(list)
    for name, level in depth.items():
        if level:
            levels[level].append(name)
    unique = [sum(nodes[node].tokens for node in _union(ends, parents)) for _, ends in sorted(levels.items())]
    return Sharing(
        logical=sum(tokens for name, tokens in length.items() if name not in inner),
        unique=sum(node.tokens for node in nodes.values()),
        cached=trace.usage.cached,
        levels=len(levels),
        resident=sum(unique) / len(unique) if unique else 0.0,
        peak=max(unique, default=0),
    )


def _parent(candidate: Candidate, nodes: dict[str, Candidate]) -> str | None:
    """The candidate whose text it continues; a sample that was only made from others starts anew."""
    return candidate.parents[0] if candidate.continues and candidate.parents[0] in nodes else None


def _union(ends: list[str], parents: dict[str, str | None]) -> set[str]:
    """The nodes on the paths to `ends`."""
    above: set[str] = set()
    for end in ends:
        node: str | None = end
        while node is not None and node not in above:
            above.add(node)
            node = parents[node]
    return above
