"""Presets: the settings of a paper under one name, where each number comes from, what differs.

A preset fills in whatever the caller leaves open. Everything it sets is text in the language of
recipes, so a picture's recipe can say it all again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from optogram.pictures.errors import RequestError

Name = Literal[
    "optogram", "plain", "erhan2009", "simonyan2013", "yosinski2015-1", "yosinski2015-2",
    "yosinski2015-3", "yosinski2015-4", "olah2017", "fel2023", "seed_mnist",
]  # fmt: skip
PHOTOGRAPH = 32


@dataclass(frozen=True)
class Preset:
    """Settings of a technique that makes pictures.

    Attributes:
        name: what it is called.
        source: where its numbers come from.
        settings: the options it sets.
        for_outputs: those it sets otherwise for the network's outputs.
        differs: what is not as in the source, a sentence each.
    """

    name: str
    source: str
    settings: Mapping[str, Any]
    for_outputs: Mapping[str, Any] = field(default_factory=dict)
    differs: tuple[str, ...] = ()

    def options(self, *, output: bool) -> dict[str, Any]:
        """Every option as it is set, for an output or another unit."""
        return {**BASE, **self.settings, **(self.for_outputs if output else {})}

    def described(self, *, output: bool = False) -> dict[str, Any]:
        """All that there is to say, as JSON values."""
        said = {"name": self.name, "source": self.source, "differs": list(self.differs)}
        return {**said, "settings": self.options(output=output)}

    def __str__(self) -> str:
        """The settings, a line each, and what differs from the source."""
        lines = [f"{self.name}: {self.source}"]
        lines += [f"  {key} = {value}" for key, value in self.options(output=False).items()]
        lines += [f"  {key} = {value}  (outputs)" for key, value in self.for_outputs.items()]
        return "\n".join([*lines, *(f"  differs: {one}" for one in self.differs)])


def preset(name: str) -> Preset:
    """The preset of that name. Raises RequestError with the names there are."""
    if name not in PRESETS:
        raise RequestError(f"no preset called {name!r}; there is {', '.join(PRESETS)}")
    return PRESETS[name]


def usual(shape: tuple[int, int, int]) -> Preset:
    """The preset for images of this shape: "optogram" from 32x32 pixels on, "plain" below."""
    return PRESETS["optogram" if min(shape[1:]) >= PHOTOGRAPH else "plain"]


BASE: dict[str, Any] = {
    "param": "pixels()",
    "regularizer": None,
    "relative": False,
    "transforms": "[]",
    "steps": 100,
    "optimizer": "SGD",
    "lr": 0.05,
    "schedule": "constant",
    "activation": "pre",
    "score": "activation",
    "looks": 1,
    "redirect": 0,
    "crop": False,
    "precision": "float32",
    "facets": 1,
    "diversity": 10.0,
}

LUCID = (
    "[edge(0.5), jitter(8), "
    "scale([0.9, 0.92, 0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08, 1.1], between=False), "
    "rotate([-10, -9, -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "
    "0, 0, 0, 0, 0], between=False), jitter(4)]"
)
SAME_STEPS = "as many steps as given here, where the paper stops when nothing rises any more"


def _yosinski(number: int, param: str, steps: int, caption: str) -> Preset:
    return Preset(
        f"yosinski2015-{number}",
        f"J. Yosinski et al., arXiv 1506.06579, 2015; the Deep Visualization Toolbox's list of "
        f"settings, {caption}",
        {"param": param, "steps": steps, "lr": 1.0},
        differs=(
            "the mean is one colour, not the mean image of ImageNet",
            "the image after the last step is shown, not the one of the highest activation",
        ),
    )


_ALL = (
    Preset(
        "optogram",
        "this project: frequencies, one resampling a step, its numbers chosen by measuring "
        "(docs, methods/maximize)",
        {
            "param": "fourier()",
            # Adam does not care about a gradient's size, unless it is near its epsilon, 1e-8.
            "relative": True,
            "transforms": "[edge(0.5), jitter(8), scale([0.9, 1.1]), rotate([-10, 10]), jitter(4)]",
            "steps": 256,
            "optimizer": "Adam",
            "lr": 0.05,
            "schedule": "constant",
            "redirect": 16,
            "crop": None,
            "precision": "auto",
        },
    ),
    Preset(
        "plain",
        "this project, for small images: total variation and L1 relative to the unit's gradient",
        {
            "regularizer": "2.5 * total_variation() + 0.7 * norm(1)",
            "relative": True,
            "schedule": "linear",
        },
    ),
    Preset(
        "erhan2009",
        "D. Erhan et al., technical report 1341, Universite de Montreal, 2009: the norm of the "
        "data, a start of U[0, 1) a pixel, plain gradient ascent",
        {
            "param": "sphere()",
            "relative": True,
            "steps": 100,
            "lr": 0.05,
        },
        differs=(
            SAME_STEPS,
            "one start; the paper's nine are facets=9 with diversity=0",
            "the step is relative to the gradient's size; the paper tunes one rate for each layer",
            "where the network's records do not know its data, the norm is that of MNIST (9.20 for "
            "28x28) for one channel, and of ImageNet photographs (0.517 a number) for more, scaled "
            "to the image's size",
        ),
    ),
    Preset(
        "simonyan2013",
        "K. Simonyan, A. Vedaldi and A. Zisserman, arXiv 1312.6034, 2013, section 2: the score "
        "before the softmax minus the squared norm, from the zero image",
        {
            "param": "pixels(start=0.45, box=None)",
            "regularizer": "2.0 * alpha_norm(2.0, about=0.45)",
            "relative": True,
            "steps": 200,
            "lr": 0.02,
        },
        differs=(
            "the paper gives neither weight, rate nor number of steps: ours were chosen by looking",
            "the mean image is one grey, 0.45",
            "the unit's gradient is relative to its size, so that one weight serves every unit",
        ),
    ),
    _yosinski(1, "damped(blur=0.5, every=4, norm=50, gain=2.0, most=100)", 500, "1"),
    _yosinski(2, "damped(decay=0.3, norm=20, most=100)", 750, "2"),
    _yosinski(
        3, "damped(decay=0.0001, blur=1.0, every=4, most=100)", 1000, "3, that of most figures"
    ),
    _yosinski(
        4, "damped(blur=0.5, every=4, contribution=90, gain=2.0, most=100000000.0)", 1000, "4"
    ),
    Preset(
        "olah2017",
        "C. Olah, A. Mordvintsev and L. Schubert, Distill, 2017, with the numbers of lucid: "
        "render_vis, param.image and transform.standard_transforms",
        {
            "param": "fourier()",
            "transforms": LUCID,
            "steps": 512,
            "optimizer": "Adam",
            "lr": 0.05,
            "redirect": 16,
        },
        differs=(
            "the view keeps the network's size, where lucid pads by 12 and cuts pixels off",
            "targets are values before the ReLU",
            "the fill beyond the edges is grey everywhere, where lucid rotates zeros into sight",
            "gradients pass dead ReLUs only where they stop everything, for 16 steps, as in lucid",
        ),
    ),
    Preset(
        "fel2023",
        "T. Fel et al., arXiv 2306.06805, 2023 (MACO): xplique's numbers",
        {
            "param": "phases()",
            "transforms": "[crop(0.5, 0.05, steps=256), noise(0.08, 0.04)]",
            "steps": 256,
            "optimizer": "NAdam",
            "lr": 1.0,
            "looks": 32,
        },
        differs=(
            "the magnitudes depend on the frequency's size alone, not on its direction",
            "they were measured on 500 photographs of ImageNet, not on all",
            "coefficients that a real image makes conjugate stay so, and those that it makes real "
            "keep their sign: so no magnitude changes",
            "colours go through ImageNet's matrix and a sigmoid; the paper standardises first, "
            "which with fixed magnitudes is a constant",
        ),
    ),
    Preset(
        "seed_mnist",
        "the study of an MNIST network that optogram brings to life: clipped pixels from 0.01, "
        "total variation with a frame of zeros, L1 of about a tenth of its weight",
        {
            "param": 'pixels(start=0.01, box="clip")',
            "regularizer": '0.032 * total_variation(delta=0.0, boundary="zero") + 0.0032 * norm(1)',
            "activation": "post",
            "steps": 30,
            "lr": 0.1,
        },
        {"activation": "pre", "score": "probability", "steps": 100},
        differs=(
            "the study sweeps the weight from 0.004 to 0.256; this is the middle",
            "it states no rate: 0.1 is ours",
        ),
    ),
)
PRESETS = {one.name: one for one in _ALL}
assert set(PRESETS) == set(get_args(Name))
