"""The options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from outthink.types import AnswerKind

DEFAULT_MODEL = "qwen2.5-coder-0.5b-instruct"


StrategyOption = Annotated[
    str, typer.Option("--strategy", "-s", help="A name from `outthink strategies`, or module:Name.")
]


ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Catalogue name, path of a GGUF, recorded pool, or address: http://HOST/v1[#MODEL]."
    ),
]


RoleOption = Annotated[
    list[str] | None, typer.Option("--role", help="Model of a further role, such as judge=NAME or fusor=NAME.")
]


VerifierOption = Annotated[
    str | None,
    typer.Option(
        "--verifier", help="Scores answers: confidence, judge, pairwise, tests, FILE.json, address or module:function."
    ),
]


PrmOption = Annotated[
    str | None,
    typer.Option(
        "--prm", help="Scores steps: confidence, judge, FILE.json of `outthink prm train`, address or module:function."
    ),
]


EmbedderOption = Annotated[
    str | None,
    typer.Option("--embedder", help="Compares steps: hashing, sentence-transformers:MODEL or module:name."),
]


BudgetOption = Annotated[
    str | None, typer.Option("--budget", "-b", help="Limits per problem, such as 20k-tokens,8s,0.01usd,2T-flops.")
]


TemperatureOption = Annotated[float, typer.Option(help="0 is greedy.")]


TopPOption = Annotated[float, typer.Option(help="Nucleus mass in (0, 1].")]


MaxTokensOption = Annotated[int, typer.Option(help="Most tokens of one sample.")]


SeedOption = Annotated[int, typer.Option(help="Seed of all randomness.")]


AnswerOption = Annotated[
    str | None, typer.Option("--answer", help=f"How answers are read: {', '.join(get_args(AnswerKind))}.")
]


TemplateOption = Annotated[
    str | None, typer.Option("--prompt-template", help="The prompt, with {question} where the question goes.")
]


PriceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        help="US dollars per million tokens: [ROLE=]PROMPT,COMPLETION, such as 0.15,0.60; auto: published; FILE.json.",
    ),
]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


HYPERPARAMETERS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Options that are not the command's own are the strategy's hyperparameters: --n 16 --balance 0.1."""


TaskArgument = Annotated[
    str,
    typer.Argument(help="gsm8k, math500, humaneval, mbpp, gym:NAME?key=value, or your own .jsonl, .json or .csv file."),
]


FileOption = Annotated[Path | None, typer.Option("--file", help="The file of a published set.")]


SplitOption = Annotated[str, typer.Option(help="Split of the task.")]


LimitOption = Annotated[int | None, typer.Option(help="Take only the first so many problems of the fixed order.")]


ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Most problems at once.")]


TokenizerOption = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Tells where tokens end in pools that do not say so: the model that wrote them."
    ),
]


FilesArgument = Annotated[
    list[Path], typer.Argument(help="One pool of the model, and run directories of other strategies on its problems.")
]


TargetOption = Annotated[
    Path | None, typer.Option("--target", help="Pool of a dearer model on the same problems, to go over to.")
]


ScoresOption = Annotated[
    Path | None, typer.Option("--scores", help="Run of best_of_n with a verifier over all samples of the pool.")
]


UnitOption = Annotated[Literal["tokens", "flops", "usd"], typer.Option(help="What costs are counted in.")]


BlockOption = Annotated[
    int,
    typer.Option(
        "--cache-block",
        min=0,
        help="Prompts are found in the cache in blocks of so many tokens (embedded: 32); the rest is read anew.",
    ),
]


WriterOption = Annotated[
    list[str] | None,
    typer.Option("--writer", help="Who wrote a pool that does not say: NAME, or target=NAME; gives it its FLOPs."),
]


def help_if_alone(context: typer.Context) -> None:
    """A command that only has further commands shows its help where none is named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def group(text: str) -> typer.Typer:
    """A command that only has further commands."""
    made = typer.Typer(help=text)
    made.callback(invoke_without_command=True)(help_if_alone)
    return made
