"""A sweep is the product of its lists, in an order that shows everything early, and its folders outlive edits."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from outthink.bench.sweep import Sweep, SweepCell, read_sweep
from outthink.errors import UsageError

REPEATED = frozenset({"role", "price"})
WHOLE = """
out = "there"
task = ["a.jsonl", "gsm8k"]
seed = [0, 1]
limit = 5
concurrency = 3

[[model]]
name = "small"

[[model]]
name = "http://host/v1#org/large"
price = ["1,2", "judge=3,4"]

[[strategy]]
name = "greedy"

[[strategy]]
name = ["self_consistency", "perplexity_consistency"]
n = [4, 8]
max-tokens = 64
"""


def sweep(tmp_path: Path, text: str) -> Sweep:
    file = tmp_path / "many.toml"
    file.write_text(text, encoding="utf-8")
    return read_sweep(file, repeated=REPEATED)


def test_it_is_the_product_of_its_lists(tmp_path: Path) -> None:
    made = sweep(tmp_path, WHOLE)
    assert len(made.cells) == 2 * 2 * 2 * (1 + 2 * 2)
    assert made.out == Path("there")
    assert len({cell.digest for cell in made.cells}) == len({cell.title for cell in made.cells}) == 40
    assert made.cells[1].words() == [
        "a.jsonl", "--seed=0", "--limit=5", "--concurrency=3", "--model=small", "--strategy=self_consistency", "--n=4",
        "--max-tokens=64",
    ]  # fmt: skip
    large = next(cell for cell in made.cells if "large" in cell.title)
    assert [word for word in large.words() if "price" in word] == ["--price=1,2", "--price=judge=3,4"]
    assert large.title == "a-greedy-large-seed0"


def test_a_model_is_opened_once_and_every_strategy_is_tried_before_a_further_seed(tmp_path: Path) -> None:
    cells = sweep(tmp_path, WHOLE).cells
    models = [cell.options["model"] for cell in cells]
    assert models == sorted(models, key=models.index)
    first = [(cell.options["seed"], cell.options["task"]) for cell in cells[:20]]
    assert first == [(seed, task) for seed in (0, 1) for task in ("a.jsonl", "gsm8k") for _ in range(5)]
    assert len({(cell.options["strategy"], cell.options.get("n")) for cell in cells[:5]}) == 5


FACTORS = """
task = "a"
one_at_a_time = true
prompt = ["step by step", "direct", "with reflection"]
temperature = [0.7, 0.0, 0.6, 0.8, 0.9]
top_p = [0.9, 0.6, 0.7, 0.8, 1.0]
verifier = ["random", "self", "self, answer only", "judge", "reward", "step critic"]
seed = [0, 1]
strategy = ["best_of_n", "self_consistency"]
"""


def test_one_factor_at_a_time_has_16_settings_in_place_of_450(tmp_path: Path) -> None:
    cells = sweep(tmp_path, FACTORS).cells
    assert len(cells) == 16 * 2 * 2
    whole = sweep(tmp_path, FACTORS.replace("one_at_a_time = true", "")).cells
    assert len(whole) == 450 * 2 * 2
    factors = ("prompt", "temperature", "top_p", "verifier")
    for seed, strategy in itertools.product((0, 1), ("best_of_n", "self_consistency")):
        ours = [c.options for c in cells if (c.options["seed"], c.options["strategy"]) == (seed, strategy)]
        base = {"prompt": "step by step", "temperature": 0.7, "top_p": 0.9, "verifier": "random"}
        assert {name: ours[0][name] for name in factors} == base
        for options in ours[1:]:
            assert sum(options[name] != base[name] for name in factors) == 1
        assert 0.0 in [options["temperature"] for options in ours]
    # the same runs as those of the whole product, so that their folders serve both
    assert {cell.digest for cell in cells} < {cell.digest for cell in whole}


def test_without_lists_one_factor_at_a_time_is_one_run(tmp_path: Path) -> None:
    assert len(sweep(tmp_path, 'task = "a"\nstrategy = "b"\none-at-a-time = true').cells) == 1


def test_tables_go_before_what_holds_for_all(tmp_path: Path) -> None:
    made = sweep(
        tmp_path,
        'task = "a.jsonl"\ntemperature = [0.2, 1.0]\n[[strategy]]\nname = "greedy"\ntemperature = 0.5\n'
        '[[strategy]]\nname = "x"\nflag = true\ntemps = [[0.1, 0.9]]\nrole = [["judge=a"], ["judge=b", "c=d"]]\n',
    )
    words = [" ".join(cell.words()[1:]) for cell in made.cells]
    assert words[0] == "--temperature=0.5 --strategy=greedy"
    assert len(words) == 1 + 2 * 2
    assert words[2] == "--temperature=0.2 --strategy=x --flag=true --temps=0.1,0.9 --role=judge=b --role=c=d"


def test_a_folder_stays_a_cells_own_when_the_file_is_edited(tmp_path: Path) -> None:
    """One value more on any axis, or another order, redoes nothing; another setting is another folder."""
    text = 'task = "a.jsonl"\nlimit = 5\nstrategy = "greedy"\n'
    (before,) = sweep(tmp_path, text).cells
    before.folder(tmp_path).mkdir()
    edited = text.replace("limit = 5", "limit = [5, 9]\nconcurrency = 2")
    same, new = sweep(tmp_path, edited).cells
    assert same.title != before.title
    assert same.folder(tmp_path) == before.folder(tmp_path)
    assert new.folder(tmp_path) not in (same.folder(tmp_path), before.folder(tmp_path))


def test_cells_that_differ_in_their_seed_are_one_method(tmp_path: Path) -> None:
    cells = sweep(tmp_path, WHOLE).cells
    assert len({cell.method() for cell in cells}) == 20


def test_each_cell_is_a_command(tmp_path: Path) -> None:
    made = sweep(tmp_path, 'task = "a b.jsonl"\nstrategy = "greedy"\n')
    (cell,) = made.cells
    assert cell.command(made.out) == [
        "outthink",
        "bench",
        "a b.jsonl",
        "--strategy=greedy",
        f"--out=runs/many/a-b-greedy-{cell.digest}",
    ]


def test_names_of_folders_are_short_and_plain() -> None:
    cell = SweepCell(options={"task": "t"}, title="../é\n" + "x" * 400)
    name = cell.folder(Path("out")).name
    assert len(name) <= 110
    assert name.isascii()
    assert "/" not in name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task = ", "is no TOML"),
        ('strategy = "greedy"', 'names no task: write task = "NAME"'),
        ('task = "a"', "names no strategy"),
        ('task = "a"\nstrategy = 3', "each strategy is a name, or a table with a name"),
        ('task = "a"\n[[strategy]]\nn = 3', "each strategy is a name, or a table with a name"),
        ('task = "a"\nstrategy = "b"\nlimit = []', "limit is an empty list"),
        ('task = "a"\nstrategy = "b"\nlimit = 2026-01-01', "limit cannot be"),
        ('task = "a"\nstrategy = "b"\n[options]\nn = 3', "options is a table"),
        ('task = "a"\nstrategy = ["b", "b"]', "has the run a-b twice"),
        ('task = "a"\nstrategy = "b"\nout = 3', "out is a path"),
        ('task = "a"\nstrategy = "b"\none_at_a_time = 3', "one_at_a_time is true or false"),
        (f'task = "a"\nstrategy = "b"\nseed = {list(range(101))}\nn = {list(range(100))}', "more than 10,000 runs"),
    ],
)
def test_a_file_that_says_nothing_sensible_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"many\.toml") as refused:
        sweep(tmp_path, text)
    assert said in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Cannot read .*nothing\.toml: No such file"):
        read_sweep(tmp_path / "nothing.toml")
