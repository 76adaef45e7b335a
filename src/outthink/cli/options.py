"""The options that several commands share, each written once: alone, and in the blocks that commands take whole.

A block is a dataclass whose fields are options; a command that has it as a parameter (see `takes_blocks`) has them all.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

import typer

from outthink.cli import completing
from outthink.types import AnswerKind

if TYPE_CHECKING:
    from outthink.models.engine import Price
    from outthink.records.frames import Frame
    from outthink.reports.figures import Figure
    from outthink.types import Problem, Sampling

DEFAULT_MODEL = "qwen2.5-coder-0.5b-instruct"


PriceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        metavar="PRICE",
        help="US dollars per million tokens: [ROLE=]PROMPT,COMPLETION, such as 0.15,0.60; auto: published; FILE.json.",
    ),
]


AnswerOption = Annotated[
    str | None,
    typer.Option(
        "--answer",
        help=f"How answers are read: {', '.join(get_args(AnswerKind))}.",
        autocompletion=completing.answer_kinds,
    ),
]


SeedOption = Annotated[int, typer.Option(help="Seed of all randomness.")]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print Markdown.")]


FigureOption = Annotated[Path | None, typer.Option(help="Draw into this .svg, .png, .pdf or .html file.")]


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Files into which what is shown is written, too."""

    block: ClassVar[bool] = True

    csv: Annotated[Path | None, typer.Option("--csv", help="Write the numbers into this .csv file.")] = None
    latex: Annotated[Path | None, typer.Option("--latex", help="Write the table into this .tex file (booktabs).")] = (
        None
    )
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Write the numbers into this .parquet file.")] = None
    figure: FigureOption = None

    @property
    def asked(self) -> bool:
        """Whether any file is wanted."""
        return any(path is not None for path in (self.csv, self.latex, self.parquet, self.figure))

    def check(self) -> None:
        """Raises UsageError, before anything is computed, where one of the files cannot be written."""
        from outthink.cli.given import writable_as
        from outthink.records.frames import check_parquet
        from outthink.reports.figures import check

        for path, suffix in ((self.csv, ".csv"), (self.latex, ".tex"), (self.parquet, ".parquet")):
            if path is not None:
                writable_as(path, suffix)
        if self.parquet is not None:
            check_parquet()
        if self.figure is not None:
            check(self.figure)

    def write(
        self, frame: Frame, columns: Sequence[str], rows: Sequence[Sequence[str]], figure: Callable[[], Figure]
    ) -> None:
        """Write what was asked for: the numbers, the table that people read, the figure."""
        from outthink.jsonl import write_whole
        from outthink.reports.figures import save
        from outthink.reports.tables import latex_table

        if self.csv is not None:
            write_whole(self.csv, frame.csv())
        if self.latex is not None:
            write_whole(self.latex, latex_table(columns, rows, made_by=shlex.join(["outthink", *sys.argv[1:]])))
        if self.parquet is not None:
            frame.write_parquet(self.parquet)
        if self.figure is not None:
            save(figure(), self.figure)


QuestionArgument = Annotated[
    str | None,
    typer.Argument(help="The question, in quotes; read from standard input where it is - or left out."),
]


TaskArgument = Annotated[
    str,
    typer.Argument(
        help="gsm8k, math500, humaneval, mbpp, ineqmath, gym:NAME?key=value, or your own .jsonl, .json or .csv file.",
        autocompletion=completing.tasks,
    ),
]


BudgetOption = Annotated[
    str | None, typer.Option("--budget", "-b", help="Limits per problem, such as 20k-tokens,8s,0.01usd,2T-flops.")
]


TotalBudgetOption = Annotated[
    str | None,
    typer.Option("--total-budget", help="Of all problems together, such as 1M-tokens; auto with a plan spreads it."),
]


VerifierOption = Annotated[
    str | None,
    typer.Option(
        "--verifier",
        help="Scores answers: confidence, judge, pairwise, tests, FILE.json, address or module:function.",
        autocompletion=completing.scorers,
    ),
]


@dataclass(frozen=True, kw_only=True)
class StrategyOptions:
    """Which method runs, and what it may spend on a problem."""

    block: ClassVar[bool] = True

    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            "-s",
            help="A name from `outthink strategies`, or module:Name.",
            autocompletion=completing.strategies,
        ),
    ] = "self_consistency"
    budget: BudgetOption = None

    def limits(self, *opened: Any) -> str | None:
        """As it was given, for units are counted by what is opened later; raises UsageError where it cannot be read.

        Args:
            opened: names of what may count further units; where there is none, a unit that is not known is refused.
        """
        from outthink.driver import as_budget

        as_budget(self.budget, None if any(opened) else ())
        return self.budget


@dataclass(frozen=True, kw_only=True)
class QuestionStrategyOptions(StrategyOptions):
    """The same for one question, of which nothing has to be comparable."""

    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            "-s",
            help="A name from `outthink strategies`, or module:Name; auto looks whether there is anything to vote on.",
            autocompletion=completing.strategies,
        ),
    ] = "auto"


RoleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        metavar="ROLE=MODEL[,...]",
        help="Models of roles, such as judge=NAME or fusor=NAME; generator=NAME is --model.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model writes answers, and what its tokens cost."""

    block: ClassVar[bool] = True

    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Catalogue name, path of a GGUF, recorded pool, or address: http://HOST/v1[#MODEL].",
            autocompletion=completing.models,
        ),
    ] = DEFAULT_MODEL
    role: RoleOption = None
    price: PriceOption = None

    @property
    def own(self) -> bool:
        """Whether one may be an engine of the caller's own, module:Name, which may count further units."""
        return bool(self.role) or (":" in self.model and not self.model.startswith(("http://", "https://")))

    def prices(self) -> dict[str, Price | str]:
        """By role; raises UsageError where one cannot be read."""
        from outthink.cost.price import read_prices

        return read_prices(self.price)


ResourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="NAME=GIVEN",
        help="A further resource of the strategy, such as memory=module:Name?OPTION=VALUE.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ResourceOptions:
    """What a strategy may use besides the model."""

    block: ClassVar[bool] = True

    verifier: VerifierOption = None
    prm: Annotated[
        str | None,
        typer.Option(
            "--prm",
            help="Scores steps: confidence, judge, FILE.json of `outthink prm train`, address or module:function.",
            autocompletion=completing.scorers,
        ),
    ] = None
    embedder: Annotated[
        str | None,
        typer.Option("--embedder", help="Compares steps: hashing, sentence-transformers:MODEL or module:name."),
    ] = None
    resource: ResourceOption = None


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How a question is put, and how its answer is read."""

    block: ClassVar[bool] = True

    answer: AnswerOption = None
    prompt_template: Annotated[
        str | None, typer.Option("--prompt-template", help="The prompt, with {question} where the question goes.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class QuestionOptions(AnswerOptions):
    """What is known of one question; where nothing is, its own words are the prompt and a reply is its answer."""

    options: Annotated[
        str | None, typer.Option("--options", metavar="A,B,C", help="The labels of a multiple-choice question.")
    ] = None
    schema: Annotated[Path | None, typer.Option("--schema", help="A JSON Schema that the answer must fit.")] = None
    tests: Annotated[
        Path | None, typer.Option("--tests", help="Python that raises where code is wrong; --verifier tests runs it.")
    ] = None

    def problem(self, question: str) -> Problem:
        """The question as a problem; raises UsageError where a file is none."""
        from outthink.answers.asking import ask
        from outthink.cli.given import given_kind, given_schema, given_text
        from outthink.types import Code

        return ask(
            question,
            answer=given_kind(self.answer),
            template=self.prompt_template,
            options=tuple(label for part in (self.options or "").split(",") if (label := part.strip())),
            schema=None if self.schema is None else given_schema(self.schema),
            code=None if self.tests is None else Code(tests=(given_text(self.tests),)),
        )


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How samples are drawn."""

    block: ClassVar[bool] = True

    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8
    top_p: Annotated[float, typer.Option(help="Nucleus mass in (0, 1].")] = 1.0
    max_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of one sample; else 512, or fewer so that several fit the budget.")
    ] = None
    seed: SeedOption = 0

    def sampling(self) -> Sampling:
        """Raises UsageError where one is out of range."""
        from outthink.errors import UsageError
        from outthink.types import Sampling

        try:
            return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)
        except ValueError as cause:
            raise UsageError(f"{cause}.") from None


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Which problems of a task are taken, and how many at once."""

    block: ClassVar[bool] = True

    file: Annotated[Path | None, typer.Option("--file", help="The file of a published set.")] = None
    split: Annotated[str | None, typer.Option(help="Split of the task; by default test, of ineqmath dev.")] = None
    limit: Annotated[int | None, typer.Option(help="Take only the first so many problems of the fixed order.")] = None
    concurrency: Annotated[int, typer.Option(min=1, help="Most problems at once.")] = 16

    def examples(self, task: str, asked: AnswerOptions, seed: int) -> Any:
        """The examples of the task; raises UsageError where there is none such."""
        from outthink import tasks
        from outthink.cli.given import given_kind

        kind = None if asked.answer is None else given_kind(asked.answer)
        return tasks.load(
            task,
            path=self.file,
            split=self.split,
            limit=self.limit,
            template=asked.prompt_template,
            answer=kind,
            seed=seed,
        )


TokenizerOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Tells where tokens end in pools that do not say so: the model that wrote them.",
        autocompletion=completing.models,
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


PoolScorerOption = Annotated[
    str | None, typer.Option("--verifier", help="Which scores of the pool are the verifier's; by default the first.")
]


UnitOption = Annotated[
    Literal["tokens", "flops", "usd", "samples"],
    typer.Option(help="What costs are counted in; samples need no tokens."),
]


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
