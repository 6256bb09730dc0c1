"""The commands about atlases: every unit of a network in a folder."""

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from optogram.cli.manners import Failed, Interrupted, say, unbroken, working
from optogram.cli.options import DEBUG, JSON, LAYERS, NET_AND_DATA, PATCHES, SHOWN, seed
from optogram.pictures.errors import RequestError

EVERYWHERE = (seed(), JSON, DEBUG)
FOLDER = click.Argument(["folder"], metavar="DIR")


@click.group()
def atlas() -> None:
    """Build, check and share an atlas: every unit of a network, in a folder."""


@atlas.command(
    params=[
        *NET_AND_DATA,
        click.Option(
            ["-o", "--output"],
            metavar="DIR",
            required=True,
            help="The folder of the atlas. What is there already is not computed again.",
        ),
        LAYERS,
        click.Option(
            ["--units"],
            metavar="UNITS",
            multiple=True,
            help="Units that get patches and pictures, as in 'conv1:0-9'; else all of the layers.",
        ),
        click.Option(
            ["--pictures"],
            metavar="NAMES",
            default="positive,negative",
            show_default=True,
            help="Which pictures to make: positive, negative, facets; or none.",
        ),
        click.Option(
            ["--recipe"],
            metavar="FILE",
            multiple=True,
            help="A JSON file of another kind of picture; may be repeated.",
        ),
        PATCHES,
        click.Option(
            ["--project"],
            type=click.Choice(["auto", "deconvnet", "guided", "gradient", "none"]),
            default="auto",
            show_default=True,
            help="What stands beside the patches.",
        ),
        click.Option(
            ["--directions"],
            metavar="LAYER=FILE",
            multiple=True,
            help="A .npy or .safetensors matrix whose rows become units of a layer; may be "
            "repeated.",
        ),
        click.Option(
            ["--plan", "only_plan"],
            is_flag=True,
            help="Build nothing: say what shards there would be, the hours and the bytes.",
        ),
        *SHOWN,
        *EVERYWHERE,
    ]
)
def build(
    net: str,
    data: str,
    output: str,
    layers: tuple[str, ...],
    units: tuple[str, ...],
    pictures: str,
    recipe: tuple[str, ...],
    directions: tuple[str, ...],
    shard: tuple[int, int] | None,
    only_plan: bool,
    engine: str,
    workers: int | None,
    address: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Put every unit into a folder: statistics, patches, pictures.

    A build that was stopped goes on; one that asks for more adds it. Several may run at once.
    """
    with unbroken():
        from optogram.atlas import build as built
        from optogram.atlas import plan
    settings |= {
        "layers": list(layers) or None,
        "units": list(units) or None,
        "pictures": [] if pictures == "none" else [name.strip() for name in pictures.split(",")],
        "recipes": list(recipe),
        "vectors": dict(_pair(text) for text in directions),
    }
    if only_plan:
        with working():
            planned = plan(net, data, output, **settings)
        say(json.dumps(_planned(planned)) if as_json else _costs(planned))
        return
    try:
        with working():
            who: dict[str, Any] = {
                "engine": engine,
                "workers": workers,
                "address": address,
                "share": shard,
            }
            made = built(net, data, output, **settings, **who)
            facts = made.info()
    except KeyboardInterrupt as stop:
        again = "interrupted; the same command goes on after the last shard that was finished"
        raise Interrupted(again) from stop
    say(json.dumps(facts) if as_json else _lines(facts))


@atlas.command(params=[FOLDER, *EVERYWHERE])
def info(folder: str, seed: int, as_json: bool) -> None:
    """Say what is in an atlas and what is missing."""
    facts = _opened(folder).info()
    say(json.dumps(facts) if as_json else _lines(facts))


@atlas.command(params=[FOLDER, *EVERYWHERE])
@click.pass_context
def verify(ctx: click.Context, folder: str, seed: int, as_json: bool) -> None:
    """Read every byte and say what is damaged or missing; what is damaged goes to DIR/bad."""
    with unbroken():
        from optogram.atlas import verify as verified
    with working():
        found = verified(folder)
    if as_json:
        about = {"damaged": found.damaged, "missing": found.missing, "litter": list(found.litter)}
        facts = {"shards": found.shards, "clean": found.clean, "manifest": found.manifest}
        say(json.dumps({**facts, **about}))
    else:
        lines = [f"{path}: {why}; moved to bad" for path, why in found.damaged.items()]
        lines += [f"missing: {count} units of {what}" for what, count in found.missing.items()]
        lines += [f"left over: {path}" for path in found.litter]
        lines.append(f"{found.shards} shards, {'clean' if found.clean else 'not clean'}")
        say("\n".join([*lines, f"manifest {found.manifest}"]))
    if not found.clean:
        ctx.exit(Failed.exit_code)


@atlas.command(params=[FOLDER, *EVERYWHERE])
def reindex(folder: str, seed: int, as_json: bool) -> None:
    """Make the index anew from the shards."""
    with working():
        count = _opened(folder).reindex()
    say(json.dumps({"shards": count}) if as_json else f"{count} shards")


@atlas.command(
    params=[
        FOLDER,
        click.Option(["-o", "--output"], metavar="DIR", required=True, help="A new folder."),
        click.Option(
            ["--parquet-images"],
            is_flag=True,
            help="Parquet files with the pictures in a column, instead of pages.",
        ),
        *EVERYWHERE,
    ]
)
def export(folder: str, output: str, parquet_images: bool, seed: int, as_json: bool) -> None:
    """Write pages that open without a server, or Parquet files with pictures, for sharing."""
    with working():
        opened = _opened(folder)
        if parquet_images:
            from optogram.atlas.export import export_parquet

            paths = [str(path) for path in export_parquet(opened, output)]
        else:
            paths = [str(_pages().export(opened, Path(output)))]
    say(json.dumps({"paths": paths}) if as_json else click.format_filename(output))


def _opened(folder: str) -> Any:
    with unbroken():
        from optogram.atlas import open as opened
    return opened(folder)


def _pages() -> Any:
    """What writes the pages: the explorer's own templates, by name, for the rooms are neighbours.

    Raises RequestError where the explorer is not installed.
    """
    try:
        return importlib.import_module("optogram.web.export")
    except ImportError as problem:
        raise RequestError(
            f"the pages need what `pip install 'optogram[web]'` installs ({problem}); "
            f"--parquet-images needs nothing more"
        ) from problem


def _pair(text: str) -> tuple[str, str]:
    layer, equals, file = text.partition("=")
    if not equals or not layer or not file:
        raise RequestError(f"{text!r} names no directions: write LAYER=FILE, as in fc7=sae.npy")
    return layer, file


def _planned(plan: Any) -> dict[str, Any]:
    whole = {name: getattr(plan, name) for name in ("shards", "hours", "device", "seconds")}
    sizes = {"survey_bytes": plan.survey_bytes, "picture_bytes": plan.picture_bytes}
    return {**whole, **sizes, "costs": [asdict(cost) for cost in plan.costs]}


def _costs(plan: Any) -> str:
    lines = [f"{'':14}{'shards':>8}{'units':>10}{'device hours':>14}{'MB':>10}"]
    for cost in plan.costs:
        said = f"{cost.name:14}{cost.shards:8}{cost.units:10}{cost.hours:14.3g}"
        lines.append(f"{said}{cost.bytes / 1e6:10.3g}")
    lines.append(f"{'':14}{plan.shards:8}{'':10}{plan.hours:14.3g}")
    meanwhile = sum(cost.meanwhile for cost in plan.costs)
    lines += [
        f"survey part: {plan.survey_bytes / 1e6:.3g} MB, and {meanwhile / 1e6:.3g} MB until it is "
        "merged",
        f"picture part: {plan.picture_bytes / 1e6:.3g} MB",
        f"calibrated on {plan.device} in {plan.seconds:.0f} s; nothing was built",
    ]
    return "\n".join(lines)


def _lines(facts: dict[str, Any]) -> str:
    units = sum(layer["units"] for layer in facts["layers"])
    size = sum(facts["bytes"].values()) / 1e6
    lines = [
        f"{units} units of {len(facts['layers'])} layers of {facts['network']['name']}",
        *(f"{d['images']} images of {d['name']} {d['split']}" for d in facts["datasets"]),
        *(f"{r['name']}: {r['shards']} shards" for r in facts["recipes"]),
        *(f"missing: {count} units of {what}" for what, count in facts["missing"].items()),
        f"{size:.1f} MB, {facts['notes']} notes, manifest {facts['manifest'][:12]}",
        click.format_filename(facts["path"]),
    ]
    return "\n".join(lines)
