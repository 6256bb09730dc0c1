"""How the program behaves: one sentence when something is wrong, no noise, a true exit code."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from threading import current_thread, main_thread
from typing import Any

import click

from optogram.pictures.errors import RequestError

LONGEST = 400


class Failed(click.ClickException):
    """A run that did not come to its end."""

    exit_code = 1


class Wrong(click.ClickException):
    """A request that cannot be met as it was made."""

    exit_code = 2


class Interrupted(click.ClickException):
    """Somebody pressed Ctrl-C."""

    exit_code = 130


def ending(problem: BaseException) -> click.ClickException:
    """What is said about a problem, in one sentence, and with which exit code."""
    said = _one_line(str(problem))
    match problem:
        case Failed() | Wrong() | Interrupted():
            return problem
        case KeyboardInterrupt() | click.Abort():
            return Interrupted("interrupted")
        case click.UsageError():
            return Wrong(_with_help(problem))
        case RequestError():
            return Wrong(said)
    name = type(problem).__name__
    return Failed(f"{name}{': ' if said else ''}{said} (--debug shows where it happened)")


def say(text: str) -> None:
    """Print a result. A reader that has gone away, as in `| head`, is no failure."""
    try:
        click.echo(text)
    except BrokenPipeError:
        # What Python still holds would be written at exit, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """Tell the person at the terminal something that is no part of the result."""
    click.echo(text, err=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of torch and its friends from the user, who cannot act on them."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


@contextmanager
def unbroken() -> Iterator[None]:
    """Import what loads torch, and hear Ctrl-C only then.

    Interrupted halfway, its C++ either aborts the process or swallows the interruption.
    """
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def working() -> Iterator[bool]:
    """Show how far the work is, on a terminal, and say whether there is one.

    What anyone below prints goes to standard error, so that it does not mix with results.
    """
    with redirect_stdout(sys.stderr):
        if not sys.stderr.isatty():
            yield False
            return
        from rich.console import Console
        from rich.progress import Progress

        from optogram.core.progress import listening

        bars: dict[str, Any] = {}  # the one that moved last stands last
        console = Console(stderr=True)
        with Progress(console=console, transient=True, redirect_stdout=False) as progress:

            def show(what: str, done: int, total: int) -> None:
                bars[what] = bars.pop(what) if what in bars else progress.add_task(what)
                progress.update(bars[what], completed=done, total=total, visible=True)
                for older in list(bars.values())[:-2]:
                    progress.update(older, visible=False)

            with listening(show):
                yield True


def _with_help(problem: click.UsageError) -> str:
    sentence = _one_line(problem.format_message()).rstrip(".")
    where = problem.ctx.command_path if problem.ctx else "optogram"
    return f"{sentence}; see '{where} --help'"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
