"""What the samples drawn so far say: which answer leads under a learned vote, and the features that predict its worth.

Source: adaptive-consistency's Beta posterior (Aggarwal et al. 2023), the weighted votes of `selection`, and compute-
optimal scaling's difficulty from a few samples (Snell et al. 2024); read as said there. Differs: one vector of features
holds all of them, so that what to do next can be learned; features that do not exist are NaN and never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from outthink.strategies.parallel.adaptive_consistency import leader_probability

Floats = NDArray[np.float64]

_ALWAYS = (
    "empty",
    "log_samples",
    "log_target_samples",
    "share",
    "runner_up_share",
    "vote_share",
    "ahead",
    "distinct",
    "entropy",
    "invalid",
    "share_x_log_samples",
    "ahead_x_log_samples",
    "log_prompt",
    "log_tokens",
    "leader_length",
)
_OF_SIGNAL = ("leader_mean", "leader_best", "mean", "others_best", "leader_mean_x_share")
_OF_TARGET = ("target_share", "draft_share", "agree")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Seen:
    """Samples of some problems in the order in which they were drawn; all arrays (..., n) but `prompt`.

    Args:
        keys: equal numbers are equal answers; -1 is INVALID.
        tokens: completion tokens.
        paths: equal numbers are equal texts.
        target: whether the dearer model wrote it.
        signals: what speaks for a sample, by name, such as its mean logprob or a verifier's score; NaN where missing.
        prompt: (...,) tokens of the prompt, NaN where unknown.
    """

    keys: NDArray[np.intp]
    tokens: Floats
    paths: NDArray[np.intp]
    target: NDArray[np.bool_]
    signals: Mapping[str, Floats]
    prompt: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """A vote in which a sample weighs exp(sum over signals of coefficient * (signal - centre)).

    All coefficients 0 is the majority. The sample of a problem that lacks a signal weighs as the average one does.

    Args:
        coefficients: by signal; `target`: of the samples of the dearer model, so that each is worth exp(target) votes.
        centres: mean of each signal where the vote was fitted.
        copy: of a sample whose text an earlier one has too, at most 0; far below 0 such a text counts once.
    """

    coefficients: Mapping[str, float] = field(default_factory=dict)
    centres: Mapping[str, float] = field(default_factory=dict)
    target: float = 0.0
    copy: float = 0.0

    def weights(self, seen: Seen) -> Floats:
        """(..., n) weights, at least 0; INVALID weighs nothing."""
        logs = np.where(seen.target, self.target, 0.0)
        for signal, coefficient in self.coefficients.items():
            if coefficient:
                off = seen.signals[signal] - self.centres[signal]
                logs = logs + coefficient * np.where(np.isnan(off), 0.0, off)
        if self.copy:
            same = seen.paths[..., :, None] == seen.paths[..., None, :]
            earlier = np.tri(seen.paths.shape[-1], k=-1, dtype=bool)
            logs = logs + np.where((same & earlier).any(-1), self.copy, 0.0)
        return np.where(seen.keys >= 0, np.exp(np.clip(logs, -60.0, 60.0)), 0.0)


def leaders(seen: Seen, vote: Vote) -> NDArray[np.intp]:
    """(...,) position of the first sample with the leading answer; -1 where no answer is valid."""
    valid = seen.keys >= 0
    same = (seen.keys[..., :, None] == seen.keys[..., None, :]) & valid[..., None, :]
    of_answer = np.where(valid, (same @ vote.weights(seen)[..., None])[..., 0], -1.0)
    return np.where(valid.any(-1), of_answer.argmax(-1), -1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """What `evidence` found.

    Args:
        leader: (...,) position of the first sample with the leading answer; -1 where no answer is valid.
        share: (...,) its share of all weight.
        features: (..., f) as `feature_names` names them; NaN where one does not exist.
    """

    leader: NDArray[np.intp]
    share: Floats
    features: Floats


def feature_names(signals: Sequence[str], *, target: bool) -> tuple[str, ...]:
    """Names of the features, in their order."""
    of_signals = tuple(f"{signal}_{name}" for signal in signals for name in _OF_SIGNAL)
    return (*_ALWAYS, *of_signals, *(_OF_TARGET if target else ()))


def evidence(seen: Seen, vote: Vote, signals: Sequence[str], *, target: bool) -> Evidence:
    """The leader of the vote and the features of each set of samples.

    Args:
        signals: which of the signals are features.
        target: whether the features of a dearer model are there.
    """
    keys, n = seen.keys, seen.keys.shape[-1]
    shape = keys.shape[:-1]
    count = len(feature_names(signals, target=target))
    log_prompt = np.log(np.maximum(seen.prompt, 1.0))
    if n == 0:
        features = np.full((*shape, count), np.nan)
        features[..., :3] = (1.0, 0.0, 0.0)
        features[..., _ALWAYS.index("log_prompt")] = log_prompt
        return Evidence(leader=np.full(shape, -1, dtype=np.intp), share=np.zeros(shape), features=features)
    valid = keys >= 0
    weights = vote.weights(seen)
    same = (keys[..., :, None] == keys[..., None, :]) & valid[..., None, :]  # row i: the samples that answer as i does
    of_answer = np.where(valid, (same @ weights[..., None])[..., 0], 0.0)  # never 0 where valid
    votes = np.where(valid, same.sum(-1), 0)
    total = weights.sum(-1)
    some = valid.any(-1)
    leader = np.where(some, of_answer.argmax(-1), -1)
    place = np.maximum(leader, 0)[..., None]
    mine = np.take_along_axis(same, place[..., None], -2)[..., 0, :]
    others = valid & ~mine
    led = _at(votes, place)
    share = np.where(some, _at(of_answer, place) / np.where(some, total, 1.0), 0.0)
    runner_up = np.where(others, of_answer, 0.0).max(-1) / np.where(some, total, 1.0)
    ahead = leader_probability(led, np.where(others, votes, 0).max(-1))
    samples = np.where(seen.target, 0, 1).sum(-1)
    log_samples, log_target = np.log1p(samples), np.log1p(n - samples)
    portion = weights / np.where(some, total, 1.0)[..., None]
    entropy = -(portion * np.log(np.where(valid, of_answer, 1.0) / np.where(some, total, 1.0)[..., None])).sum(-1)
    mean_tokens = seen.tokens.mean(-1)
    columns = [
        np.zeros(shape),
        log_samples,
        log_target,
        share,
        runner_up,
        led / n,
        np.where(some, ahead, 0.5),
        (valid / np.maximum(votes, 1)).sum(-1) / n,
        entropy / np.log(n + 1),
        1 - valid.mean(-1),
        share * np.log1p(n),
        np.where(some, ahead, 0.5) * np.log1p(n),
        log_prompt,
        np.log1p(mean_tokens),
        _mean(seen.tokens, mine) / np.maximum(mean_tokens, 1.0),
    ]
    for signal in signals:
        value = seen.signals[signal]
        known = ~np.isnan(value)
        of_leader = _mean(value, mine & known)
        columns += [
            of_leader,
            _most(value, mine & known),
            _mean(value, known),
            _most(value, others & known),
            of_leader * share,
        ]
    if target:
        drafted, dear = valid & ~seen.target, valid & seen.target
        columns += [
            _mean(mine.astype(float), dear),
            _mean(mine.astype(float), drafted),
            np.where((mine & drafted).any(-1) & (mine & dear).any(-1), 1.0, 0.0),
        ]
    return Evidence(leader=leader, share=share, features=np.stack(np.broadcast_arrays(*columns), -1))


def _at(values: NDArray[np.generic], place: NDArray[np.intp]) -> NDArray[np.generic]:
    return np.take_along_axis(values, place, -1)[..., 0]


def _mean(values: Floats, mask: NDArray[np.bool_]) -> Floats:
    """Mean over the last axis of the values that are meant; NaN where there are none."""
    count = mask.sum(-1)
    total = np.where(mask, values, 0.0).sum(-1)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))


def _most(values: Floats, mask: NDArray[np.bool_]) -> Floats:
    largest = np.where(mask, values, -np.inf).max(-1)
    return np.asarray(np.where(np.isneginf(largest), np.nan, largest))
