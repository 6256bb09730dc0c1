"""Patches of whitened photographs, and what a belief network and an autoencoder make of them.

Photographs are whitened as by Olshausen & Field (1997) and cut into squares of 12 x 12 pixels,
which Erhan et al. (2009) trained on besides digits. A patch is stored in [0, 1], grey where the
whitened photograph is 0; the networks are shown (patch - GREY) / STD.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from optogram.core.chance import generator
from optogram.survey.datasets import ImageSet, Shape
from optogram.survey.sources import from_arrays

from .dbn import machine_lesson, measured, reconstruction
from .greedy import Curriculum
from .rbm import Rates
from .sdae import corrupted, layer_lesson
from .stack import Autoencoder, DeepBelief, Flat

# Not grass and gravel, which are so fine that their patches are all but noise.
PHOTOS = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "rocket",
    "stereo_motorcycle",
)
SIDE, GREY, DEVIATION = 12, 0.5, 0.1
CUTOFF = 0.4
"""In cycles a pixel: above it the filter fades, since there is more noise than photograph."""
BORDER = 6
PATCHES = {"train": 100_000, "test": 10_000}


def patches(split: str = "train", shape: Shape | None = None) -> ImageSet:
    """100,000 whitened 12 x 12 patches of seven photographs of scikit-image, 10,000 to test on.

    Each photograph's lowest fifth is for testing and has no pixel in common with the rest. A
    photograph is grey, as a luma, and whitened to deviation 1 (see `whitened`); a patch of it is
    0.5 + 0.1 * value, so that [0, 1] holds 5 deviations to each side, and what is beyond is cut.
    The places are drawn evenly, and are the same each time. The label is the photograph's number.
    """
    chance = generator("patches", split)
    each, cut, labels = -(-PATCHES[split] // len(PHOTOS)), [], []
    for number, name in enumerate(PHOTOS):
        photo = torch.from_numpy(whitened(_grey(name))).float()
        edge = photo.shape[0] - BORDER - (photo.shape[0] // 5)
        part = photo[BORDER:edge] if split == "train" else photo[edge:-BORDER]
        squares = part[:, BORDER:-BORDER].unfold(0, SIDE, 1).unfold(1, SIDE, 1)
        rows, columns = (torch.randint(n, (each,), generator=chance) for n in squares.shape[:2])
        cut.append(squares[rows, columns])
        labels += [number] * each
    mixed = torch.randperm(len(labels), generator=chance)[: PATCHES[split]]
    stored = 255 * (GREY + DEVIATION * torch.cat(cut)[mixed]).clamp(0, 1)
    kept = stored.round().to(torch.uint8)
    numbers = torch.tensor(labels)[mixed]
    return from_arrays(kept, numbers, name=f"patches/{split}", classes=PHOTOS, shape=shape)


def whitened(photo: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """A grey photograph whose frequencies are equally strong, with mean 0 and deviation 1.

    The filter is f * exp(-(f / 0.4)^4), f in cycles a pixel (Olshausen & Field, 1997): amplitudes
    of natural scenes fall as 1/f, and where the filter fades they are mostly noise. It is circular,
    so a border of 6 pixels is not used.
    """
    down, across = (np.fft.fftfreq(n) for n in photo.shape)
    frequency = np.hypot(down[:, None], across)
    passed = frequency * np.exp(-((frequency / CUTOFF) ** 4))
    flat: np.ndarray = np.fft.ifft2(np.fft.fft2(photo) * passed).real
    return (flat - flat.mean()) / flat.std()


def _grey(name: str) -> np.ndarray:
    import skimage.color
    import skimage.data

    found = getattr(skimage.data, name)()
    photo: np.ndarray = found[0] if isinstance(found, tuple) else found
    plain = photo if photo.ndim == 2 else skimage.color.rgb2gray(photo[..., :3]) * 255
    return np.asarray(plain, np.float64)


STD = 0.1
SIZES = (SIDE * SIDE, 256, 144, 100)


def patches_dbn(seed: int = 0) -> DeepBelief:
    """144 real pixels and 256-144-100 coins above them, untrained."""
    return DeepBelief(SIZES, gaussian=True, seed=seed, classes=False)


def patches_sdae(seed: int = 0) -> Autoencoder:
    """144 real pixels and 256-144-100 sigmoids above them, tied weights, untrained."""
    return Autoencoder(SIZES, gaussian=True, seed=seed, deviation=0.05, classes=False)


def likelihood(stack: DeepBelief, patches: Flat) -> dict[str, Any]:
    """What `dbn.measured` says, and how likely a machine without weights finds the patches."""
    plain = -(patches.square().sum(1) + patches.shape[1] * math.log(2 * math.pi)) / 2
    return {**measured(stack, patches), "unit_gaussian_test_log_likelihood": float(plain.mean())}


@torch.no_grad()
def restoration(stack: Autoencoder, patches: Flat) -> dict[str, Any]:
    """The squared distance of restored patches from clean ones, and of the spoilt ones."""
    spoilt = corrupted(patches, "gaussian", NOISE, generator("measured"))
    restored = stack.down(stack.up(spoilt, 0, 1), 1)
    return {
        "h1_test_restoration": float((restored - patches).square().sum(1).mean()),
        "spoilt": float((spoilt - patches).square().sum(1).mean()),
        "test_reconstruction": reconstruction(stack, patches),
    }


NOISE = 2.0
GABORS = Rates(lr=0.01, momentum=0.5, decay=1e-3, sparsity=0.03, pull=1.0)
ABOVE = Rates(lr=0.05, momentum=0.5, decay=1e-4)
_SHARED: dict[str, Any] = {
    "data": "patches",
    "shape": (1, SIDE, SIDE),
    "mean": GREY,
    "std": STD,
}
DBN = Curriculum(
    name="patches-dbn",
    build=patches_dbn,
    lessons=(
        machine_lesson(1, 15, GABORS),
        machine_lesson(2, 4, ABOVE),
        machine_lesson(3, 4, ABOVE),
    ),
    measure=likelihood,
    notes="Real pixels of variance 1. Sparse first-layer units, without which none is local.",
    **_SHARED,
)
SDAE = Curriculum(
    name="patches-sdae",
    build=patches_sdae,
    lessons=(
        layer_lesson(1, 8, lr=0.02, noise="gaussian", amount=NOISE),
        layer_lesson(2, 3, lr=0.01, noise="masking", amount=0.2),
        layer_lesson(3, 3, lr=0.01, noise="masking", amount=0.2),
    ),
    measure=restoration,
    notes=(
        "Weights of both ways are tied. Noise twice as strong as the pixels: with half as strong a "
        "one, filters had no direction."
    ),
    **_SHARED,
)
