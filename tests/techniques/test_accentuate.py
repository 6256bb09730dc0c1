"""Caricatures: the answer grows along itself, and the image beside it stays as it is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optogram.core import Network
from optogram.core.activations import Activations
from optogram.core.film import filming
from optogram.pictures.errors import RequestError
from optogram.techniques import accentuate
from optogram.techniques.accentuate import _alike
from optogram.techniques.dream import resized
from tests.core.nets import images, named


def seeing() -> Network:
    module = named(
        conv=nn.Conv2d(3, 8, 5, padding=2), relu=nn.ReLU(),
        late=nn.Conv2d(8, 6, 3, padding=1), act=nn.ReLU(),
    )  # fmt: skip
    return Network(module, (3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)


def photo() -> torch.Tensor:
    return resized(images(1, (3, 7, 7), seed=3), 33, 38)[0]


@pytest.mark.parametrize("start", ["image", "noise"])
def test_what_a_layer_sees_is_exaggerated(start):
    network, image = seeing(), photo()
    picture = accentuate(network, image, "act", start=start, steps=20)
    answers = network.read(torch.stack([image, picture.image]), "act").layers["act"].flatten(2)
    dot = float((answers[0] * answers[1]).sum(0).mean())
    assert picture.score == pytest.approx(dot, rel=1e-3)
    assert float(picture.history[-1]) > float(picture.history[0])
    if start == "image":
        assert dict(picture.measures)["times the image's"] > 1
    assert picture.image.shape == image.shape


def test_the_objective_is_the_dot_product_times_a_power_of_the_cosine():
    answers = images(2, (5, 3, 4), seed=8).double()
    acts = Activations(seeing(), images(2, (3, 32, 32)), {"act": answers})
    own, made = answers.flatten(2)
    cosine = F.cosine_similarity(own, made, dim=0).clamp(min=0.1)
    expected = float(((own * made).sum(0) * cosine**3).mean())
    still, moving = _alike("act", 3.0)(acts).tolist()
    assert still == 0
    assert moving == pytest.approx(expected, rel=1e-9)


def test_the_image_is_filmed_beside_the_picture_and_never_changes():
    frames = []
    with filming(frames.append):
        accentuate(seeing(), photo(), "act", steps=3)
    assert len(frames) == 4
    assert all(torch.equal(frame[0], photo()) for frame in frames)
    assert not torch.equal(frames[0][1], frames[-1][1])


def test_what_is_no_layer_is_refused():
    with pytest.raises(RequestError, match="a caricature is of a whole layer, as in 'act'"):
        accentuate(seeing(), photo(), "act:2")
    with pytest.raises(RequestError, match=r"power=-1\.0: at least 0"):
        accentuate(seeing(), photo(), "act", power=-1.0)
