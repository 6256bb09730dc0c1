"""
See what a unit wants
=====================

`mnist-mlp` reads handwritten digits and comes with optogram. What image would each of its ten
outputs like best? ``maximize`` starts from an almost black image and climbs.
"""

import optogram as og

net = og.load("mnist-mlp")
print(net)

# %%
# Under each picture stand the unit's own value, how that compares with the strongest of 60,000
# training images, and a verdict. Read the verdict before you read the picture.

og.maximize(net, net.units("output"))

# %%
# A hidden unit is asked in the same way; so are twelve, in one batch.

og.maximize(net, [f"fc3:{i}" for i in range(12)])

# %%
# Settings are options. Without regularisers the same unit is satisfied by what looks like noise:

og.maximize(net, ["output:3", "output:8"], regularizer=None)
