"""A small convolutional network that has learnt to read digits, for tests that need one."""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from optogram import Network, data
from tests.core.nets import named


@functools.cache
def reader() -> Network:
    """Three convolutions and two linear layers, a few seconds of training; always the same."""
    digits = data("digits", split="train", shape=(1, 28, 28))
    images = torch.stack([digits[n][0] for n in range(len(digits))])
    labels = torch.as_tensor(digits.labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = named(
            conv1=nn.Conv2d(1, 12, 5, padding=2), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(12, 16, 3, padding=1), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(16, 24, 3, padding=1), relu3=nn.ReLU(), flat=nn.Flatten(),
            fc4=nn.Linear(24 * 49, 40), relu4=nn.ReLU(), fc5=nn.Linear(40, 10),
        )  # fmt: skip
        adam = torch.optim.Adam(module.parameters(), lr=3e-3)
        for _ in range(4):
            for batch in torch.randperm(len(images)).split(64):
                adam.zero_grad()
                F.cross_entropy(module(images[batch]), labels[batch]).backward()
                adam.step()
    return Network(module.eval(), (1, 28, 28), name="reader", labels=list("0123456789"))
