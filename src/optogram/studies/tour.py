"""A tour of what optogram does, on networks that came with it: one report, nothing downloaded."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from optogram.core import progress
from optogram.core.network import Network
from optogram.core.unit import OUTPUT, Unit
from optogram.pictures import Attribution, Picture, Report, Sheet
from optogram.pictures.report import Section
from optogram.studies.deconvnet.views import crops
from optogram.survey.datasets import fit
from optogram.techniques import (
    accentuate,
    combine_filters,
    dream,
    evolve,
    explain,
    filters,
    fool,
    invert,
    localize,
    maximize,
    occlusion,
    occlusion_panels,
    saliency,
    sample,
    stylize,
    top_patches,
    triage,
)
from optogram.version import __version__
from optogram.zoo import data, load

SUMMARY = """Everything here was made on this machine a moment ago, by a network that came with the
package: 784-1250-1000-750-500-250-100-32-10 neurons that learned to read handwritten digits, the
network of the study of hidden neurons that optogram brings to life.

Under each picture: the unit; its value on the picture, and how many times the strongest value
that any of the 60,000 training images reached; how many times the layer's next strongest unit;
what the whole network makes of the picture; and a verdict. A picture whose unit stayed below the
data's strongest is not that unit's picture yet, and says so."""


def tour(directory: str | os.PathLike[str], *, seed: int = 0) -> Path:
    """Run every technique on the embedded networks and write `index.html` into `directory`.

    Each section is a function in `SECTIONS`; it adds to the report what it shows. Returns the path
    of the report. Takes about a minute of computing.
    """
    report = Report(
        "A tour of optogram",
        SUMMARY,
        {"optogram": __version__, "tour": [name for name, _ in SECTIONS], "seed": seed},
    )
    network = load("mnist-mlp")
    for done, (name, section) in enumerate(SECTIONS):
        progress.tell(name, done, len(SECTIONS))
        section(report, network, seed)
    progress.tell("writing the report", len(SECTIONS), len(SECTIONS))
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    return report.save(folder / "index.html")


def outputs(report: Report, network: Network, seed: int) -> None:
    """What each output wants to see."""
    section = report.section(
        "What does a 3 look like to the network?",
        "Activation maximisation: start from an almost black image and change it so that one "
        "output's logit grows, while total variation keeps it smooth and L1 removes what is not "
        "needed. The network never saw these pictures; they are what it is looking for. They are "
        "not digits: a stroke that no other digit has is exaggerated, one that many share is "
        "missing.",
    )
    section.pictures(_sheet(maximize(network, network.units("output"), seed=seed)))


def hidden(report: Report, network: Network, seed: int) -> None:
    """What a sample of neurons of each hidden layer wants to see, the last layer first."""
    section = report.section(
        "And the neurons in between?",
        "Ten neurons of each hidden layer, evenly spread, made in the same way with the same "
        "weights (each unit's gradient is measured before the regularisers compete with it). From "
        "the last hidden layer to the first: strokes and parts of digits, then regions, then "
        "scattered pixels.",
    )
    for layer in ("fc7", "fc6", "fc5", "fc4", "fc3", "fc2", "fc1"):
        count = network.layer(layer).units
        chosen = [Unit(layer, int(i * count / SAMPLE)) for i in range(SAMPLE)]
        sheet = _sheet(maximize(network, chosen, seed=seed))
        section.pictures(list(sheet), title=f"{layer}: {SAMPLE} of {count} neurons")


def found(report: Report, network: Network, seed: int) -> None:
    """What excites a few neurons among real digits, beside the pictures made for them."""
    digits = data("digits", split="train", shape=network.shape)
    section = report.section(
        "And what excites them among real digits?",
        "The nine strongest of the 1,297 training digits that came with scikit-learn, for five "
        "neurons of the last hidden layer, beside the picture that was made for each. A made "
        "picture is one way to excite a neuron, and stronger than any digit; what the digits share "
        "with it, and what they do not, no made picture tells alone.",
    )
    chosen = [Unit("fc7", index) for index in (0, 6, 9, 16, 28)]
    made = _sheet(maximize(network, chosen, seed=seed))
    real = list(top_patches(network, digits, chosen, k=9))
    for place, picture in enumerate(made):
        row = [picture, *real[9 * place : 9 * place + 9]]
        section.pictures(row, title=f"{chosen[place]}: made, then found")


def why(report: Report, network: Network, seed: int) -> None:
    """Which pixels a few answers are sensitive to."""
    digits = data("digits", split="test", shape=network.shape)
    section = report.section(
        "Which pixels made the network say this?",
        "Saliency: the gradient of the winning logit with respect to each pixel, for the first of "
        "each digit that came with scikit-learn. Bright is where a small change would move the "
        "logit most; that is sensitivity, not proof that the pixel spoke for the answer. All maps "
        "share one scale. The specks around the digits are real: pixels that were black in all "
        "training images kept the random weights that the network began with, and it does listen "
        "to them.",
    )
    labels = digits.labels.tolist()
    images = torch.stack([digits[labels.index(digit)][0] for digit in range(10)])
    winners = [f"output:{w}" for w in network(images).argmax(1).tolist()]
    _shared(section, _sheet(saliency(network, images, winners)))
    section.text(
        "Occlusion: hide 6x6 pixels with black, ask again, and note how much the winning logit "
        "loses (red) or gains (blue). Unlike the gradient it shows what really happens when a "
        "part of the image is missing; the two need not agree."
    )
    pairs = zip(images, winners, strict=True)
    _shared(section, [occlusion(network, i, w, patch=6, stride=2, value=0.0) for i, w in pairs])


def believe(report: Report, network: Network, seed: int) -> None:
    """Several techniques on one digit, and what is known against each."""
    digits = data("digits", split="test", shape=network.shape)
    image, _ = digits[0]
    winner = f"output:{int(network(image[None]).argmax())}"
    ways = ["saliency", "smoothgrad", "integrated_gradients", "lrp", "guided_backprop", "deconvnet"]
    options: dict[str, Any] = {"checks": True, "draws": 4, "scale": "each", "seed": seed}
    sheet = explain(network, image, winner, methods=ways, **options)
    section = report.section(
        "And which of these maps should be believed?",
        "Six maps of one answer. Each was made again after the network's top layer was made "
        "random: a map that stays the same cannot be about what the network knows of this digit "
        "(fail); one that changes passes. Then pixels were deleted and inserted in its order. "
        "What a wholly random network would draw too is grey. Each map has its own scale: LRP "
        "spreads the same logit over all pixels. " + sheet.title,
    )
    section.pictures(sheet, title="one answer, six maps")


def explained(report: Report, network: Network, seed: int) -> None:
    """One answer of a network for photographs, by every technique that explains an image."""
    small = load("tiny-zfnet")
    photo = fit(data("photos")[6][0], small.shape)
    answer = int(small(photo[None]).argmax())
    unit, label = Unit(OUTPUT, answer), small.label(answer)
    section = report.section(
        f"Why does it call a rocket a {label}?",
        "tiny-zfnet, the small brother of the network of Zeiler and Fergus, knows 20 kinds of "
        f"things. A rocket is none of them, and its answer to this photograph is {label}. Fifteen "
        "techniques say where it sees one: gradients and their repairs, rules that follow the "
        "answer back through the layers, maps of a deep layer, and those that only hide parts and "
        "ask again. Each map has its own scale.",
    )
    sheet = explain(small, photo, unit, methods=EXPLAINERS, scale="each", seed=seed)
    section.pictures(sheet, title=f"{unit} {label}")
    section.text(
        "Figure 7 of Zeiler and Fergus, on a photograph of which it is less sure: what a deep "
        "layer's strongest map loses when a part is hidden, what that map saw there, what the "
        "class loses, and which class is first instead."
    )
    cat = fit(data("photos")[1][0], small.shape)
    first = Unit(OUTPUT, int(small(cat[None]).argmax()))
    section.pictures(occlusion_panels(small, cat, first, patch=16, stride=2))
    section.text(
        "Localisation: saliency finds the telling parts, and a cut through the image, where "
        "colours part, makes an object of them. Two other photographs, each with the kind that "
        "the network takes it for."
    )
    others = [fit(data("photos")[number][0], small.shape) for number in (8, 9)]
    kinds = [int(small(other[None]).argmax()) for other in others]
    for other, kind in zip(others, kinds, strict=True):
        cut = localize(small, other, Unit(OUTPUT, kind), seed=seed)
        section.pictures([cut], title=small.label(kind))


def believers(report: Report, network: Network, seed: int) -> None:
    """A unit of a deep belief network as Erhan et al. showed it, in three ways."""
    belief = load("mnist-dbn")
    section = report.section(
        "Three ways to show a unit of a belief network",
        "A deep belief network learned digits without being told which they are. Units of its "
        "first layer are their weights. A unit of the second was first shown as the weighted sum "
        "of the filters below it; then by sampling: the unit is held at 1 and the network says "
        "which images go with it; then by making the image that excites it most (Erhan et al., "
        "2009). The sum leaves out what is not linear. Holding one unit of 500 moves this network "
        "little: the five samples are much alike, and the low value under each says that it is not "
        "the unit's picture. The made images excite their units more than any digit does.",
    )
    section.pictures(list(filters(belief, "h1"))[:SAMPLE], title="weights of the first layer")
    units = [Unit("h2", index) for index in range(0, 500, 100)]
    section.pictures([combine_filters(belief, unit) for unit in units], title="summed filters")
    section.pictures([sample(belief, unit, seed=seed) for unit in units], title="sampled")
    made = _sheet(maximize(belief, units, preset="erhan2009", seed=seed))
    section.pictures(list(made), title="made")


def fooled(report: Report, network: Network, seed: int) -> None:
    """Images that are nothing, or all but unchanged, and certain to the network."""
    digits = data("digits", split="test", shape=network.shape)
    section = report.section(
        "How sure can it be of nothing?",
        "Noise, changed by gradient ascent until the network is 99.99 % certain of a digit: it "
        "takes about a hundred steps, and nothing is there for us to see.",
    )
    noise = _sheet(fool(network, network.units("output"), start="noise", seed=seed))
    section.pictures(list(noise), title="climbed from noise")
    section.text(
        "The same without a gradient: formulas from place to grey, bred so that each digit keeps "
        "the one that the network is most certain of. What is certain is regular, and no digit."
    )
    bred = _sheet(evolve(network, "output", generations=25, population=60, seed=seed))
    section.pictures(list(bred), title="bred as formulas, 25 generations of 60")
    section.text(
        "And digits, each changed by as little as makes the network 99 % certain that it is "
        "another: the digit, the change amplified, and what came of it."
    )
    labels = digits.labels.tolist()
    real = torch.stack([digits[labels.index(digit)][0] for digit in range(10)])
    wrong = [f"output:{(digit + 3) % 10}" for digit in range(10)]
    forged = _sheet(fool(network, wrong, start=real, goal=0.99, steps=40))
    section.pictures(list(forged), title="all but unchanged")
    section.text(
        "Can one tell? Triage measures what becomes of the answer under a shift by one pixel, "
        "noise and blur, how far the image is from the data, how rough it is; a judge that learned "
        "from examples says natural, adversarial or fooling. Its areas under the curve are those "
        "on examples that it had not seen."
    )
    some = torch.stack([real[3], forged[3].image, noise[3].image, bred[3].image])
    train = data("digits", split="train", shape=network.shape)
    judged = _sheet(triage(network, some, train, samples=12, seed=seed))
    section.pictures(list(judged), title="triage")


def remade(report: Report, network: Network, seed: int) -> None:
    """What layers keep of an image, believe to see in it, and find in its textures."""
    digit = data("digits", split="test", shape=network.shape)[3][0]
    section = report.section(
        "What has a layer kept of a digit?",
        "Inversion: images made from noise until a layer answers to them as to the digit on "
        "the left. The first layer has kept it whole; the deeper the layer, the less it can tell "
        "the digit from other images. The feature distance says how well the answer was matched, "
        "the image distance how far the image is from the digit: the two part ways. Below it a "
        "photograph, from layers of a small network for photographs.",
    )
    options: dict[str, Any] = {"optimizer": "L-BFGS", "steps": 60, "seed": seed}
    found = _sheet(invert(network, digit, ["fc1", "fc3", "fc5", "fc7"], **options))
    section.pictures([(digit, "the digit"), *found])
    small = load("tiny-zfnet")
    photo = fit(data("photos")[1][0], small.shape)
    options["steps"] = 30
    found = _sheet(invert(small, photo, ["conv1", "conv2", "conv3", "conv5"], **options))
    section.pictures([(photo, "the photograph"), *found])
    section = report.section(
        "What does a layer believe to see?",
        "DeepDream: a photograph is changed until a layer answers more strongly to what it answers "
        "to already. What grows is what the layer knows: of this small network, which learned 20 "
        "kinds of things, spots and edges in conv2 and colours with parts in conv4. A network that "
        "learned a thousand kinds sees animals: the page of DeepDream shows one. Last a "
        "caricature: what conv3 answers, exaggerated, and nothing else asked of the image.",
    )
    photo = _small(data("photos")[1][0])
    dreams = [dream(small, photo, layer, steps=15, seed=seed) for layer in ("conv2", "conv4")]
    drawn = accentuate(small, photo, "conv3", steps=30, seed=seed)
    section.pictures([(photo, "the photograph"), *dreams, drawn])


def painted(report: Report, network: Network, seed: int) -> None:
    """A photograph in the textures of another."""
    photos = data("photos")
    photo, texture = (_small(photos[number][0]) for number in (1, 4))
    looks = load("tiny-zfnet")
    section = report.section(
        "And what is texture?",
        "Style transfer: a photograph is repainted until products of channels, averaged over all "
        "places, are those of another image. They know which features go together and not where. "
        "The network is a small one for photographs of 64x64; with VGG-19 the textures are larger.",
    )
    options: dict[str, Any] = {"steps": 40, "content_weight": 0.3, "seed": seed}
    art = stylize(looks, photo, texture, **options)
    section.pictures([(photo, "the photograph"), (texture, "its style"), art])


def _small(photo: torch.Tensor) -> torch.Tensor:
    return fit(photo, (3, 96, 128))


def photographs(report: Report, network: Network, seed: int) -> None:
    """A network for photographs: its first layer, and what it takes from its strongest patches."""
    small = load("tiny-zfnet")
    windows = crops(small.shape, "both")
    section = report.section(
        "And a network that looks at photographs?",
        "tiny-zfnet, the small brother of the network of Zeiler and Fergus, learned 20 kinds of "
        "things from photographs of 64x64. First what its first layer wants: edges, colours, "
        "gratings, in closed form. Then, for two units of three layers, the five strongest of "
        f"{len(windows)} windows of the photographs that came with scikit-image, cut to what the "
        "unit sees, and under them what a deconvnet says that the unit took from each. Higher "
        "layers see more and answer to rarer things. The network never saw these photographs.",
    )
    section.pictures(filters(small, "conv1"))
    for layer in ("conv2", "conv4", "conv5"):
        count = small.layer(layer).units
        chosen = [Unit(layer, count // 4), Unit(layer, 3 * count // 4)]
        rows = list(top_patches(small, windows, chosen, k=5, project="deconvnet", batch=64))
        for place, target in enumerate(chosen):
            row = tuple(rows[10 * place : 10 * place + 10])
            title = f"{target}: found, then what it took from them"
            section.pictures(Sheet(row, title=title, columns=5))


def _shared(section: Section, maps: Iterable[Any]) -> None:
    """Maps over their images, all on the scale that holds all but the largest 2 in 1000 values."""
    maps = list(maps)
    limit = float(torch.cat([one.values.abs().flatten() for one in maps]).quantile(0.998))
    section.pictures([one.over(one.image, limit=limit) for one in maps])


def _sheet(result: Picture | Attribution | Sheet) -> Sheet:
    assert isinstance(result, Sheet)
    return result


SAMPLE = 10
EXPLAINERS = (
    *("saliency", "input_x_gradient", "smoothgrad", "vargrad", "integrated_gradients"),
    *("guided_backprop", "deconvnet", "lrp", "grad_cam", "grad_cam_plus_plus"),
    *("layer_cam", "guided_grad_cam", "score_cam", "rise(samples=1000)"),
    "occlusion(patch=12, stride=2)",
)
SECTIONS: list[tuple[str, Callable[[Report, Network, int], None]]] = [
    ("outputs", outputs),
    ("hidden neurons", hidden),
    ("strongest digits", found),
    ("saliency and occlusion", why),
    ("whom to believe", believe),
    ("every technique", explained),
    ("fooling", fooled),
    ("inversion and DeepDream", remade),
    ("style", painted),
    ("belief networks", believers),
    ("photographs", photographs),
]
