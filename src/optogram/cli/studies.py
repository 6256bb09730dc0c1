"""`optogram study`: the experiments of the seeds, from data to a report, a command each."""

import json
from pathlib import Path
from typing import Any

import click

from optogram.cli.manners import Interrupted, say, unbroken, working
from optogram.cli.options import DEBUG, JSON, seed
from optogram.pictures.errors import RequestError

FOLDER = click.Option(
    ["-o", "--output"], metavar="DIR", required=True, help="The folder of the report and its parts."
)
DATA_ROOT = click.Option(
    ["--data-root"], metavar="DIR", help="Where data lie; else $OPTOGRAM_DATA."
)
QUICK = click.Option(["--quick"], is_flag=True, help="Less of everything, in under two minutes.")


@click.group(invoke_without_command=True, params=[JSON, DEBUG])
@click.pass_context
def study(ctx: click.Context, as_json: bool) -> None:
    """Repeat an experiment and write a report; alone, list what there is."""
    if ctx.invoked_subcommand is not None:
        return
    rows = [(name, command.get_short_help_str(100)) for name, command in study.commands.items()]
    if as_json:
        say(json.dumps([{"name": name, "summary": about} for name, about in rows]))
        return
    width = max(len(name) for name, _ in rows)
    say("\n".join(f"{name:{width}}  {about}" for name, about in rows))


@study.command(
    "mlp-neurons",
    params=[
        FOLDER,
        DATA_ROOT,
        click.Option(
            ["--weights"],
            metavar="FILE",
            help="Of a network from 'optogram train mnist-mlp'; else the shipped ones.",
        ),
        QUICK,
        *(seed(), JSON, DEBUG),
    ],
)
def mlp_neurons(
    output: str, data_root: str | None, weights: str | None, quick: bool, seed: int, as_json: bool
) -> None:
    """What hidden neurons of an MNIST network respond to: every claim of the document, measured.

    Takes minutes. What is finished is stored in DIR at once; the same command goes on from there.
    """
    asked = {"data_root": data_root, "weights": weights, "quick": quick, "seed": seed}
    _repeat("mlp_neurons", output, as_json, **asked)


@study.command("higher-layers", params=[FOLDER, DATA_ROOT, QUICK, *(seed(), JSON, DEBUG)])
def higher_layers(
    output: str, data_root: str | None, quick: bool, seed: int, as_json: bool
) -> None:
    """What units of a belief network and an autoencoder stand for, by three techniques, measured.

    Takes minutes. What is finished is stored in DIR at once; the same command goes on from there.
    """
    _repeat("higher_layers", output, as_json, data_root=data_root, quick=quick, seed=seed)


def _repeat(name: str, output: str, as_json: bool, **asked: Any) -> None:
    """Run a study of `optogram.studies` and say where its report is."""
    if Path(output).is_file():
        raise RequestError(f"'{output}' is a file; give the name of a folder")
    with unbroken():
        from optogram import studies

        repeat = getattr(studies, name)
    try:
        with working():
            report = repeat(output, **asked)
    except KeyboardInterrupt as stop:
        again = "interrupted; the same command goes on after the last part that was finished"
        raise Interrupted(again) from stop
    say(json.dumps({"path": str(report)}) if as_json else click.format_filename(report))


@study.command(
    "deconvnet",
    params=[
        FOLDER,
        click.Option(
            ["--network"], metavar="NET", default="tiny-zfnet", show_default=True,
            help="What is looked into; it must have convolutions and ReLUs.",
        ),
        click.Option(["--weights"], metavar="FILE", help="Its weights; else the shipped ones."),
        click.Option(
            ["--images"], metavar="DATA", help="What it is shown; else photographs that are there."
        ),
        click.Option(
            ["--checkpoints"], metavar="PATH",
            help="The network after some epochs: a folder, or what 'optogram train' kept.",
        ),
        DATA_ROOT,
        QUICK,
        *(seed(), JSON, DEBUG),
    ],
)  # fmt: skip
def deconvnet(output: str, seed: int, as_json: bool, **settings: Any) -> None:
    """Look into a convolutional network as Zeiler and Fergus did: nine experiments, one report.

    Takes minutes. What is finished is stored in DIR at once; the same command goes on from there.
    """
    if Path(output).is_file():
        raise RequestError(f"'{output}' is a file; give the name of a folder")
    with unbroken():
        from optogram.studies import deconvnet_study as look

    try:
        with working():
            report = look(output, seed=seed, **settings)
    except KeyboardInterrupt as stop:
        again = "interrupted; the same command goes on after the last part that was finished"
        raise Interrupted(again) from stop
    say(json.dumps({"path": str(report)}) if as_json else click.format_filename(report))
