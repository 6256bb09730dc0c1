"""Tiny networks whose answers are known by hand, to try an idea on and to test it with."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optogram.core.chance import generator
from optogram.core.network import Network

BRIGHT = ((0, 1), (1, 3), (3, 2))
LABELS = ("three", "horizon", "nothing")
Rectifier = Callable[[Tensor], Tensor]


def tiny() -> Network:
    """A network for 1x4x4 images with three units, each of which can be worked out by hand.

    `conv` (3 units, one place each) and `relu` after it:

    - `conv:0` sums the three pixels `BRIGHT` (row, column): at best 3, for an image that is 1 there
      and 0 elsewhere. On the unit sphere it is best at 1/sqrt(3) on each of them, sqrt(3).
    - `conv:1` is the top row minus the bottom row: at best 4, at worst -4, 0 on any even image.
    - `conv:2` is -1 whatever the image: it has no gradient, and its ReLU is dead.

    `fc` is the output, with labels: `output:three` is relu:0, `output:horizon` is 2 * relu:1, and
    `output:nothing` is 1 whatever the image. The middle grey gives 1.5, 0 and 1.
    """
    conv, fc = nn.Conv2d(1, 3, 4), nn.Linear(3, 3)
    assert conv.bias is not None
    with torch.no_grad():
        for weight in (conv.weight, fc.weight, fc.bias):
            weight.zero_()
        for row, column in BRIGHT:
            conv.weight[0, 0, row, column] = 1
        conv.weight[1, 0, 0], conv.weight[1, 0, 3] = 1, -1
        conv.bias.copy_(torch.tensor([0.0, 0.0, -1.0]))
        fc.weight[0, 0], fc.weight[1, 1], fc.bias[2] = 1, 2, 1
    parts = {"conv": conv, "relu": nn.ReLU(), "flatten": nn.Flatten(), "fc": fc}
    module = nn.Sequential()
    for name, part in parts.items():
        module.add_module(name, part)
    return Network(module, (1, 4, 4), labels=LABELS, name="tiny")


def variants(dtype: torch.dtype = torch.float32) -> dict[str, Network]:
    """One small network with the same weights, its ReLUs written in every way that people do.

    3x10x10 images; `conv1` (6 units, 10x10), ReLU, 2x2 maximum, `conv2` (6 units, 5x5) added to
    what it was given, ReLU, `hidden` (12 units), ReLU, `head` (4 units, which is the output). All
    answer the same, and under every rule all pass the same back. Where the ReLU is a module its
    calls are `relu1`, `relu2`, `relu3`, or `relu`, `relu#2`, `relu#3` for one used three times.
    """
    made = {name: SmallCnn(rectifiers) for name, rectifiers in _ways_to_write_a_relu().items()}
    made["in-place sum"] = SmallCnn(_three(nn.ReLU), add=Tensor.add_)
    for module in made.values():
        _fill(module)
    return {
        name: Network(module.to(dtype), (3, 10, 10), name=f"tiny, {name}")
        for name, module in made.items()
    }


class SmallCnn(nn.Module):
    """Two convolutions, the second with a shortcut, and two linear layers; see `variants`.

    Args:
        rectifiers: functions or modules, `relu` for all places or `relu1`, `relu2` and `relu3`.
        add: how the shortcut joins, `add(convolved, shortcut)`.
    """

    def __init__(
        self,
        rectifiers: Mapping[str, Rectifier],
        add: Callable[[Tensor, Tensor], Tensor] = torch.add,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.hidden = nn.Linear(6 * 5 * 5, 12)
        self.head = nn.Linear(12, 4)
        self.add = add
        for name, rectifier in rectifiers.items():
            setattr(self, name, rectifier)

    def forward(self, x: Tensor) -> Tensor:
        """Four logits."""
        x = F.max_pool2d(self._rectify(1, self.conv1(x)), 2)
        x = self._rectify(2, self.add(self.conv2(x), x))
        x = self._rectify(3, self.hidden(x.flatten(1)))
        logits: Tensor = self.head(x)
        return logits

    def _rectify(self, place: int, x: Tensor) -> Tensor:
        own = f"relu{place}"
        rectifier: Rectifier = getattr(self, own if hasattr(self, own) else "relu")
        return rectifier(x)


def _ways_to_write_a_relu() -> dict[str, Mapping[str, Rectifier]]:
    functions: dict[str, Rectifier] = {
        "F.relu": F.relu,
        "F.relu in place": partial(F.relu, inplace=True),
        "F.relu_": F.relu_,
        "torch.relu": torch.relu,
        "torch.relu_": torch.relu_,
        "Tensor.relu": lambda x: x.relu(),
        "Tensor.relu_": lambda x: x.relu_(),
        "its answer unused": _silently,
        "clamp": lambda x: x.clamp(min=0),
        "clamp_": lambda x: x.clamp_(min=0),
        "clamp_min": lambda x: torch.clamp_min(x, 0),
        "clip": lambda x: torch.clip(x, min=0),
    }
    return {
        "modules": _three(nn.ReLU),
        "in-place modules": _three(partial(nn.ReLU, inplace=True)),
        "one module": {"relu": nn.ReLU()},
        "one in-place module": {"relu": nn.ReLU(inplace=True)},
        **{name: {"relu": function} for name, function in functions.items()},
    }


def _three(make: Callable[[], nn.Module]) -> dict[str, Rectifier]:
    return {f"relu{place}": make() for place in (1, 2, 3)}


def _silently(x: Tensor) -> Tensor:
    F.relu(x, inplace=True)
    return x


def _fill(module: nn.Module) -> None:
    """Weights that follow from their names alone, of a size that keeps half of the units on."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            spread = (2 / weight[0].numel()) ** 0.5 if weight.dim() > 1 else 0.1
            weight.normal_(0, spread, generator=generator("tiny", name))
