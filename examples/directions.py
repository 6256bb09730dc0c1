"""
Directions: units that are no axis
==================================

Whatever takes a unit takes a direction in a layer's space: a concept vector, a feature of a sparse
autoencoder, a principal component.
"""

import torch

import optogram as og

net = og.load("mnist-mlp")
digits = og.data("digits", shape=net.shape)
images = torch.stack([digits[i][0] for i in range(len(digits))])
labels = torch.tensor([digits[i][1] for i in range(len(digits))])
codes = net.read(images, "fc5").layers["fc5"]

# %%
# Two kinds: what distinguishes the 7s from the rest (a difference of means), and the directions in
# which the layer's answers vary most.

apart = codes[labels == 7].mean(0) - codes[labels != 7].mean(0)
_, _, components = torch.linalg.svd(codes - codes.mean(0), full_matrices=False)
wanted = [og.Direction("fc5", apart, "seven")]
wanted += [og.Direction("fc5", components[i], f"component {i}") for i in range(5)]

og.maximize(net, wanted)

# %%
# The same directions over an image:

seven = images[labels == 7][0]
og.saliency(net, seven, wanted[0], signed=True).over(seven)
