"""
A vision transformer
====================

Token layers are grids: a unit of one is a channel, ``blocks.1:7``, or a channel at a place,
``blocks.1:7@3,3``. No reshape is written by hand.
"""

import torch
from torch import nn

import optogram as og


class Transformer(nn.Module):
    """A small one, for images of 28x28 in 49 patches."""

    def __init__(self, width=48, depth=2):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 50, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1) + self.places
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])


torch.manual_seed(0)
module = Transformer()
digits = og.data("digits", shape=(1, 28, 28))
images = torch.stack([digits[i][0] for i in range(len(digits))])
labels = torch.tensor([digits[i][1] for i in range(len(digits))])
optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
for _ in range(8):
    for chosen in torch.randperm(len(images)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images[chosen]), labels[chosen]).backward()
        optimizer.step()
net = og.Network(module, shape=(1, 28, 28), labels=list("0123456789"))
print(f"accuracy: {(net(images).argmax(1) == labels).float().mean():.1%}")
print(net)

# %%
# What the classes want:

og.maximize(net, net.units("output"))

# %%
# Which pixels spoke for an answer. Guided backpropagation is not among the methods: its rule is
# about ReLUs, and a transformer's GELU is none. Asking for it is refused in one sentence.

digit, label = images[5], int(labels[5])
og.explain(net, digit, f"output:{label}", methods=["input_x_gradient", "smoothgrad", "occlusion"])

# %%

try:
    og.guided_backprop(net, digit, f"output:{label}")
except og.RequestError as refusal:
    print(refusal)
