"""Networks that optogram has never seen give pictures of a middle and a last unit as they are."""

import pytest
import torch
import torchvision

from optogram.core import Network
from optogram.techniques import maximize
from tests.core.nets import Tokens, seeded

FAMILIES = {
    "alexnet": 64, "convnext_tiny": 32, "densenet121": 32, "efficientnet_b0": 32,
    "googlenet": 32, "inception_v3": 75, "mnasnet0_5": 32, "mobilenet_v2": 32,
    "mobilenet_v3_small": 32, "regnet_y_400mf": 32, "resnet18": 32, "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32, "swin_t": 32, "vgg11": 32, "vit_b_32": 64, "maxvit_t": 224,
}  # fmt: skip
MORE = {
    "googlenet": {"init_weights": False, "aux_logits": False},
    "inception_v3": {"init_weights": False, "aux_logits": False},
    "vit_b_32": {"image_size": 64},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_of_every_family_gives_pictures_of_a_middle_and_a_last_unit(family):
    # Fresh weights of most families let hardly anything through, and a few heads are all zeros.
    module = seeded(getattr(torchvision.models, family)(num_classes=7, **MORE.get(family, {})))
    size = FAMILIES[family]
    # In float32 some outputs of fresh weights move by less than rounding shows.
    network = Network(module.double(), (3, size, size), mean=(0.5,) * 3, std=(0.25,) * 3)
    names = [x.name for x in network.layers if x.places]
    middle = f"{names[len(names) // 2]}:1"
    for unit in (middle, "output:3"):
        picture = maximize(network, unit, steps=6, transforms="[]")
        assert picture.verdict == "excited", unit
        assert picture.image.shape == (3, size, size)
        assert float(picture.image.std()) > 0


def test_a_token_of_a_transformer_is_a_target_and_its_picture_fills_the_image():
    module = Tokens(patches=256)
    module.patch = torch.nn.Conv2d(3, 8, 2, stride=2)
    network = Network(seeded(module), (3, 32, 32))
    for unit in ("mlp:3", "mlp:3@5", "output:1"):
        picture = maximize(network, unit, steps=8, transforms="[]")
        assert picture.score > float(picture.history[0])
        spread = picture.image.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).std(3)
        assert (spread > 1e-3).all()
