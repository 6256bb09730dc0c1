"""Whether pictures tell which images excite a unit: known answers, and chance for noise."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from optogram.core import Network
from optogram.pictures.errors import RequestError
from optogram.survey.agreement import agreement, auc
from tests.core.nets import named


def colours() -> Network:
    """Unit c of the last layer is how much of channel c there is."""
    module = named(look=nn.Conv2d(3, 3, 1), act=nn.ReLU(), last=nn.Conv2d(3, 3, 1))
    with torch.no_grad():
        for part in (module.look, module.last):
            part.weight.copy_(torch.eye(3)[:, :, None, None])
            part.bias.zero_()
    return Network(module, (3, 6, 6))


def images(count: int = 60) -> torch.Tensor:
    tones = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return tones.expand(-1, -1, 6, 6).contiguous()


def test_the_area_is_scikit_learns_ties_included():
    chance = torch.Generator().manual_seed(1)
    one, other = (torch.randint(0, 6, (n,), generator=chance).double() for n in (9, 30))
    theirs = roc_auc_score([1] * 9 + [0] * 30, torch.cat([one, other]).numpy())
    assert auc(one, other) == pytest.approx(theirs)


def test_a_picture_of_what_excites_a_unit_ranks_such_images_first():
    pure = torch.zeros(3, 3, 6, 6)
    for channel in range(3):
        pure[channel, channel] = 1
    units = [f"last:{c}" for c in range(3)]
    right = agreement(colours(), units, pure, images(), at="look")
    assert (right.auc > 0.65).all()
    best = images().amax((0, 2, 3))
    torch.testing.assert_close(right.reached, 1 / best)
    wrong = agreement(colours(), units, 1 - pure, images(), at="look")
    assert (wrong.auc < right.auc - 0.3).all()


def test_noise_says_nothing():
    chance = torch.Generator().manual_seed(2)
    pictures = torch.rand(60, 3, 6, 6, generator=chance)
    units = [f"last:{c % 3}" for c in range(60)]
    found = agreement(colours(), units, pictures, images(), at="look")
    assert abs(float(found.auc.mean()) - 0.5) < 0.1


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(RequestError, match="2 units for 1 pictures"):
        agreement(colours(), ["last:0", "last:1"], images(1), images(), at="look")
    with pytest.raises(RequestError, match="too few"):
        agreement(colours(), ["last:0"], images(1), images(8), at="look")
    with pytest.raises(RequestError, match="no single unit"):
        agreement(colours(), ["last"], images(1), images(), at="look")
