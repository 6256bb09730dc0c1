"""A stack of sigmoid layers that can be gone up, as a network, and down, towards an image."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import skip_init

from optogram.core.boltzmann import Boltzmann
from optogram.core.chance import generator

Flat = Float[Tensor, "batch values"]
Answers = Float[Tensor, "batch units"]


class Stack(nn.Module):
    """Layers `h1`, `h2`, ... with a sigmoid after each, and at last `digit`, which says the class.

    Where there are no classes, the highest sigmoid is the answer.

    `h1` answers what goes into its sigmoid. The biases of the way down are `below1`, `below2`, ...,
    of the layer below `h1`, `h2`, ...; its weights are those of the way up, transposed. Where
    `tied` is False it has weights of its own, `down1`, `down2`, ..., that begin as those.

    Args:
        sizes: numbers of pixels, of units in each hidden layer, and of classes.
        tied: whether the way down has the weights of the way up.
        gaussian: pixels are real numbers around a mean, not chances.
        seed: decides the first weights, normal with deviation `deviation`; biases are 0.
        classes: whether the last size is that of `digit`; else it is a hidden layer's.
    """

    shared = 0
    """How many layers at the top have one set of weights, tied or not."""

    def __init__(
        self,
        sizes: tuple[int, ...],
        *,
        tied: bool = True,
        gaussian: bool = False,
        seed: int = 0,
        deviation: float = 0.01,
        classes: bool = True,
    ) -> None:
        super().__init__()
        self.depth, self.gaussian, self.classes = len(sizes) - 1 - classes, gaussian, classes
        self.add_module("flatten", nn.Flatten())
        for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            name = f"h{number}" if number <= self.depth else "digit"
            layer = skip_init(nn.Linear, inputs, outputs)
            chance = generator(seed, "stack", name)
            nn.init.normal_(layer.weight, std=deviation, generator=chance)
            nn.init.zeros_(layer.bias)
            self.add_module(name, layer)
            if number <= self.depth:
                self.add_module(f"sigmoid{number}", nn.Sigmoid())
                self.register_parameter(f"below{number}", nn.Parameter(torch.zeros(inputs)))
        self.tied = tied
        for number in range(1, 1 if tied else self.depth - self.shared + 1):
            weight = self.layer(number).weight.detach().clone()
            self.register_parameter(f"down{number}", nn.Parameter(weight))

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Answers:
        """What `digit` says, before a softmax; without classes the highest hidden layer."""
        values: Tensor = images
        for part in self.children():
            values = part(values)
        return values

    def layer(self, number: int) -> nn.Linear:
        """The hidden layer of that number, from 1."""
        found = self.get_submodule(f"h{number}")
        assert isinstance(found, nn.Linear)
        return found

    def below(self, number: int) -> nn.Parameter:
        """The bias of the way down from the hidden layer of that number."""
        return self.get_parameter(f"below{number}")

    def up(self, values: Flat, start: int, stop: int) -> Answers:
        """What hidden layer `stop` says, from 0 to 1, given what `start` does; 0 is the image."""
        for number in range(start + 1, stop + 1):
            values = torch.sigmoid(self.layer(number)(values))
        return values

    def down(self, values: Flat, start: int, stop: int = 0) -> Answers:
        """The way back from hidden layer `start` to `stop`, by means."""
        for number in range(start, stop, -1):
            values = values @ self.weight_down(number) + self.below(number)
            if number > 1 or not self.gaussian:
                values = torch.sigmoid(values)
        return values

    def weight_down(self, number: int) -> Float[Tensor, "above under"]:
        """The weights of the way down from the hidden layer of that number."""
        if self.tied or number > self.depth - self.shared:
            return self.layer(number).weight
        return self.get_parameter(f"down{number}")


class DeepBelief(Stack):
    """A stack whose hidden layers are those of Boltzmann machines (Hinton et al., 2006).

    Where it is not tied, the top machine still has one set of weights: what an up-down pass needs.
    """

    shared = 1

    def boltzmanns(self) -> tuple[Boltzmann, ...]:
        """Its machines, the lowest first; to change their tensors is to change the network."""
        return tuple(
            Boltzmann(
                self.layer(number).weight.detach(),
                self.below(number).detach(),
                self.layer(number).bias.detach(),
                self.gaussian and number == 1,
                None if self.tied or number == self.depth else self.weight_down(number).detach(),
            )
            for number in range(1, self.depth + 1)
        )


class Autoencoder(Stack):
    """A stack whose way down is learnt to undo the way up (Vincent et al., 2008)."""
