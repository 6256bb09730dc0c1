"""The command that shows a data set to a network and keeps what it excites in a folder."""

import json
from typing import Any

import click

from optogram.cli.manners import Interrupted, say, unbroken, working
from optogram.cli.options import DEBUG, JSON, LAYERS, NET_AND_DATA, PATCHES, SHOWN, seed


@click.command(
    params=[
        *NET_AND_DATA,
        click.Option(
            ["-o", "--output"],
            metavar="DIR",
            required=True,
            help="The folder of the survey; one that was interrupted there goes on.",
        ),
        LAYERS,
        PATCHES,
        click.Option(
            ["--places"],
            type=click.Choice(["strongest", "all"]),
            default="strongest",
            show_default=True,
            help="Whether an image counts once for a unit, or with all its places.",
        ),
        click.Option(
            ["--statistics"],
            type=click.Choice(["none", "moments", "all"]),
            default="all",
            show_default=True,
            help="How much to learn beside the strongest patches.",
        ),
        click.Option(["--batch"], type=int, help="Images shown at once; else what suits them."),
        click.Option(["--shard-size"], type=int, help="Images that are one piece of work."),
        *SHOWN,
        seed(),
        JSON,
        DEBUG,
    ]
)
def survey(
    net: str,
    data: str,
    output: str,
    weights: str | None,
    device: str | None,
    split: str,
    data_root: str | None,
    seed: int,
    as_json: bool,
    layers: tuple[str, ...],
    engine: str,
    workers: int | None,
    address: str | None,
    shard: tuple[int, int] | None,
    shard_size: int | None,
    **settings: Any,
) -> None:
    """Show a data set to a network once: what excites every unit, and how each behaves.

    The folder holds units.parquet, one row a unit, arrays.safetensors and survey.json, which other
    programs read too.
    """
    with unbroken():
        from optogram.atlas.engines import engine as engine_called
        from optogram.atlas.work import survey_with
        from optogram.cli.reading import network
        from optogram.survey import make
        from optogram.survey.run import Unfinished
        from optogram.zoo import data as data_set

    try:
        with working():
            asked = network(net, weights, device)
            images = data_set(data, root=data_root, split=split, shape=asked.shape)
            chosen, settings["shard"] = list(layers) or None, shard_size
            if engine != "serial":
                who = engine_called(
                    engine, workers=workers, address=address, devices=(device,) if device else ()
                )
                survey_with(
                    who, len(images), output, net=net, data=data, layers=chosen, weights=weights,
                    split=split, data_root=data_root, settings=settings,
                )  # fmt: skip
            held = make(asked, images, chosen, directory=output, share=shard, **settings)
    except Unfinished as rest:
        say(str(rest))
        return
    except KeyboardInterrupt as stop:
        again = "interrupted; the same command goes on after the last shard that was finished"
        raise Interrupted(again) from stop
    units = {name: layer.units for name, layer in held.layers.items()}
    if as_json:
        about = {"path": output, "units": units, "images": held.part.images, "dead": held.dead}
        say(json.dumps(about | {"skipped": held.part.skipped}))
        return
    skipped = f", {len(held.part.skipped)} that cannot be read" if held.part.skipped else ""
    many = f"{sum(units.values())} units of {len(units)} layers"
    say(f"{many} on {held.part.images} images{skipped}")
    say(f"{len(held.dead)} units opened on no image")
    say(click.format_filename(output))
