"""The options that many commands share, and the words for them."""

import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from optogram.pictures.errors import RequestError

DEBUGGING = "optogram.debug"


def _remember(ctx: click.Context, _: click.Parameter, on: bool) -> None:
    """Say where the program looks when something goes wrong."""
    ctx.meta[DEBUGGING] = on or ctx.meta.get(DEBUGGING, False)


def _speak(ctx: click.Context, _: click.Parameter, on: bool) -> None:
    """Print what optogram itself tells its logger, to standard error, until the command ends."""
    if not on:
        return
    log, handler = logging.getLogger("optogram"), logging.StreamHandler(sys.stderr)
    level, spread, least = log.level, log.propagate, logging.root.manager.disable

    def close() -> None:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = spread
        logging.disable(least)

    ctx.call_on_close(close)
    logging.disable(logging.NOTSET)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


OUTPUT = click.Option(
    ["-o", "--output"],
    metavar="FILE",
    help="Where the result goes; the suffix says in which form.",
)
TARGET = click.Option(
    ["--target"],
    metavar="UNIT",
    multiple=True,
    help="A UNIT by another name; without any, the network's first answer to the image.",
)
MOVIE = click.Option(
    ["--movie"],
    metavar="FILE",
    help="A film of the picture being made: .webp, or .mp4 where PyAV is installed.",
)
WEIGHTS = click.Option(
    ["--weights"],
    metavar="FILE",
    help="The network's weights: .safetensors, or a state dict; 'random' for untrained ones.",
)
DEVICE = click.Option(["--device"], metavar="NAME", help="Where to run, as in cuda:0.")
JSON = click.Option(
    ["--json", "as_json"], is_flag=True, help="Print the result as JSON, for programs."
)
DEBUG = click.Option(
    ["--debug"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_remember,
    help="Show the traceback of an error.",
)
VERBOSE = click.Option(
    ["--verbose"],
    is_flag=True,
    expose_value=False,
    callback=_speak,
    help="Say what was planned, and what could not be done the fast way.",
)


ENGINE = (
    click.Option(
        ["--engine"],
        type=click.Choice(["serial", "processes", "ray"]),
        default="serial",
        show_default=True,
        help="Who works: this process, several of this machine, or a Ray cluster.",
    ),
    click.Option(["--workers"], type=int, help="How many; else one a device, or a core."),
    click.Option(["--address"], metavar="HOST:PORT", help="The Ray cluster; else one starts here."),
    click.Option(
        ["--shard"],
        metavar="I/N",
        callback=lambda ctx, parameter, text: _share(text),
        help="Be number I (from 0) of N programs on one folder, which need not end together.",
    ),
)


NET_AND_DATA = (
    click.Argument(["net"], metavar="NET"),
    click.Argument(["data"], metavar="DATA"),
)
LAYERS = click.Option(
    ["--layers"],
    metavar="NAME",
    multiple=True,
    help="A layer, or a pattern such as '*conv*'; may be repeated. Else all with weights.",
)
PATCHES = click.Option(["--k"], type=int, default=9, show_default=True, help="Patches a unit.")
SHOWN = (
    click.Option(["--split"], default="train", show_default=True, help="Which part of DATA."),
    click.Option(["--data-root"], metavar="DIR", help="Where data lie; else $OPTOGRAM_DATA."),
    *ENGINE,
    WEIGHTS,
    DEVICE,
)
"""Where images come from, and who shows them to the network."""


def _share(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and int(number) < int(of)):
        raise RequestError(f"--shard {text}: should be I/N with I from 0 to N - 1, as in 0/4")
    return int(number), int(of)


def seed(default: int = 0) -> click.Option:
    """`--seed`, which every command takes, whether or not it draws random numbers."""
    return click.Option(
        ["--seed"],
        type=int,
        default=default,
        show_default=True,
        help="Decides every random number.",
    )


def checked_output(path: str, suffixes: Sequence[str]) -> str:
    """The path, if a file of one of these kinds can be written there.

    Raises RequestError before any work is done: for an unknown suffix, and for a folder that is not
    there or takes no files.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes:
        raise RequestError(
            f"'{path}' cannot be saved as '{suffix}'; choose one of {', '.join(suffixes)}"
        )
    if os.path.isdir(path):
        raise RequestError(f"'{path}' is a folder; give the name of a file in it")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise RequestError(f"there is no folder '{folder}' to write '{path}' into; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            return path
    except OSError as problem:
        raise RequestError(
            f"'{path}' cannot be written: its folder takes no files ({problem.strerror})"
        ) from problem
