"""The report of the study: a row for every claim of the document, the figures, and all units."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optogram.pictures import Report, Sheet
from optogram.studies.course import claims_of, counted, show
from optogram.version import __version__

from .bench import LAYERS, Bench
from .everyone import pictures

TITLE = "What the hidden neurons of an MNIST network respond to"
SUMMARY = """The document that this repeats trained a network of 784-1250-1000-750-500-250-100-32-10
neurons to read handwritten digits, made pictures of them by gradient ascent, and drew conclusions.
Each of them has a row here: what it says, what was measured here, and whether the two agree. The
document came without its figures and lists few of its settings; where it names none, ours are in
the captions and in the code.

A verdict is about this network and these measures. "Opposite" means that what was measured
contradicts the claim; "not confirmed" that it does not bear it out.

"""
SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Training", "", ("training",)),
    (
        "No regularisation: noise that works",
        "Ascent from an image of 0.01 on the probability of an output, or on a hidden unit's "
        "pre-activation.",
        ("noise",),
    ),
    (
        "From a digit: adversarial examples",
        "Test digits that the network reads rightly, moved to each of the nine other classes.",
        ("adversaries",),
    ),
    (
        "Total variation",
        "The document's rule adds the regularisers' gradients to the raw image, past the clip. Its "
        "sign "
        "has the same size however small a difference is, so at a fixed step size a large weight "
        "makes "
        "pixels jump to and fro; Huber's differences and steps that shrink do not.",
        ("smoothing",),
    ),
    ("Total variation and L1", "", ("sparsity", "one-unit")),
    (
        "Hidden layers 7, 5, 3 and 1",
        "Six units of each, evenly spread over the half of the layer that reaches most in the "
        "data.",
        ("chosen",),
    ),
    ("Jitter", "", ("jitter",)),
    ("Where it starts", "", ("starts",)),
    ("Penalising the other units", "", ("penalties",)),
    (
        "All units",
        "A picture of every unit by the default preset, which divides each unit's gradient by its "
        "size; "
        "and one without any regulariser, by the document's rule, 30 steps at rate 0.1.",
        ("roles",),
    ),
    ("Dead units", "", ("dead",)),
    (
        "Clusters",
        "Units whose pre-activations on the training images go together; average linkage.",
        ("clusters",),
    ),
    ("Shapes or places?", "", ("places",)),
)
ROLES = (
    ("units", "units"),
    ("output_entropy", "output entropy"),
    ("one_output_above_90", "one output > 90 %"),
    ("ratio", "over next unit"),
    ("times_data", "over data"),
    ("participation", "pixels"),
    ("spatial_variance", "variance px²"),
    ("survival", "left after 1 px"),
)


def write(
    bench: Bench, accounts: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> Path:
    """Write `index.html` and `units.html` from the stored parts; returns the path of the first."""
    folder = bench.shelf.folder
    recipe = {"optogram": __version__, "study": "mlp-neurons", **settings}
    _browse(bench, recipe).save(folder / "units.html")
    report = Report(TITLE, SUMMARY + _about(bench, claims_of(accounts)), recipe)
    for title, text, parts in SECTIONS:
        section = report.section(title, text)
        for name in parts:
            show(section, accounts[name], folder, "the document says")
        if "roles" in parts:
            layers = accounts["roles"]["numbers"]["layers"]
            rows = [[name, *(each[key] for key, _ in ROLES)] for name, each in layers.items()]
            section.table(
                ["layer", *(head for _, head in ROLES)], rows, "Means; ratios are medians."
            )
            section.text("All pictures can be browsed in units.html, beside this file.")
    return report.save(folder / "index.html")


def _about(bench: Bench, claims: Sequence[Mapping[str, str]]) -> str:
    sets = f"{bench.training.name} and {bench.test.name}"
    lines = f"Of {len(claims)} claims: {counted(claims)}. Data: {sets}."
    if "mnist" not in bench.training.name:
        lines += (
            " MNIST was not found, so the digits that came with scikit-learn stand in for it; they "
            "are "
            "smoother and rounder, and numbers about data are about them."
        )
    if bench.quick:
        lines += " This was a quick run: fewer pairs, short trainings, and a sample of the units."
    return lines


def _browse(bench: Bench, recipe: Mapping[str, Any]) -> Report:
    """Every unit of every layer, the output first."""
    summary = (
        "A picture of every unit by the default preset. Under each its address, and a word where "
        "the "
        "picture should not be believed."
    )
    report = Report("All units", summary, recipe)
    for layer in reversed(LAYERS):
        made = pictures(bench, layer)
        title = "Outputs" if layer == "output" else f"Hidden layer {layer[2:]}"
        of = bench.network.layer(layer).units
        text = "" if len(made) == of else f"{len(made)} of {of} units, evenly spread."
        report.section(title, text).pictures(Sheet(tuple(made)))
    return report
