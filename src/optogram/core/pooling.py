"""Average pooling where a network has maximum pooling.

Gatys et al. (2016) found that it makes their textures and styles a little more even; for a
deconvnet it means that nothing remembers where a maximum was, so what is projected down is spread
evenly.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from optogram.pictures.errors import RequestError


def averaged(module: nn.Module) -> tuple[nn.Module, int]:
    """A copy whose `MaxPool2d` take means in place of maxima, and how many they are.

    Size, stride, padding and rounding stay, so maps keep their shapes. What is padded does not
    count towards the mean, as it never was a maximum.

    Raises:
        RequestError: one is dilated, or hands out its switches; no average pooling does either.
    """
    whole = copy.deepcopy(module)
    found = 0
    for name, part in list(whole.named_modules()):
        if not isinstance(part, nn.MaxPool2d | nn.AdaptiveMaxPool2d):
            continue
        home, _, last = name.rpartition(".")
        if not name:
            return _average(part, name), 1
        setattr(whole.get_submodule(home), last, _average(part, name))
        found += 1
    return whole, found


def _average(pool: nn.MaxPool2d | nn.AdaptiveMaxPool2d, name: str) -> nn.Module:
    if pool.return_indices:
        raise RequestError(f"{name} hands out where its maxima were, which an average cannot")
    if isinstance(pool, nn.AdaptiveMaxPool2d):
        return nn.AdaptiveAvgPool2d(pool.output_size)
    if pool.dilation not in (1, (1, 1)):
        raise RequestError(f"{name} is dilated, which average pooling cannot be")
    size, stride, padding = pool.kernel_size, pool.stride, pool.padding
    return nn.AvgPool2d(size, stride, padding, pool.ceil_mode, count_include_pad=False)


class MaximumsLeft(TorchFunctionMode):
    """Counts the calls of max pooling that pass by while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Let the call pass, and note it."""
        self.calls += "max_pool" in getattr(func, "__name__", "")
        return func(*args, **(kwargs or {}))


def maximums_left(module: nn.Module, image: Tensor) -> int:
    """How many times the module takes a maximum over windows of a map, in eval mode."""
    training = module.training
    try:
        with torch.no_grad(), MaximumsLeft() as mode:
            module.eval()(image)
    finally:
        module.train(training)
    return mode.calls
