"""A unit excited on what it can see answers as it does in the whole image, or is not cropped."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from optogram.ascent import transform
from optogram.ascent.cropping import crop_for, margin_for, window
from optogram.core import Network, Unit
from optogram.techniques import maximize
from tests.core.nets import Does, images, named, seeded

FAMILIES = {
    "vgg11": ["features.1", "features.4", "features.9"],
    "resnet18": ["relu", "layer1.0", "layer1.1.conv2"],
    "googlenet": ["conv3", "inception3a", "maxpool3"],
}


def chain(size: int = 48) -> Network:
    """Strides, an overlapping pool with ceil_mode, dilation, and padding at every layer."""
    module = named(
        conv1=nn.Conv2d(3, 6, 5, stride=2, padding=2),
        relu1=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(3, stride=2, ceil_mode=True),
        norm=nn.LocalResponseNorm(3),
        conv2=nn.Conv2d(6, 7, 3, padding=2, dilation=2),
        relu2=nn.ReLU(),
        flat=nn.Flatten(),
        fc=nn.Linear(7 * (size // 4) ** 2, 4),
    )
    return Network(module, (3, size, size))


def same_in_the_whole(network: Network, layer: str) -> None:
    crop = crop_for(network, layer)
    assert crop is not None
    small = images(3, (network.shape[0], *crop.size))
    full, place = crop.pasted(small, images(3, network.shape, seed=1))
    alone = network.read(small, layer).layers[layer][..., crop.place[0], crop.place[1]]
    within = network.read(full, layer).layers[layer][..., place[0], place[1]]
    scale = within.abs().max()
    assert ((alone - within).abs().max() <= 1e-5 * scale).item()
    # Nothing outside the box matters, and something at each of its corners does.
    top, left, bottom, right = crop.box
    outside = torch.ones(crop.size, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    changed = small.where(~outside, torch.rand_like(small))
    again = network.read(changed, layer).layers[layer][..., crop.place[0], crop.place[1]]
    assert torch.equal(again, alone)
    assert crop.seen(small).shape[-2:] == (bottom - top, right - left)
    assert (bottom - top, right - left) == network.layer(layer).field.size


@pytest.mark.parametrize("layer", ["conv1", "pool", "norm", "conv2", "relu2"])
def test_a_crop_answers_as_the_whole_image_does(layer):
    same_in_the_whole(chain(), layer)


@pytest.mark.parametrize(("family", "layer"), [(f, x) for f, xs in FAMILIES.items() for x in xs])
def test_a_crop_of_well_known_networks_is_exact(family, layer):
    more = {"init_weights": False, "aux_logits": False} if family == "googlenet" else {}
    if family not in BUILT:
        torch.manual_seed(0)
        module = getattr(torchvision.models, family)(num_classes=10, **more)
        BUILT[family] = Network(module, (3, 160, 160))
    same_in_the_whole(BUILT[family], layer)


BUILT: dict[str, Network] = {}


def test_pixels_at_the_corners_of_the_box_are_seen():
    network = chain()
    crop = crop_for(network, "conv2")
    top, left, bottom, right = crop.box
    image = images(1, (3, *crop.size)).requires_grad_()
    answer = network.read(image, "conv2").layers["conv2"][0, :, crop.place[0], crop.place[1]]
    (gradient,) = torch.autograd.grad(answer.sum(), image)
    rows = gradient.abs().sum((0, 1, 3)).nonzero()
    columns = gradient.abs().sum((0, 1, 2)).nonzero()
    assert int(rows.min()) >= top
    assert int(rows.max()) < bottom
    assert int(columns.min()) >= left
    assert int(columns.max()) < right


def test_places_at_the_edge_and_most_of_the_image_are_not_cropped():
    network = chain()
    assert crop_for(network, "conv2", (0, 0)) is None
    assert crop_for(network, "conv2", (6, 6)) is not None
    assert crop_for(network, "fc") is None
    assert crop_for(chain(32), "conv2") is None


def test_a_network_with_global_context_is_not_cropped():
    """Squeeze and excitation in one, a mean that no dispatcher sees in the other."""
    conv = nn.Conv2d(3, 4, 3, padding=1)
    seen = Does(lambda self, x: self.last(self.conv(x) * x.mean((1, 2, 3), keepdim=True)),
                conv=conv, last=nn.Conv2d(4, 4, 1))  # fmt: skip
    assert crop_for(Network(seeded(seen), (3, 32, 32)), "last") is None

    def hidden(self, x):
        brightness = float(x.detach().numpy().mean())
        return self.last(self.conv(x) * brightness)

    unseen = Does(hidden, conv=nn.Conv2d(3, 4, 3, padding=1), last=nn.Conv2d(4, 4, 1))
    network = Network(seeded(unseen), (3, 32, 32))
    assert not network.layer("last").field.whole
    assert crop_for(network, "last") is None
    assert crop_for(network, "conv") is not None


def test_a_network_that_takes_one_size_only_is_not_cropped():
    def strict(self, x):
        if x.shape[-1] != 32:
            raise AssertionError("32 pixels")
        return self.conv(x)

    network = Network(seeded(Does(strict, conv=nn.Conv2d(3, 4, 3))), (3, 32, 32))
    assert crop_for(network, "conv") is None


def test_margins_are_as_wide_as_the_jitter_or_the_room():
    network = chain(96)
    crop = crop_for(network, "conv1")
    jitters = [transform.jitter(8), transform.compose(transform.jitter(5), transform.edge())]
    assert margin_for(crop, jitters, network.shape) == 12
    assert margin_for(crop, [], network.shape) == 0
    assert margin_for(crop, [transform.jitter(500)], network.shape) == (96 - 8) // 2
    x = images(2, (3, 12, 10))
    from optogram.core import Streams

    shown = window(3).at(Streams(0, ("a", "b")), 0)(x)
    torch.testing.assert_close(shown, F.pad(x, [-3] * 4))


class TestMaximize:
    def test_the_picture_is_the_field_and_its_score_that_of_the_whole_image(self):
        network = chain(64)
        picture = maximize(network, "conv2:3", steps=10, seed=1, crop=True)
        assert picture.image.shape[1:] == network.layer("conv2").field.size
        crop = crop_for(network, "conv2")
        top, left, bottom, right = crop.box
        small = torch.zeros(1, 3, *crop.size)
        small[:, :, top:bottom, left:right] = picture.image
        full, place = crop.pasted(small, images(1, network.shape))
        value = network.read(full, "conv2")[Unit("conv2", 3, place)]
        assert picture.score == pytest.approx(float(value), rel=1e-5)
        assert picture.unit == "conv2:3"
        assert picture.rival is not None

    def test_a_place_is_cropped_and_a_channel_only_when_asked(self):
        network = chain(64)
        for unit, options, size in (
            ("conv2:3@8,8", {}, network.layer("conv2").field.size),
            ("conv2:3@strongest", {}, network.layer("conv2").field.size),
            ("conv2:3@8,8", {"crop": False}, (64, 64)),
            ("conv2:3@8,8", {"preset": "olah2017"}, (64, 64)),
            ("conv2:3", {}, (64, 64)),
            ("conv2:3", {"crop": True}, network.layer("conv2").field.size),
        ):
            picture = maximize(network, unit, steps=1, **options)
            assert picture.image.shape[1:] == size, (unit, options)

    def test_a_shape_of_ones_own_is_not_cropped(self):
        picture = maximize(chain(64), "conv2:3@8,8", steps=2, param="fourier([3, 40, 48])")
        assert picture.image.shape == (3, 40, 48)

    def test_a_crop_does_not_depend_on_company(self):
        module = chain(64).module.double()
        network = Network(module, (3, 64, 64))
        together = maximize(network, [f"conv2:{n}" for n in range(4)], steps=6, crop=True)
        alone = maximize(network, "conv2:2", steps=6, crop=True)
        assert torch.equal(together[2].image, alone.image)
        assert together[2].recipe["result"] == alone.recipe["result"]
