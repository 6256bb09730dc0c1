"""A small network with maps, dead units and neurons, and images for it."""

import torch
from torch import nn

from optogram.core import Network
from optogram.survey import from_arrays

LAYERS = ["conv1", "relu1", "conv2", "fc1", "output"]


class Small(nn.Module):
    """Convolutions with ReLUs in place, and neurons of which three never open in data."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2)
        self.relu2 = nn.ReLU()
        self.fc1 = nn.Linear(24, 5)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(5, 3)

    def forward(self, x):
        x = self.pool(self.relu1(self.conv1(x)))
        x = self.relu2(self.conv2(x)).flatten(1)
        return self.fc2(self.relu3(self.fc1(x)))


def network(seed=0):
    torch.manual_seed(seed)
    module = Small()
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.4)
    return Network(module, (1, 10, 10), mean=[0.5], std=[0.3], labels=["a", "b", "c"])


def images(count=40, seed=1, levels=None):
    """Random images; few grey levels give equal answers."""
    chance = torch.Generator().manual_seed(seed)
    shown = torch.rand(count, 1, 10, 10, generator=chance)
    if levels:
        shown = (shown * levels).floor() / levels
    labels = torch.arange(count) % 3
    return from_arrays(shown, labels, classes=["x", "y", "z"])
