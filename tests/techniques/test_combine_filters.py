import pytest
import torch
from torch import nn

import optogram as og
from optogram.core.network import Network
from optogram.techniques.combine_filters import combination
from optogram.zoo.stack import DeepBelief


def stack(**settings):
    return Network(DeepBelief((12, 6, 5, 4, 3), deviation=1.0), (1, 3, 4), name="stack", **settings)


def weights(network):
    return [network.module.get_parameter(f"h{n}.weight").detach() for n in (1, 2, 3)]


def test_with_all_kept_it_is_the_product_of_the_weights():
    network = stack()
    first, second, third = weights(network)
    torch.testing.assert_close(combination(network, "h1:4")[1].flatten(), first[4])
    torch.testing.assert_close(combination(network, "h2:3")[1].flatten(), first.T @ second[3])
    expected = first.T @ second.T @ third[2]
    torch.testing.assert_close(combination(network, "h3:2")[1].flatten(), expected)


def test_it_is_the_gradient_of_the_layers_without_what_bends_them():
    network = stack(std=(0.5,))
    image = torch.rand(1, 12, requires_grad=True)
    first, second, third = weights(network)
    straight = (image / 0.5) @ first.T @ second.T @ third[1]
    (expected,) = torch.autograd.grad(straight.sum(), image)
    torch.testing.assert_close(combination(network, "h3:1")[1].flatten(), expected[0])


def test_the_strongest_weights_are_kept_by_size_for_each_unit():
    """Written out with loops, as the paper defines it: each filter from the filters below."""
    network = stack()
    first, second, third = weights(network)

    def combined(row, filters):
        strongest = sorted(range(len(row)), key=lambda k: -abs(float(row[k])))[:2]
        return sum(row[k] * filters[k] for k in strongest)

    below = [combined(row, first) for row in second]
    expected = combined(third[1], below)
    torch.testing.assert_close(combination(network, "h3:1", 2)[1].flatten(), expected)
    assert any(float(w) < 0 for row in second for w in row.sort(descending=True).values[:2].neg())


def test_the_picture_has_the_norm_of_the_data_and_the_score_of_the_unit():
    network = stack(records={"data.mean_norm": torch.tensor(9.2)})
    picture = og.combine_filters(network, "h2:1", strongest=3)
    assert float(picture.raw.norm()) == pytest.approx(9.2, rel=1e-5)
    asked = network.read(picture.raw[None], "h2").layers["h2"][0, 1]
    assert picture.score == pytest.approx(float(asked))
    direction = combination(network, "h2:1", 3)[1]
    cosine = torch.cosine_similarity(direction.flatten(), picture.raw.flatten(), dim=0)
    assert float(cosine) == pytest.approx(1)
    brightest = picture.image.flatten()[direction.abs().argmax()]
    assert float(brightest) in (pytest.approx(0), pytest.approx(1))


def test_it_is_for_every_plain_network_and_says_which_is_none():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    network = Network(plain, (1, 2, 2))
    expected = plain[1].weight.T @ plain[3].weight[0]
    torch.testing.assert_close(combination(network, "3:0")[1].flatten(), expected.detach())
    convolved = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(og.RequestError, match="Linear layers alone"):
        og.combine_filters(Network(convolved, (1, 2, 2)), "2:0")


@pytest.mark.parametrize(
    ("unit", "strongest", "says"),
    [
        ("h2", 3, "no single unit"),
        ("h2:0", 0, "strongest=0"),
        ("h2:9", 3, "no unit"),
        ("sigmoid2:0", 3, "cannot be combined"),
    ],
)
def test_what_has_no_filter_is_refused(unit, strongest, says):
    with pytest.raises(og.RequestError, match=says):
        og.combine_filters(stack(), unit, strongest=strongest)
