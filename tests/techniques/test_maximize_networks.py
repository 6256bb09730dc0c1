"""Networks that nobody tuned anything for: one of each of torchvision's families, and tokens."""

import pytest
import torch
import torchvision

from optogram.core import Network
from optogram.techniques import maximize
from tests.core.nets import seeded

SMALL = {
    "convnext_tiny": {}, "densenet121": {}, "efficientnet_b0": {},
    "googlenet": {"init_weights": False, "aux_logits": False},
    "inception_v3": {"init_weights": False, "aux_logits": False}, "mnasnet0_5": {},
    "mobilenet_v2": {}, "mobilenet_v3_small": {}, "regnet_y_400mf": {}, "resnet18": {},
    "shufflenet_v2_x0_5": {}, "squeezenet1_1": {}, "swin_t": {}, "vit_b_32": {"image_size": 64},
}  # fmt: skip
"""One of each family, with 10 classes."""

WIDE = ("alexnet", "vgg11_bn")
"""Those of a hundred million weights: drawn once, not twice."""

SIZES = {"inception_v3": 96, "alexnet": 80}


def built(name):
    torch.manual_seed(0)
    if name == "maxvit":  # torchvision's only one takes 224x224 pixels and nothing else
        return torchvision.models.MaxVit(
            (64, 64), 16, 2, [16, 32], [1, 1], 16, stochastic_depth_prob=0.0, num_classes=10
        )
    if name in WIDE:
        with torch.device("meta"):
            module = torchvision.models.get_model(name, num_classes=10)
        return seeded(module.to_empty(device="cpu"))
    module = torchvision.models.get_model(name, num_classes=10, **SMALL[name])
    if name == "vit_b_32":  # its head begins as zeros, and nothing can be said about it
        torch.nn.init.normal_(module.heads.head.weight)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *WIDE, "maxvit"])
def test_a_network_that_was_never_seen_shows_a_middle_and_a_last_unit(name):
    size = SIZES.get(name, 64)
    network = Network(built(name).eval(), (3, size, size))
    with_weights = [x.name for x in network.layers if x.kind.startswith(("Conv", "Linear"))]
    middle = with_weights[len(with_weights) // 2]
    for address in (f"{middle}:1", "output:1"):
        picture = maximize(network, address, steps=3)
        assert picture.image.shape == (3, size, size)
        assert len(picture.history) == 3
        assert picture.gradient_norm > 0
        assert picture.image.std() > 0
        assert torch.isfinite(picture.history).all()


def transformer() -> Network:
    module = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32,
        num_classes=5,
    )  # fmt: skip
    return Network(seeded(module.eval()), (3, 32, 32))


@pytest.mark.parametrize("place", ["", "@5"])
def test_channels_and_tokens_of_a_transformer_are_targets_and_the_picture_fills_the_image(place):
    network = transformer()
    layer = "encoder.layers.encoder_layer_1"
    assert network.layer(layer).units == 16
    assert network.layer(layer).places == (17,)
    address = f"{layer}:3{place}"
    start, end = (maximize(network, address, steps=n, seed=1) for n in (0, 20))
    assert end.score > start.score
    change = (end.image - start.image).abs().amax(0)
    every_patch = change.unflatten(0, (4, 8)).unflatten(2, (4, 8)).amax((1, 3))
    assert (every_patch > 0.01).all()


def test_a_token_is_its_own_target():
    network = transformer()
    layer = "encoder.layers.encoder_layer_0"
    one, other = (maximize(network, f"{layer}:3@{token}", steps=20) for token in (2, 9))
    for picture, token in ((one, 2), (other, 9)):
        heard = network.read(picture.image[None], layer).layers[layer]
        torch.testing.assert_close(picture.score, float(heard[0, token, 3]), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(one.image, other.image, atol=0.05)
