"""Average pooling on a copy: the same weights, other answers, the original untouched."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optogram import Network, RequestError, deconvnet, load, replay

POOL = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}


class Written(nn.Module):
    """Its pooling is a function, which no exchange of modules reaches."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        return F.max_pool2d(self.pool(x), 2).flatten(1)


def test_means_take_the_place_of_maxima_and_the_original_keeps_its_own():
    module = nn.Sequential(nn.MaxPool2d(**POOL), nn.Flatten())
    network = Network(module, (1, 7, 7), name="pool")
    x = torch.rand(2, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    maxima, means = F.max_pool2d(x, **POOL), F.avg_pool2d(x, **POOL, count_include_pad=False)
    other = network.with_pooling("average")
    torch.testing.assert_close(other(x), means.flatten(1))
    torch.testing.assert_close(network(x), maxima.flatten(1))
    assert isinstance(module[0], nn.MaxPool2d)
    assert other.layer("0").kind == "AvgPool2d"
    torch.testing.assert_close(network.with_pooling("max")(x), maxima.flatten(1))


def test_maps_and_weights_stay_as_they_are_in_a_whole_network():
    network = load("tiny-zfnet")
    other = network.with_pooling("average")
    assert [x.shape for x in other.layers] == [x.shape for x in network.layers]
    assert other.fingerprint == network.fingerprint
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(other(images), network(images))


def test_a_projection_without_switches_is_spread(tmp_path):
    network = load("tiny-zfnet")
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    unit = "pool1:3@8,8"
    sharp, even = (
        deconvnet(n, image, unit).raw for n in (network, network.with_pooling("average"))
    )
    assert (sharp != 0).sum() < (even != 0).sum()


def test_a_result_knows_the_pooling_and_is_made_again_with_it(tmp_path):
    network = load("tiny-zfnet").with_pooling("average")
    from optogram import maximize

    picture = maximize(network, "conv3:1", steps=2)
    picture.save(tmp_path / "p.png")
    assert picture.recipe["arguments"]["network"]["pooling"] == "average"
    assert replay(tmp_path / "p.png").identical


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.Sequential(nn.Flatten()), "it has none"),
        (Written(), "are no modules"),
        (nn.Sequential(nn.MaxPool2d(2, dilation=2), nn.Flatten()), "dilated"),
    ],
)
def test_networks_that_cannot_have_it_are_told_why(module, says):
    with pytest.raises(RequestError, match=says):
        Network(module, (1, 8, 8)).with_pooling("average")
