"""
Why this answer?
================

Which pixels made the network say what it said, by several techniques at once, and which of their
maps to believe.
"""

import optogram as og

net = og.load("mnist-mlp")
digit, label = og.data("digits", split="test", shape=net.shape)[3]
answer = f"output:{int(net(digit[None]).argmax())}"
print(f"a {label}, read as {answer}")

# %%
# Red pixels raise the unit's value, blue ones lower it. The numbers on the bar are logits per unit
# of grey.

og.integrated_gradients(net, digit, answer).over(digit)

# %%
# Occlusion asks the network itself: what does it lose when a part of the image is hidden?

og.occlusion(net, digit, answer, patch=6, stride=2, value="black").over(digit)

# %%
# With ``checks`` each map is made again on networks with a random top layer. A map that does not
# change cannot be about what the network knows.

og.explain(
    net, digit, answer, methods=["saliency", "input_x_gradient", "guided_backprop"], checks=True
)
