"""
A technique of your own
=======================

A technique is one plain function. ``@og.technique`` makes it known: with an entry point of your
package it becomes a command, a form in the explorer, and something ``explain`` can use.
"""

from jaxtyping import Float
from torch import Tensor

import optogram as og


@og.technique
def gradient_against_blur(
    network: og.Network,
    image: Float[Tensor, "channel height width"],
    unit: str,
    *,
    width: int = 3,
) -> og.Attribution:
    """Show each pixel's gradient times what a blur would take from it."""
    from torch.nn.functional import avg_pool2d

    blurred = avg_pool2d(image[None], 2 * width + 1, 1, width)[0]
    question = og.objective.activation(unit)
    raw = og.backpropagate(network, image[None], question)[0] * (image - blurred)
    score = float(question(network.read(image[None], *question.layers))[0])
    return og.Attribution(
        values=raw.sum(0), raw=raw, image=image, target=unit, score=score, signed=True
    )


net = og.load("mnist-mlp")
digit, _ = og.data("digits", split="test", shape=net.shape)[8]
answer = f"output:{int(net(digit[None]).argmax())}"
gradient_against_blur(net, digit, answer).over(digit)

# %%
# The recipe was written by ``@og.technique``; nothing was described twice.

print(gradient_against_blur(net, digit, answer).recipe["arguments"])

# %%
# Beside techniques that optogram has, with the same checks:

og.explain(net, digit, answer, methods=["saliency", "gradient_against_blur(width=2)"], checks=True)
