"""A network that has forgotten what it learned, from the top down: what maps are compared with."""

import copy
import functools

import torch
from torch import nn

from optogram.core.chance import generator
from optogram.core.listen import split_call
from optogram.core.network import Network


def learned(network: Network, layer: str) -> tuple[tuple[str, ...], ...]:
    """The parameters that a layer's answer depends on, grouped by module, the topmost first.

    A module that is never called by itself (a projection inside attention) counts to the one around
    it. The first group is the top layer: it holds a matrix, and vectors above it if there are such.
    """
    order: dict[str, int] = {}
    for position, known in enumerate(network.layers):
        order.setdefault(split_call(known.name)[0], position)
    groups: dict[str, list[str]] = {}
    for name, _ in network.module.named_parameters():
        groups.setdefault(_called(name.rpartition(".")[0], order), []).append(name)
    below = {
        o: names for o, names in groups.items() if order.get(o, -1) <= order[split_call(layer)[0]]
    }
    sorted_groups = sorted(below.items(), key=lambda group: -order.get(group[0], -1))
    return _top_holds_a_matrix(network.module, [tuple(names) for _, names in sorted_groups])


def forgetful(network: Network, names: tuple[str, ...], seed: int, draw: int = 0) -> Network:
    """A copy of the network in which the named parameters are random; the network stays as it is.

    Matrices and filters become N(0, s) with s the root mean square of what was learned, so that
    answers keep their size; vectors (biases, scales of a normalisation) are shuffled. What is drawn
    depends on (seed, draw, name) alone. Draws come in pairs, 0 and 1, 2 and 3: the second has the
    first's topmost matrix with its sign turned, which takes out of an average what is luck.
    """
    module = copy.deepcopy(network.module)
    parameters = dict(module.named_parameters())
    top = next((name for name in names if parameters[name].dim() > 1), None)
    with torch.no_grad():
        for name in names:
            parameter = parameters[name]
            source = generator("forgetful", seed, draw // 2, name)
            if parameter.dim() < 2:
                order = torch.randperm(parameter.numel(), generator=source)
                parameter.copy_(parameter.flatten()[order.to(parameter.device)].view_as(parameter))
            else:
                size = parameter.square().mean().sqrt()
                size = -size if name == top and draw % 2 else size
                parameter.copy_(torch.randn(parameter.shape, generator=source).to(parameter) * size)
    return network.with_module(module)


def stages(groups: tuple[tuple[str, ...], ...], count: int) -> tuple[int, ...]:
    """How many groups, from the top, are random at each of `count` stages: 1 first, all last."""
    total = len(groups)
    if total <= 1 or count <= 1:
        return (total,)
    steps = [1 + round(i * (total - 1) / (count - 1)) for i in range(count)]
    return tuple(dict.fromkeys(steps))


def _called(owner: str, order: dict[str, int]) -> str:
    while owner and owner not in order:
        owner = owner.rpartition(".")[0]
    return owner


def _top_holds_a_matrix(
    module: nn.Module, groups: list[tuple[str, ...]]
) -> tuple[tuple[str, ...], ...]:
    parameters = dict(module.named_parameters())
    for count, group in enumerate(groups, start=1):
        if any(parameters[name].dim() > 1 for name in group):
            top = functools.reduce(lambda a, b: a + b, groups[:count])
            return (top, *groups[count:])
    return tuple(groups)
