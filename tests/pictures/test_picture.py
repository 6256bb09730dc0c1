"""A Picture keeps what it was given, cannot be changed, and its files can be read by others."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from PIL import Image
from safetensors.torch import load_file

from optogram.pictures import Picture, RequestError


def picture(image=None, **others) -> Picture:
    image = torch.rand(1, 28, 28) if image is None else image
    return Picture(image, "fc3:7", 4.8213, torch.linspace(0, 4.8, 20), **others)


def test_tensors_are_copied_detached_and_on_the_cpu():
    image = torch.rand(1, 4, 4, requires_grad=True)
    made = picture(image, raw=image * 7)
    kept = made.image.clone()
    with torch.no_grad():
        image.zero_()
    assert torch.equal(made.image, kept)
    for tensor in (made.image, made.history, made.raw):
        assert (tensor.dtype, tensor.device.type) == (torch.float32, "cpu")
        assert not tensor.requires_grad


def test_numbers_of_any_kind_become_floats():
    made = picture(best_in_data=2, jitter_survival=np.float64(0.5), rival_score=1)
    assert [type(v) for v in (made.best_in_data, made.jitter_survival, made.rival_score)] == [
        float
    ] * 3


def test_a_picture_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        picture().score = 1.0


def test_two_pictures_are_two_though_they_look_the_same():
    one, other = picture(torch.zeros(1, 2, 2)), picture(torch.zeros(1, 2, 2))
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def test_a_picture_prints_as_a_line():
    assert repr(picture(verdict="excited")) == "Picture(fc3:7, 28x28 grey, score 4.82, excited)"
    assert repr(picture(torch.rand(3, 8, 9))) == "Picture(fc3:7, 8x9 colour, score 4.82)"


def test_the_caption_says_how_the_score_compares_with_the_data():
    assert picture().caption() == ("fc3:7", "4.82")
    assert picture(best_in_data=2.4, verdict="excited").caption() == (
        "fc3:7",
        "4.82, 2 x data",
        "excited",
    )
    assert picture(best_in_data=-1.0).caption() == ("fc3:7", "4.82, data -1")
    weak = dataclasses.replace(picture(best_in_data=2.0), score=-1.0)
    assert weak.caption() == ("fc3:7", "-1, data 2")


@pytest.mark.parametrize(
    "image",
    [
        torch.full((1, 4, 4), 1.5),
        torch.full((1, 4, 4), -0.5),
        torch.full((1, 4, 4), float("nan")),
        torch.rand(4, 4),
        torch.rand(1, 0, 4),
    ],
)
def test_what_is_no_image_in_0_to_1_is_refused(image):
    with pytest.raises((RequestError, TypeCheckError), match="image"):
        picture(image)


def test_rounding_beyond_the_range_is_clipped():
    made = picture(torch.tensor([[[-1e-6, 1 + 1e-6]]]))
    assert made.image.tolist() == [[[0.0, 1.0]]]


def test_there_are_no_other_verdicts():
    with pytest.raises(RequestError, match="excited, below data, failed, dead"):
        picture(verdict="splendid")


def test_a_small_picture_is_enlarged_by_a_whole_number(tmp_path):
    made = picture()
    with Image.open(made.save(tmp_path / "a.png")) as opened:
        pixels = np.asarray(opened)
    expected = np.rint(made.image[0].numpy() * 255).astype(np.uint8)
    assert pixels.shape == (224, 224)
    assert (pixels == np.kron(expected, np.ones((8, 8), np.uint8))).all()


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 28, 28), 224), ((3, 100, 100), 200), ((3, 300, 300), 300), ((1, 1, 1000), 1)],
)
def test_the_scale_fits_the_shorter_side_unless_the_longer_is_long(shape, size):
    assert picture(torch.rand(shape)).pil().height == size


def test_a_scale_that_was_asked_for_is_kept():
    assert picture().pil(3).size == (84, 84)
    for scale in (0, -2):
        with pytest.raises(RequestError, match="whole number"):
            picture().pil(scale)


def test_colours_are_saved_as_they_are(tmp_path):
    made = picture(torch.rand(3, 5, 7))
    with Image.open(made.save(tmp_path / "a.png", scale=1)) as opened:
        pixels = np.asarray(opened)
    assert np.abs(pixels / 255 - made.image.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    with Image.open(made.save(tmp_path / "a.webp", scale=1)) as opened:
        assert (np.asarray(opened.convert("RGB")) == pixels).all()


def test_safetensors_hold_the_exact_floats_and_all_evidence(tmp_path):
    made = picture(
        raw=torch.randn(1, 28, 28), answers=(("3", 0.9),), rival="fc3:1", rival_score=2.0
    )
    path = made.save(tmp_path / "a.safetensors")
    tensors = load_file(path)
    for name in ("image", "history", "raw"):
        assert torch.equal(tensors[name], getattr(made, name))
    header = json.loads(path.read_bytes()[8:].split(b"}}", 1)[0].decode(errors="ignore") + "}}")
    facts = json.loads(header["__metadata__"]["facts"])
    assert facts["answers"] == [["3", 0.9]]
    assert (facts["unit"], facts["rival"], facts["best_in_data"]) == ("fc3:7", "fc3:1", None)


def test_an_unknown_suffix_names_those_there_are(tmp_path):
    with pytest.raises(RequestError, match=r"'\.tga'; choose one of \.png, .*\.safetensors"):
        picture().save(tmp_path / "a.tga")
    assert list(tmp_path.iterdir()) == []


def test_the_same_picture_makes_the_same_bytes(tmp_path):
    made = picture(torch.rand(1, 9, 9), recipe={"b": 1, "a": 2})
    for suffix in ("png", "webp", "safetensors", "html"):
        one, other = made.save(tmp_path / f"a.{suffix}"), made.save(tmp_path / f"b.{suffix}")
        assert one.read_bytes() == other.read_bytes()


def test_a_notebook_shows_the_picture_with_its_caption():
    import io

    with Image.open(io.BytesIO(picture(verdict="dead")._repr_png_())) as shown:
        assert shown.height > 224


def test_without_a_viewer_showing_says_what_to_do(monkeypatch):
    from PIL import ImageShow

    monkeypatch.setattr(ImageShow, "_viewers", [])
    with pytest.raises(RequestError, match="no viewer"):
        picture().show()
