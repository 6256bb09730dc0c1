"""The commands that are no technique: what there is, replay, training and the tour."""

import json
from pathlib import Path
from typing import Any

import click

from optogram.cli import catalogue
from optogram.cli.atlases import atlas
from optogram.cli.manners import Failed, Interrupted, note, say, unbroken, working
from optogram.cli.options import DEBUG, DEVICE, JSON, WEIGHTS, checked_output, seed
from optogram.cli.serving import serve
from optogram.cli.studies import study
from optogram.cli.surveying import survey
from optogram.pictures.errors import RequestError

EVERYWHERE = (seed(), JSON, DEBUG)


@click.command(params=[*EVERYWHERE])
def networks(seed: int, as_json: bool) -> None:
    """List the networks that can be asked."""
    with unbroken():
        from optogram.zoo import networks as known
    _list(known(), ("name", "description"), as_json)


@click.command(params=[*EVERYWHERE])
def methods(seed: int, as_json: bool) -> None:
    """List the techniques."""
    _list(list((catalogue.ours() | catalogue.added()).items()), ("name", "summary"), as_json)


@click.command(params=[click.Argument(["net"], metavar="NET"), WEIGHTS, DEVICE, *EVERYWHERE])
def layers(net: str, weights: str | None, device: str | None, seed: int, as_json: bool) -> None:
    """List a network's layers: name, kind, output shape, units, receptive field."""
    with unbroken():
        from optogram.cli.reading import network
    with working():
        asked = network(net, weights, device)
        table = str(asked)
    if not as_json:
        say(table)
        return
    rows = [
        {"name": x.name, "kind": x.kind, "shape": x.shape, "units": x.units, "field": x.field.size}
        for x in asked.layers
    ]
    about = {"network": asked.name, "shape": asked.shape, "labels": asked.labels, "layers": rows}
    say(json.dumps(about))


@click.command(
    params=[
        click.Argument(["file"], metavar="FILE"),
        click.Option(["--image"], metavar="FILE", help="The image it is about, if that has moved."),
        DEVICE,
        *EVERYWHERE,
    ]
)
@click.pass_context
def replay(
    ctx: click.Context, file: str, image: str | None, device: str | None, seed: int, as_json: bool
) -> None:
    """Make a saved result again and say whether it is the same."""
    with unbroken():
        from optogram.cli.reading import moved, usable
        from optogram.zoo import replay as again
    with working():
        shown = None if image is None else moved(image, file)
        made = again(file, image=shown, device=None if device is None else usable(device))
    about = {"file": file, "identical": made.identical, "difference": made.difference}
    say(json.dumps(about | {"sentence": made.sentence}) if as_json else made.sentence)
    if not made.identical:
        ctx.exit(Failed.exit_code)


@click.command(
    params=[
        click.Argument(["name"], metavar="NET"),
        click.Option(
            ["-o", "--output"], metavar="FILE", required=True, help="A .safetensors file."
        ),
        click.Option(["--data-root"], metavar="DIR", help="Where data lie; else $OPTOGRAM_DATA."),
        click.Option(["--epochs"], type=click.IntRange(2), help="For tiny-alexnet and tiny-zfnet."),
        click.Option(
            ["--checkpoints/--no-checkpoints"],
            default=True,
            help="Keep the weights after some epochs, where the recipe of NET names such.",
        ),
        DEVICE,
        *EVERYWHERE,
    ]
)
def train(
    name: str,
    output: str,
    data_root: str | None,
    epochs: int | None,
    checkpoints: bool,
    device: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Train a network of the zoo; a run that was stopped goes on where it was."""
    checked_output(output, (".safetensors",))
    with unbroken():
        from optogram.cli.reading import usable
    try:
        with working() as watched:
            where = {"root": data_root, "device": str(usable(device or "cpu"))}
            long = {"epochs": epochs, "checkpoints": checkpoints}
            trained = _trained(watched, spec=name, out=output, seed=seed, **long, **where)
    except KeyboardInterrupt as stop:
        again = "interrupted; the same command goes on after the last epoch that was finished"
        raise Interrupted(again) from stop
    paths = [str(path) for path in (trained.weights, trained.account, trained.records)]
    if as_json:
        say(json.dumps({"paths": paths, "report": trained.report}))
    else:
        say(_good(trained.report["shipped"]))
        say("\n".join(map(click.format_filename, paths)))


@click.command(
    params=[
        click.Option(
            ["-o", "--output"],
            metavar="DIR",
            default="optogram-tour",
            show_default=True,
            help="The folder that the report is written into.",
        ),
        *EVERYWHERE,
    ]
)
def tour(output: str, seed: int, as_json: bool) -> None:
    """Show every technique on the embedded networks, in one HTML report."""
    if Path(output).is_file():
        raise RequestError(f"'{output}' is a file; give the name of a folder")
    with unbroken():
        from optogram.studies import tour as every_technique
    with working():
        report = every_technique(output, seed=seed)
    say(json.dumps({"path": str(report)}) if as_json else click.format_filename(report))


def _good(shipped: dict[str, Any]) -> str:
    """How good what was trained is: without classes, every number that was measured."""
    if "test_accuracy" in shipped:
        return f"{shipped['test_accuracy']:.2%} of the test images right"
    numbers = {name: n for name, n in shipped.items() if isinstance(n, int | float)}
    return ", ".join(f"{name.replace('_', ' ')} {n:.4g}" for name, n in numbers.items())


def _trained(watched: bool, **settings: Any) -> Any:
    """Run a training to its end; a terminal is told of every epoch."""
    from optogram.core.progress import tell
    from optogram.zoo.training import Progress
    from optogram.zoo.training import train as training

    for event in training(**settings):
        if not isinstance(event, Progress):
            return event
        done = (event.epoch - 1) * event.steps + event.step
        tell(settings["spec"], done, event.epochs * event.steps)
        if watched and event.step == event.steps:
            right = event.accuracy
            note(
                f"epoch {event.epoch} of {event.epochs}"
                + (f" ({event.lesson})" if event.lesson else "")
                + f": loss {event.loss:.4f}"
                + ("" if right is None else f", {right:.2%} of the test images right")
            )
    raise RuntimeError(f"the training of {settings['spec']!r} ended without a result")


def _list(rows: list[tuple[str, str]], names: tuple[str, str], as_json: bool) -> None:
    if as_json:
        say(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
        return
    width = max(len(name) for name, _ in rows)
    say("\n".join(f"{name:{width}}  {about}" for name, about in rows))


COMMANDS = (networks, methods, layers, replay, train, survey, atlas, tour, study, serve)
