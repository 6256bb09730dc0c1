"""
A network of your own
=====================

Anything that is an ``nn.Module`` will do: say what images it takes and how they are normalised, and
every technique works on it. Here is a convolutional network for greyscale images, trained on the
spot, as one would wrap a network for X-rays.
"""

import torch
from torch import nn

import optogram as og

torch.manual_seed(0)
module = nn.Sequential(
    nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(12, 24, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(24 * 7 * 7, 10),
)  # fmt: skip
digits = og.data("digits", split="train", shape=(1, 28, 28))
images = torch.stack([digits[i][0] for i in range(len(digits))])
labels = torch.tensor([digits[i][1] for i in range(len(digits))])
optimizer = torch.optim.Adam(module.parameters(), 2e-3)
for _ in range(6):
    for chosen in torch.randperm(len(images)).split(64):
        optimizer.zero_grad()
        answers = module((images[chosen] - 0.13) / 0.31)
        nn.functional.cross_entropy(answers, labels[chosen]).backward()
        optimizer.step()

# %%
# ``mean`` and ``std`` are what the training code subtracted and divided by. From here on an image
# is always in [0, 1].

net = og.Network(module, shape=(1, 28, 28), mean=[0.13], std=[0.31], labels=list("0123456789"))
print(net)

# %%
# What eight channels of the second convolution look for, at the place in the middle of the map:

og.maximize(net, [f"3:{i}@7,7" for i in range(8)])

# %%
# The images that excite four of them most, each with what the unit saw of it.

og.top_patches(net, digits, [f"3:{i}" for i in range(4)], k=6, project="deconvnet")

# %%
# A class by its label:

digit = images[7]
og.guided_backprop(net, digit, f"output:{labels[7]}").over(digit)
