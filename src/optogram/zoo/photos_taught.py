"""How the networks for photographs are trained: small ones on a laptop, full ones on ImageNet.

The small ones learn with batch normalisation (Ioffe & Szegedy, 2015) before every ReLU. Where
training ends it is a constant scale and shift, which the layer before takes into its weights:
what is shipped are the plain layers that Zeiler and Fergus had.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from optogram.core.chance import generator
from optogram.survey.datasets import Images

from .photonet import alexnet, tiny_alexnet, tiny_zfnet, zfnet
from .training import Phase, Recipe

EPOCHS = 50
KEPT = (1, 2, 4, 8, 16, 32)
PEAK = 3e-3
LARGEST_RMS = 0.1
SPREAD = 1e-2


def small(name: str, build: Callable[[int], nn.Module]) -> Recipe:
    """The recipe of a small network: one warm epoch, then the rate falls as half a cosine."""
    return Recipe(
        name=name,
        build=partial(_with_batch_norm, name, build),
        data="tinyimagenet20/tinyimagenet20.npz",
        shape=(3, 64, 64),
        hidden=HIDDEN,
        output="fc8",
        phases=falling(EPOCHS),
        schedule=falling,
        batch=64,
        optimizer="AdamW",
        weight_decay=0.05,
        label_smoothing=0.1,
        mean=(0.4596, 0.4364, 0.3832),
        std=(0.2728, 0.2584, 0.2786),
        augment=seen_otherwise,
        bfloat16=True,
        finish=without_batch_norm,
        keep=KEPT,
        kept=HIDDEN[:5],
        watched=500,
        classes=20,
        notes=(
            "Batch normalisation while training, folded into the layers before it afterwards. Of "
            "each image a part is shown (0.65 to 1.1 of its side, 3/4 to 4/3 as wide as high, the "
            "image mirrored at its border), mirrored half of the time, with brightness, contrast "
            "and saturation changed by up to 0.3."
        ),
    )


def falling(epochs: int) -> tuple[Phase, ...]:
    """A warm epoch at two fifths of the peak, then half a cosine down from it."""
    turns = [(1 + math.cos(math.pi * (e - 0.5) / (epochs - 1))) / 2 for e in range(1, epochs)]
    rates = [round(PEAK * turn, 8) for turn in (0.4, *turns)]
    return tuple(Phase(1, lr=lr, nominal=lr) for lr in rates)


def full(name: str, build: Callable[[int], nn.Module], **changes: Any) -> Recipe:
    """Zeiler & Fergus (2014), section 3, for a folder of ImageNet: days on one graphics card.

    Images fitted to 256x256, crops of 224 and their mirrors, batches of 128, momentum 0.9, dropout
    0.5, first weights of 1e-2 and biases of 0, 70 epochs. They lowered the rate of 1e-2 by hand
    when the validation error stayed; here it is divided by 10 after 30, 50 and 60 epochs. They
    subtracted the mean of each pixel, here of each channel, so that the network is of any size.
    """
    recipe = Recipe(
        name=name,
        build=partial(_with_small_weights, name, build),
        data="imagenet",
        shape=(3, 256, 256),
        seen=(224, 224),
        hidden=HIDDEN,
        output="fc8",
        phases=tuple(
            Phase(e, lr, lr) for e, lr in ((30, 1e-2), (20, 1e-3), (10, 1e-4), (10, 1e-5))
        ),
        batch=128,
        momentum=0.9,
        weight_decay=5e-4,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        augment=partial(cropped_and_flipped, side=224),
        keep=(1, 2, 5, 10, 20, 30, 40, 64),
        watched=10_000,
        classes=1000,
        notes="Zeiler & Fergus (2014), section 3; see optogram.zoo.photos_taught.",
    )
    return replace(recipe, **changes)


def seen_otherwise(images: Images, chance: torch.Generator) -> Images:
    """Another view of each image, in [0, 1]: a part of it, mirrored half of the time, recoloured.

    The part's side is 0.65 to 1.1 of the image's (beyond its border the image is mirrored), and it
    is up to 4/3 as wide as high, or as high as wide; it is enlarged to the whole. Brightness,
    contrast and saturation change by up to 0.3.
    """
    count = len(images)

    def between(low: float, high: float) -> Float[Tensor, " image"]:
        return low + (high - low) * torch.rand(count, generator=chance)

    size = between(math.log(0.65), math.log(1.1)).exp()
    wider = between(-0.5, 0.5).mul(math.log(4 / 3)).exp()
    width, height = size * wider, size / wider
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = width * torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (1 - width).abs() * between(-1, 1)
    theta[:, 1, 2] = (1 - height).abs() * between(-1, 1)
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    part = nn.functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    for amount, base in (
        (between(0.7, 1.3), part.mean(1, keepdim=True)),
        (between(0.7, 1.3), part.mean((1, 2, 3), keepdim=True)),
        (between(0.7, 1.3), torch.zeros(())),
    ):
        part = base + (part - base) * amount[:, None, None, None]
    return part.clamp(0, 1)


def cropped_and_flipped(
    images: Images, chance: torch.Generator, *, side: int
) -> Float[Tensor, "batch channel side side"]:
    """A square of `side` pixels of each image, somewhere in it, half of the time mirrored."""
    height, width = images.shape[-2:]
    crops = []
    for image in images:
        top = int(torch.randint(height - side + 1, (), generator=chance))
        left = int(torch.randint(width - side + 1, (), generator=chance))
        crop = image[:, top : top + side, left : left + side]
        crops.append(crop.flip(-1) if torch.rand((), generator=chance) < 0.5 else crop)
    return torch.stack(crops)


def renormalised(module: nn.Module) -> None:
    """Filters whose root mean square exceeds 0.1 are scaled back to it (section 3 of the paper)."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                rms = layer.weight.square().mean((1, 2, 3), keepdim=True).sqrt()
                layer.weight.mul_((LARGEST_RMS / rms).clamp(max=1))


