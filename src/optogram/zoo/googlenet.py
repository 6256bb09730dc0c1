"""The original GoogLeNet (Szegedy et al., 2014), as in Caffe's model zoo: the network of DeepDream.

torchvision's googlenet is another network (batch norm, no biases, a 3x3 where this has a 5x5), so
the original's weights need this definition. Names follow torchvision's.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

# in, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection (Szegedy et al., 2014, table 1)
BLOCKS = {
    "inception3a": (192, 64, 96, 128, 16, 32, 32),
    "inception3b": (256, 128, 128, 192, 32, 96, 64),
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
    "inception5a": (832, 256, 160, 320, 32, 128, 128),
    "inception5b": (832, 384, 192, 384, 48, 128, 128),
}


class Convolution(nn.Module):
    """A convolution with bias, and its ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        padding = size // 2
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps at 0 and above."""
        answer: Tensor = self.relu(self.conv(x))
        return answer


class Inception(nn.Module):
    """Four views of one input, joined along the channels."""

    def __init__(
        self, inputs: int, one: int, r3: int, three: int, r5: int, five: int, pool: int
    ) -> None:
        super().__init__()
        self.branch1 = Convolution(inputs, one, 1)
        self.branch2 = nn.Sequential(Convolution(inputs, r3, 1), Convolution(r3, three, 3))
        self.branch3 = nn.Sequential(Convolution(inputs, r5, 1), Convolution(r5, five, 5))
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), Convolution(inputs, pool, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The joined maps."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


def googlenet(classes: int = 1000) -> nn.Module:
    """The network, untrained: images (batch, 3, 224, 224) normalised, logits (batch, classes)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=Convolution(3, 64, 7, stride=2),
        maxpool1=_pool(),
        norm1=_contrast(),
        conv2=Convolution(64, 64, 1),
        conv3=Convolution(64, 192, 3),
        norm2=_contrast(),
        maxpool2=_pool(),
    )
    for name, sizes in BLOCKS.items():
        if name in ("inception4a", "inception5a"):
            layers[f"maxpool{int(name[9]) - 1}"] = _pool()
        layers[name] = Inception(*sizes)
    layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = nn.Dropout(0.4)
    layers["fc"] = nn.Linear(1024, classes)
    return nn.Sequential(layers)


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _contrast() -> nn.Module:
    return nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
