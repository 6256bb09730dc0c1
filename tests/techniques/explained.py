"""Small networks to explain, one function in several spellings, and maps made without optogram."""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import optogram as og


class Spelt(nn.Module):
    """Two convolutions, a residual sum and a linear layer; `relu` is how its ReLUs are written."""

    def __init__(self, relu: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Linear(6 * 16, 5)
        self.relu = relu

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.first(images)), 2)
        y = self.second(x)
        y += x
        return self.last(self.relu(y).flatten(1))


def spellings() -> dict[str, og.Network]:
    """The same weights with ReLUs as a reused module, in place, as functions and as methods."""
    ways = {
        "reused module": nn.ReLU(),
        "in-place module": nn.ReLU(inplace=True),
        "function": F.relu,
        "in-place function": lambda x: F.relu(x, inplace=True),
        "torch.relu_": torch.relu_,
        "method": lambda x: x.relu(),
        "clamp": lambda x: x.clamp(min=0),
    }
    networks = {}
    for name, relu in ways.items():
        torch.manual_seed(3)
        networks[name] = og.Network(Spelt(relu).double().eval(), (3, 8, 8), name=name)
    return networks


def stack(*layers: nn.Module, shape: tuple[int, int, int], **options: object) -> og.Network:
    """A Sequential in float64 as a Network."""
    return og.Network(nn.Sequential(*layers).double().eval(), shape, **options)


def counted(network: og.Network) -> list[int]:
    """A list that grows by the number of images of every pass through a network and its copies."""
    shown: list[int] = []
    network.module.register_forward_pre_hook(lambda _, images: shown.append(len(images[0])))
    return shown


def raws(result: og.Sheet | og.Attribution) -> Tensor:
    """All maps of a result before their channels were reduced, (item, channel, height, width)."""
    return (
        torch.stack([item.raw for item in result]) if isinstance(result, og.Sheet) else result.raw
    )


@contextlib.contextmanager
def ruled(rule: str) -> Iterator[None]:
    """F.relu, and so nn.ReLU, written anew for a rule: tensor hooks, no function mode."""

    def relu(x: Tensor, inplace: bool = False) -> Tensor:
        open_or_zero = torch.where(x > 0, x, torch.zeros_like(x))
        y = x + (open_or_zero - x).detach() if rule == "deconvnet" else open_or_zero
        if rule != "gradient" and y.requires_grad:
            y.register_hook(lambda gradient: torch.where(gradient > 0, gradient, 0.0))
        return y

    was, F.relu = F.relu, relu
    try:
        yield
    finally:
        F.relu = was


def by_brute_force(module: nn.Module, images: Tensor, unit: int, rule: str) -> Tensor:
    """What arrives at the images from one output under a rule."""
    asked = images.clone().requires_grad_()
    with ruled(rule):
        answer = module(asked)
    return torch.autograd.grad(answer[:, unit].sum(), asked)[0]


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value expected."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())
