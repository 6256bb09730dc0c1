"""The same answers from a GPU, with results that come back to the CPU."""

import pytest
import torch

import optogram as og

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def pair() -> tuple[og.Network, og.Network]:
    return og.load("mnist-mlp"), og.load("mnist-mlp", device="cuda")


def test_a_layer_says_the_same_on_both_devices(pair: tuple[og.Network, og.Network]) -> None:
    images = torch.rand(5, 1, 28, 28)
    here, there = (network.read(images, "fc3").layers["fc3"] for network in pair)
    assert there.device.type == "cuda"
    assert torch.allclose(here, there.cpu(), atol=1e-3)


def test_pictures_made_on_a_gpu_come_back_and_look_the_same(
    pair: tuple[og.Network, og.Network],
) -> None:
    here, there = (og.maximize(network, ["output:3", "fc5:7"], steps=10) for network in pair)
    assert there.images.device.type == "cpu"
    assert (here.images - there.images).abs().max() < 0.02
    assert [p.verdict for p in here] == [p.verdict for p in there]


def test_maps_made_on_a_gpu_come_back_and_agree(pair: tuple[og.Network, og.Network]) -> None:
    image = torch.rand(1, 28, 28)
    here, there = (og.saliency(network, image, "output:3") for network in pair)
    assert there.values.device.type == "cpu"
    assert torch.allclose(here.values, there.values, atol=1e-3)


def test_filters_and_jitter_run_on_a_gpu(pair: tuple[og.Network, og.Network]) -> None:
    _, network = pair
    assert len(og.filters(network, "fc1")) == 1250
    picture = og.maximize(network, "fc7:1", transforms="jitter(1)", steps=5)
    assert torch.isfinite(picture.image).all()
