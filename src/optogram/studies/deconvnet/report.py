"""The report of the study: nine sections, each with its claims, what was measured, its figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optogram.pictures import Report
from optogram.pictures.report import Section
from optogram.studies.course import claims_of, counted, show
from optogram.version import __version__

from .bench import Bench

TITLE = "Looking into a convolutional network, as Zeiler and Fergus did"
SUMMARY = """Visualizing and Understanding Convolutional Networks (Zeiler & Fergus, ECCV 2014;
arXiv 1311.2901, 2013) opened AlexNet with a deconvnet, found its first layer wanting, and mended
it. Each section repeats one of its experiments; a row for every claim says what was measured here.

A verdict is about this network, these images and these measures. "Opposite" means that what was
measured contradicts the claim, "not confirmed" that it does not bear it out.

"""
SECTIONS: tuple[tuple[str, str, str], ...] = (
    (
        "1. The transposed convolution",
        "A deconvnet's filter step is a transposed convolution; its other steps are unpooling to "
        "where the maximum came from, and a ReLU. None of them inverts anything.",
        "matrix",
    ),
    ("2. What excites each layer", "The paper's figure 2.", "features"),
    ("3. Evolution during training", "The paper's figure 4.", "evolution"),
    ("4. Invariance", "The paper's figure 5.", "invariance"),
    ("5. The old and the new first layer", "The paper's figure 6.", "architecture"),
    ("6. Occlusion", "The paper's figure 7.", "occlusion"),
    ("7. Correspondence", "The paper's table 1.", "correspondence"),
    ("8. How discriminative each layer is", "The paper's table 7.", "probes"),
    (
        "9. What removing layers costs",
        "The paper's table 3, which trained each network anew; here the first two stages keep "
        "their "
        "weights, and all above is trained anew for a few epochs, with all layers as well. "
        "Networks of another layout lose half of a layer's filters, and learn nothing anew.",
        "ablation",
    ),
    (
        "Average pooling in place of max pooling",
        "network.with_pooling('average'): the same weights, means instead of maxima.",
        "pooling",
    ),
)


def write(bench: Bench, accounts: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write `index.html` from the stored parts; returns its path."""
    folder = bench.shelf.folder
    recipe = {"optogram": __version__, "study": "deconvnet", **bench.network.recipe()}
    report = Report(TITLE, SUMMARY + _about(bench, claims_of(accounts)), recipe)
    for title, text, name in SECTIONS:
        section = report.section(title, text)
        show(section, accounts[name], folder)
        _tables(section, name, accounts[name]["numbers"])
    return report.save(folder / "index.html")


def _about(bench: Bench, claims: list[Any]) -> str:
    own = bench.accounts.get("own", {})
    text = (
        f"Network: {bench.network.name}. Images: {bench.images.name}, {len(bench.images)}. Of "
        f"{len(claims)} claims: {counted(claims)}."
    )
    if "shipped" in own:
        text += (
            f" The network is right for {own['shipped']['test_accuracy']:.1%} of "
            f"{own['data']['test']['images']} images of {own['data']['test']['name']} "
            f"(made by {own['command']})."
        )
    if bench.images.name.startswith("windows"):
        text += (
            " No set of photographs was found, so windows of the embedded ones stand in; where "
            "labels "
            "are needed, the photograph that a window is from is the label, left halves to learn "
            "from "
            "and right halves to be asked. Give --data-root or $OPTOGRAM_DATA for real ones."
        )
    return text + (" This was a quick run: fewer units, images and steps." if bench.quick else "")


def _tables(section: Section, name: str, numbers: Mapping[str, Any]) -> None:
    if name == "evolution" and "shared" in numbers:
        head = ["layer", *(f"epoch {epoch}" for epoch in numbers["epochs"]), "settles at"]
        rows = [
            [layer, *values, numbers["settled"][layer] or f"not before {numbers['final']}"]
            for layer, values in numbers["shared"].items()
        ]
        section.table(
            head, rows, "Share of a unit's final nine strongest images that are in its list."
        )
    if name == "architecture":
        keys = (
            "size",
            "stride",
            "filters",
            "aliased_in_filters",
            "aliased_in_answers",
            "off_on_all_images",
            "faint",
            "norm_spread",
        )
        rows = [[net, *(each[key] for key in keys)] for net, each in numbers["networks"].items()]
        section.table(["network", *(key.replace("_", " ") for key in keys)], rows)
    if name == "ablation" and "table" in numbers:
        rows = [
            [variant, each["weights"], each["training"], each["test"]]
            for variant, each in numbers["table"].items()
        ]
        section.table(["layers", "weights above the second stage", "training", "test"], rows)
    if name == "ablation" and "thinned" in numbers:
        rows = [
            [layer, each["filters"], each["removed"], *each["same_class"]]
            for layer, each in numbers["thinned"].items()
        ]
        draws = len(rows[0]) - 3
        heads = [f"same class, draw {draw + 1}" for draw in range(draws)]
        section.table(["layer", "filters", "removed", *heads], rows)
    if name == "correspondence":
        layers = numbers["layers"]
        parts = list(next(iter(layers.values())))
        rows = [[layer, *(each[part] for part in parts)] for layer, each in layers.items()]
        section.table(["layer", *(part.replace("_", " ") for part in parts)], rows)
