"""The lower layers of VGG-19 (Simonyan & Zisserman, 2014), in the form in which style is measured.

Gatys et al. scale the filters so that each answers 1 on average. Names follow torchvision's
`features`, paddings mirror the image, and pools round up.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

WIDTHS = ((3, 64, 64), (64, 128, 128), (128, 256))


def vgg19_lower() -> nn.Module:
    """conv1_1 to conv3_1 with their ReLUs, untrained: a quarter of the size."""
    parts: list[nn.Module] = []
    for level, widths in enumerate(WIDTHS):
        if level:
            parts.append(nn.MaxPool2d(2, ceil_mode=True))
        for inputs, outputs in pairwise(widths):
            parts += [
                nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect"),
                nn.ReLU(),
            ]
    features = nn.Sequential(OrderedDict((str(n), part) for n, part in enumerate(parts)))
    return nn.Sequential(OrderedDict(features=features))
