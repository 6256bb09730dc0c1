"""The command that opens the explorer, which this room does not know and finds by its name."""

import importlib
import json
from typing import Any

import click

from optogram.cli.manners import say, unbroken
from optogram.cli.options import DEBUG, JSON, WEIGHTS, seed


@click.command(
    params=[
        click.Argument(["folders"], metavar="DIR...", nargs=-1, required=True),
        click.Option(
            ["--host"],
            default="127.0.0.1",
            show_default=True,
            help="Where to listen; anywhere but on this machine a token is asked for.",
        ),
        click.Option(
            ["--port"],
            type=click.IntRange(0, 65535),
            help="Which port; 0 for any that is free.  [default: 8411, else a free one]",
        ),
        click.Option(["--token"], metavar="TEXT", help="What a visitor must show; else made up."),
        click.Option(
            ["--read-only"], is_flag=True, help="Only show: no notes, no work, no uploads kept."
        ),
        click.Option(
            ["--network"],
            metavar="NET",
            help="The network to ask, if it is not found by the name in the atlas.",
        ),
        WEIGHTS,
        seed(),
        JSON,
        DEBUG,
    ]
)
def serve(
    folders: tuple[str, ...],
    host: str,
    port: int | None,
    token: str | None,
    read_only: bool,
    network: str | None,
    weights: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Open the explorer of an atlas; further atlases are there to compare with.

    Ctrl-C ends it.
    """
    if token is not None and len(token) < 8:
        raise click.UsageError("a --token has at least 8 letters")
    if weights is not None and network is None:
        raise click.UsageError("--weights are those of a --network: give both")

    def told(address: str) -> None:
        say(json.dumps({"address": address}) if as_json else f"{address}  (Ctrl-C ends it)")

    settings: dict[str, Any] = {"host": host, "port": port, "token": token}
    source = None if network is None else (network, weights)
    with unbroken():
        door = importlib.import_module("optogram.web")
    door.serve(folders, **settings, live=not read_only, source=source, say=told)
