"""
The hidden neurons of an MNIST network
======================================

A walk through the study that ``optogram study mlp-neurons`` makes in full: what do the neurons of
each hidden layer want, and does that become more digit-like on the way to the outputs?
"""

import optogram as og

net = og.load("mnist-mlp")
chosen = [3, 14, 15, 9, 26, 5]

# %%
# **The first hidden layer.** Strokes and spots.

og.maximize(net, [f"fc1:{i}" for i in chosen])

# %%
# **In the middle.** Pieces of several digits, on top of each other.

og.maximize(net, [f"fc4:{i}" for i in chosen])

# %%
# **The last hidden layer.** Thirty-two neurons; many want the whole of a digit, and the line below
# each picture says which digits the network takes it for.

og.maximize(net, [f"fc7:{i}" for i in chosen])

# %%
# **How much of this is the regulariser?** The same neurons with a weaker and a stronger one. Their
# weights are relative to the neuron's own gradient, so one pair serves every layer.

weak = "0.004 * total_variation() + 0.0004 * norm(1)"
strong = "0.128 * total_variation() + 0.0128 * norm(1)"
og.maximize(net, [f"fc7:{i}" for i in chosen], regularizer=weak, relative=True)

# %%

og.maximize(net, [f"fc7:{i}" for i in chosen], regularizer=strong, relative=True)

# %%
# **Does a picture look like what excites the neuron in real digits?** The training images that do:

digits = og.data("digits", shape=net.shape)
og.top_patches(net, digits, [f"fc7:{i}" for i in chosen[:3]], k=6)
