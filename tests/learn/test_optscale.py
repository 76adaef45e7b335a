"""`outthink optscale fit`: a prior from a pool, as options of the strategy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.errors import UnknownName, UsageError
from outthink.learn.optscale import fit
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.optscale import OptScale, fit_prior
from tests.cli.test_cli import main


def written(path: Path, **scores: Any) -> Path:
    rows = [
        {
            "id": f"q{place}",
            "samples": [{"correct": True}] * 3,
            "scores": {name: each[place] for name, each in scores.items()},
        }
        for place in range(2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_it_prints_is_the_strategy_with_the_prior_of_the_pool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [[0.2, 0.4, None], [0.7, 0.9, 0.8]]
    pool = written(tmp_path / "pool.jsonl", rm=scores)
    prior, best = fit(pool)
    assert prior == pytest.approx(fit_prior([[0.2, 0.4], [0.7, 0.9, 0.8]]))
    assert best == pytest.approx(np.quantile([0.4, 0.9], [0.75, 0.5, 0.25]))
    result = main(["optscale", "fit", str(pool)], capsys, monkeypatch)
    said = re.search(r'"(optscale\?.*)TARGET"', result.out.replace("\n", ""))
    assert said is not None
    strategy = make_strategy(said[1] + "0.8")
    assert isinstance(strategy, OptScale)
    assert strategy.prior == pytest.approx(prior, rel=1e-3)


def test_what_it_cannot_be_read_from(tmp_path: Path) -> None:
    two = written(tmp_path / "two.jsonl", a=[[0.1, 0.2, 0.3]] * 2, b=[[1.0, 2.0, 3.0]] * 2)
    with pytest.raises(UsageError, match="several verifiers"):
        fit(two)
    with pytest.raises(UsageError, match=r"scores in \[0, 1\]"):
        fit(two, verifier="b")
    with pytest.raises(UnknownName):
        fit(two, verifier="c")
