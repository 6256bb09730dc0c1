"""Small modules that do what people's networks do, for the tests of core."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def named(**parts: nn.Module) -> nn.Sequential:
    """A chain of modules with names, the same weights each time."""
    return seeded(nn.Sequential(OrderedDict(parts)))


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights from a generator of its own, with room for negative values everywhere."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            size = max(1, weight[0].numel()) if weight.dim() > 1 else 4
            weight.copy_(torch.randn(weight.shape, generator=chance) / size**0.5)
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand(buffer.shape, generator=chance) + 0.5)
    return module


class Does(nn.Module):
    """A module with sub-modules that does whatever a function says."""

    def __init__(self, does: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.does = does
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


class Counted(nn.Module):
    """Passes what it is given, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + 0


class Tokens(nn.Module):
    """Patches of 2x2 pixels as tokens after a class token, one block of attention, a head."""

    def __init__(self, width: int = 8, patches: int = 9) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, stride=2)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Linear(width, 2 * width)
        self.act = nn.ReLU()
        self.back = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1)
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed)[0]
        tokens = tokens + self.back(self.act(self.mlp(tokens)))
        return self.head(tokens[:, 0])


class Inception(nn.Module):
    """Three views of one input, each with a functional ReLU, joined along the channels."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, 2, 1)
        self.three = nn.Conv2d(channels, 3, 3, padding=1)
        self.pool = nn.Conv2d(channels, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        return torch.cat(
            [F.relu(self.one(x)), F.relu(self.three(x)), F.relu(self.pool(pooled), inplace=True)], 1
        )


def images(
    count: int = 2,
    shape: tuple[int, int, int] = (1, 6, 6),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Images of noise in [0, 1], the same each time."""
    chance = torch.Generator().manual_seed(seed)
    return torch.rand(count, *shape, generator=chance).to(dtype)


@contextmanager
def left_as_found(module: nn.Module) -> Iterator[None]:
    """Fails where hooks, modes, gradients, weights, buffers or flags are not as before."""
    before = portrait(module)
    try:
        yield
    finally:
        after = portrait(module)
        changed = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        assert not changed, f"not as it was found: {changed}"


def portrait(module: nn.Module) -> dict[str, object]:
    """All of a module that a reader could change, as values that can be compared."""
    seen: dict[str, object] = {}
    for name, part in module.named_modules():
        hooks = {k: list(v) for k, v in vars(part).items() if "hooks" in k}
        seen[f"module {name}"] = (id(part), part.training, hooks, sorted(vars(part)))
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        grad = None if tensor.grad is None else octets(tensor.grad)
        marks = sorted(vars(tensor))
        seen[f"tensor {name}"] = (id(tensor), octets(tensor), tensor.requires_grad, grad, marks)
    return seen


def octets(tensor: Tensor) -> tuple[object, ...]:
    """A tensor's type, shape and bytes."""
    content = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return tensor.dtype, tuple(tensor.shape), content