def without_batch_norm(module: nn.Module) -> nn.Module:
    """A copy in eval mode in which every layer has taken in the normalisation after it."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, part in copy.deepcopy(module).eval().named_children():
        if not isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            layers[name] = part.plain() if isinstance(part, QuickNorm) else part
            continue
        before, layer = layers.popitem()
        if isinstance(layer, nn.Conv2d):
            layers[before] = fuse_conv_bn_eval(layer, part)
        else:
            assert isinstance(layer, nn.Linear)
            layers[before] = fuse_linear_bn_eval(layer, part)
    return nn.Sequential(layers).eval()


class QuickNorm(nn.Module):
    """`nn.LocalResponseNorm` with a sum over channels that costs a third; beta is 3/4.

    The sum over neighbouring channels is a 1x1 convolution with ones along the diagonal.
    """

    def __init__(self, norm: nn.LocalResponseNorm, channels: int) -> None:
        super().__init__()
        assert norm.beta == 0.75
        self.size, self.alpha, self.k = norm.size, norm.alpha, norm.k
        places = torch.arange(channels)
        near = (places[:, None] - places[None]).abs() <= norm.size // 2
        share = near.float()[..., None, None] * (norm.alpha / norm.size)
        self.register_buffer("share", share, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x / (k + alpha * mean of squares of the channels around) ** 0.75."""
        assert isinstance(self.share, Tensor)
        root = (nn.functional.conv2d(x * x, self.share) + self.k).rsqrt()
        return x * (root * root.sqrt())

    def plain(self) -> nn.LocalResponseNorm:
        """The layer that it stands for."""
        return nn.LocalResponseNorm(self.size, self.alpha, 0.75, self.k)


def _with_batch_norm(
    name: str, build: Callable[[int], nn.Module], classes: int, seed: int
) -> nn.Module:
    """Normalisation after all layers but the last: without it most of `fc6` dies at this rate."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 0
    for key, part in _drawn(build(classes), name, seed).named_children():
        quick = isinstance(part, nn.LocalResponseNorm)
        layers[key] = QuickNorm(part, channels) if quick else part  # type: ignore[arg-type]
        if isinstance(part, nn.Conv2d):
            channels = part.out_channels
            layers[f"bn{key[4:]}"] = nn.BatchNorm2d(channels)
        elif isinstance(part, nn.Linear) and key in HIDDEN:
            layers[f"bn{key[2:]}"] = nn.BatchNorm1d(part.out_features)
    return nn.Sequential(layers).to(memory_format=torch.channels_last)


def _with_small_weights(
    name: str, build: Callable[[int], nn.Module], classes: int, seed: int
) -> nn.Module:
    return _drawn(build(classes), name, seed)


def _drawn(module: nn.Module, name: str, seed: int) -> nn.Module:
    """Normal weights of 1e-2 (section 3 of the paper) that follow from the seed; biases 0.

    Larger ones would still be seen as noise in the first filters when training ends.
    """
    for key, layer in module.named_children():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        chance = generator(seed, name, key)
        nn.init.normal_(layer.weight, std=SPREAD, generator=chance)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    return module


HIDDEN = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
RECIPES = {
    "tiny-alexnet": small("tiny-alexnet", tiny_alexnet),
    "tiny-zfnet": small("tiny-zfnet", tiny_zfnet),
    "alexnet": full("alexnet", alexnet),
    "zfnet": full("zfnet", zfnet, after_step=renormalised),
}
TINY_ALEXNET, TINY_ZFNET = RECIPES["tiny-alexnet"], RECIPES["tiny-zfnet"]
ALEXNET, ZFNET = RECIPES["alexnet"], RECIPES["zfnet"]
