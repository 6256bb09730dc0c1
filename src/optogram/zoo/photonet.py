"""AlexNet, and what Zeiler and Fergus made of it, in full size and small enough for two cores.

Both have the same stages: convolution, ReLU, maximum pooling and contrast normalisation twice,
three more convolutions, a third pooling, two hidden layers with dropout, and the logits. What
differs is how they begin. AlexNet's first layer is large and strided (11x11/4), which its authors
could afford and which Zeiler and Fergus (2014, section 4.1) saw to leave out the middle frequencies
and to alias; theirs is small and dense (7x7/2). The small brothers have just these first layers,
over photographs of 64x64. What AlexNet's stride has left out there its first pooling leaves in: it
keeps the size of its map, so that both second layers have maps of 16x16 and from there on the two
are alike.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from torch import nn

Pooling = Literal["max", "average"]


@dataclass(frozen=True)
class Plan:
    """How a network of this kind is laid out.

    `filters` are the kernel, stride and padding of the first two convolutions, which the two
    architectures differ in; the other three are 3x3. `channels` are those of the five
    convolutions, `hidden` the widths of the two hidden layers, `side` the height and width of the
    last map. `groups` are those of the second, fourth and fifth convolution. `norm` are size,
    alpha, beta and k of the contrast normalisation; it stands before the pooling where
    `norm_first`.
    """

    filters: tuple[tuple[int, int, int], tuple[int, int, int]]
    channels: tuple[int, int, int, int, int]
    hidden: tuple[int, int]
    side: int
    classes: int
    norm: tuple[int, float, float, float]
    pool_padding: tuple[int, int, int]
    pool_strides: tuple[int, int, int] = (2, 2, 2)
    dropout: float = 0.5
    groups: int = 1
    norm_first: bool = False


# torch divides alpha by the size of the window, Krizhevsky et al. do not: 1e-4 there is 5e-4 here.
ALEXNET = Plan(
    filters=((11, 4, 2), (5, 1, 2)),
    channels=(96, 256, 384, 384, 256),
    hidden=(4096, 4096),
    side=6,
    classes=1000,
    norm=(5, 5e-4, 0.75, 2.0),
    pool_padding=(0, 0, 0),
    groups=2,
    norm_first=True,
)
ZFNET = Plan(
    filters=((7, 2, 1), (5, 2, 0)),
    channels=(96, 256, 384, 384, 256),
    hidden=(4096, 4096),
    side=6,
    classes=1000,
    norm=(5, 5e-4, 0.75, 2.0),
    pool_padding=(1, 1, 0),
)
SMALL = {
    "channels": (32, 64, 128, 128, 128),
    "hidden": (256, 256),
    "side": 4,
    "classes": 20,
    "norm": (5, 0.1, 0.75, 1.0),
    "pool_padding": (1, 1, 1),
    "dropout": 0.3,
}
TINY_ALEXNET = Plan(filters=((11, 4, 5), (5, 1, 2)), pool_strides=(1, 2, 2), **SMALL)  # type: ignore[arg-type]
TINY_ZFNET = Plan(filters=((7, 2, 3), (5, 1, 2)), **SMALL)  # type: ignore[arg-type]


def alexnet(classes: int = 1000, pooling: Pooling = "max") -> nn.Module:
    """AlexNet (Krizhevsky et al., 2012), its two halves as groups; 3x224x224, untrained.

    60,965,224 weights for 1,000 classes. torchvision's alexnet is a later one, with other widths
    and without contrast normalisation.
    """
    return _net(ALEXNET, classes, pooling)


def zfnet(classes: int = 1000, pooling: Pooling = "max") -> nn.Module:
    """The network of Zeiler & Fergus (2014, figure 3); 3x224x224, untrained.

    The paper states the sizes of the maps (110, 55, 26, 13, 6) and not the padding, which follows:
    1 for the first convolution and two poolings, 0 for the second convolution.
    """
    return _net(ZFNET, classes, pooling)


def tiny_alexnet(classes: int = 20, pooling: Pooling = "max") -> nn.Module:
    """AlexNet's small brother for 3x64x64; untrained."""
    return _net(TINY_ALEXNET, classes, pooling)


def tiny_zfnet(classes: int = 20, pooling: Pooling = "max") -> nn.Module:
    """The small brother of the network of Zeiler and Fergus for 3x64x64; untrained."""
    return _net(TINY_ZFNET, classes, pooling)


def _net(plan: Plan, classes: int, pooling: Pooling) -> nn.Module:
    """The layers in the order of calling, named as everybody does: conv1, relu1, pool1, norm1."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = 3
    shapes = (*plan.filters, (3, 1, 1), (3, 1, 1), (3, 1, 1))
    for number, ((size, stride, padding), outputs) in enumerate(
        zip(shapes, plan.channels, strict=True), start=1
    ):
        groups = plan.groups if number in (2, 4, 5) else 1
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups)
        layers[f"relu{number}"] = nn.ReLU()
        place = min(number, 3) - 1
        pool = _pool(pooling, plan.pool_strides[place], plan.pool_padding[place])
        after = {f"pool{number}": pool}
        if number < 3:
            norm = {f"norm{number}": nn.LocalResponseNorm(*plan.norm)}
            after = norm | after if plan.norm_first else after | norm
        if number not in (3, 4):
            layers.update(after)
        inputs = outputs
    layers["flatten"] = nn.Flatten()
    width = plan.channels[-1] * plan.side**2
    for number, outputs in enumerate(plan.hidden, start=6):
        layers[f"drop{number}"] = nn.Dropout(plan.dropout)
        layers[f"fc{number}"] = nn.Linear(width, outputs)
        layers[f"relu{number}"] = nn.ReLU()
        width = outputs
    layers["fc8"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


def _pool(kind: Pooling, stride: int, padding: int) -> nn.Module:
    if kind == "average":
        return nn.AvgPool2d(3, stride, padding, count_include_pad=False)
    return nn.MaxPool2d(3, stride, padding)
