"""The commands that fit something for a strategy: prm, cascade, optscale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from outthink.cli.given import given_kind, writable_json
from outthink.cli.options import AnswerOption, JsonOption, MarkdownOption, SeedOption, TokenizerOption
from outthink.cli.parsing import Command, group
from outthink.cli.progress import Working
from outthink.cli.running import opened_tokenizer
from outthink.cli.shown import note, print_table
from outthink.errors import UsageError

prm_app = group("Train a small process reward model, and measure it.")


@prm_app.command("train", cls=Command)
def prm_train(
    pool: Annotated[Path, typer.Argument(help="A pool (.jsonl, .jsonl.gz) of `outthink pool`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .json file to write.")] = Path("probe.json"),
    delimiter: Annotated[str, typer.Option(help="What ends a step.")] = "\\n\\n",
    folds: Annotated[int, typer.Option(min=2, help="Parts of the cross-validation.")] = 5,
    values: Annotated[
        str | None,
        typer.Option(help="Learn which steps keep the chance to end right, by the step_scores of this scorer."),
    ] = None,
    bound: Annotated[
        float | None, typer.Option(help="With --values: the share of it that a good step keeps; else 0.8.")
    ] = None,
    model: TokenizerOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Learn which beginnings end right; `--prm FILE` uses it.

    It learns from the outcomes of recorded samples, or by relative progress with --values.
    """
    from outthink.jsonl import write_whole
    from outthink.learn.prm import TELL, train

    if bound is not None and values is None:
        raise UsageError("--bound is of --values: name the scorer whose values it is for.")
    writable_json(out)
    with opened_tokenizer(model) as tokenizer, Working("Training", unit="classifiers") as standing:
        trained = train(
            pool,
            delimiter=delimiter.replace("\\n", "\n"),
            folds=folds,
            seed=seed,
            tokenizer=tokenizer,
            values=values,
            **({} if bound is None else {"bound": bound}),
            tell=lambda text, done, total: standing.tell(done, total, text),
        )
    write_whole(out, trained.probe.text())
    if as_json:
        typer.echo(json.dumps(trained.plain(), indent=2))
        return
    print_table(trained.table())
    if trained.unclear:
        note(f"Of {trained.unclear} samples it is not known which logprobs belong to which step; {TELL}.")
    typer.echo(f"{out}: use it as --verifier {out} or --prm {out}")


@prm_app.command("eval", cls=Command)
def prm_eval(
    probe: Annotated[Path, typer.Argument(help="A file of `outthink prm train`.")],
    files: Annotated[
        list[Path], typer.Argument(help="Pools it was not trained on, or solutions whose first error is marked.")
    ],
    threshold: Annotated[float, typer.Option(help="Below it a step is taken for wrong.")] = 0.5,
    fit: Annotated[Path | None, typer.Option(help="Marked solutions on which to fit the threshold instead.")] = None,
    model: TokenizerOption = None,
    as_json: JsonOption = False,
    as_markdown: MarkdownOption = False,
) -> None:
    """How good a trained process reward model is.

    That is how well it ranks, is calibrated, chooses among samples and finds first errors.
    """
    from outthink.learn.evaluation import evaluate
    from outthink.rewards.trained import TrainedPRM

    opened = TrainedPRM.open(probe)
    with opened_tokenizer(model) as tokenizer, Working("Measuring"):
        measured = evaluate(opened, files, threshold=threshold, fit_on=fit, tokenizer=tokenizer)
    if as_json:
        typer.echo(json.dumps(measured.plain(), indent=2))
    elif as_markdown:
        typer.echo(measured.markdown())
    else:
        for heading, table in measured.tables():
            typer.echo(heading)
            print_table(table)
    for line in measured.sentences():
        typer.echo(("- " if as_markdown else "") + line) if not as_json else None


cascade_app = group("How often a dear model takes over, for the strategy cascade.")


@cascade_app.command("fit", cls=Command)
def cascade_fit(
    pool: Annotated[Path, typer.Argument(help="A pool (.jsonl, .jsonl.gz) of the cheap model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .json file to write.")] = Path("cascade.json"),
    signal: Annotated[
        Literal["agreement", "logprob", "verifier"], typer.Option(help="What says how badly a draft conforms.")
    ] = "agreement",
    n: Annotated[int, typer.Option(min=1, help="Samples of a draft.")] = 4,
    model: Annotated[str | None, typer.Option(help="Who wrote the pool, where it does not say.")] = None,
    verifier: Annotated[str | None, typer.Option(help="Which scores of the pool to take for verifier.")] = None,
    answer: AnswerOption = None,
    seed: SeedOption = 0,
) -> None:
    """Store how drafts of a cheap model score.

    With the file, `--strategy cascade` calls the dear model at a chosen rate. The rate is controlled on questions like
    those of the pool; how often an answer is wrong is not.
    """
    from outthink.jsonl import write_whole
    from outthink.learn.cascade import fit

    writable_json(out)
    fitted = fit(
        pool,
        signal=signal,
        n=n,
        model=model,
        verifier=verifier,
        answer="text" if answer is None else given_kind(answer),
        seed=seed,
    )
    write_whole(out, fitted.calibration.text())
    for line in fitted.sentences():
        typer.echo(line)
    calibration = fitted.calibration
    typer.echo(
        f"{out}: use it as --strategy cascade --role draft={calibration.model} --signal {signal} --n {n} "
        f"--calibration {out} --alpha RATE"
    )


optscale_app = group("What scores to expect, for the strategy optscale.")


@optscale_app.command("fit", cls=Command)
def optscale_fit(
    pool: Annotated[Path, typer.Argument(help="A pool (.jsonl, .jsonl.gz) with scores from 0 to 1.")],
    verifier: Annotated[str | None, typer.Option(help="Which scores of the pool to take.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read the prior of `optscale` from recorded scores.

    The options that it prints are for other questions of the same kind, with the same model and verifier.
    """
    from outthink.learn.optscale import fit

    prior, best = fit(pool, verifier=verifier)
    if as_json:
        typer.echo(json.dumps({**prior._asdict(), "best": best}, indent=2))
        return
    typer.echo(
        f"With all samples a quarter of the problems have a best score of {best[0]:.3g}, half of them {best[1]:.3g} "
        f"and three quarters {best[2]:.3g}: choose the target by that."
    )
    options = "&".join(f"{name}={value:.4g}" for name, value in prior._asdict().items())
    typer.echo(f'Use it as --strategy "optscale?{options}&target=TARGET"')
