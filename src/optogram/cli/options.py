"""The options that many commands share, and the words for them."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from optogram.pictures.errors import RequestError

DEBUGGING = "optogram.debug"


def _remember(ctx: click.Context, _: click.Parameter, on: bool) -> None:
    """Say where the program looks when something goes wrong."""
    ctx.meta[DEBUGGING] = on or ctx.meta.get(DEBUGGING, False)


OUTPUT = click.Option(
    ["-o", "--output"],
    metavar="FILE",
    help="Where the result goes; the suffix says in which form.",
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
