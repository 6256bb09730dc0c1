"""Style and content: Gram matrices, the paper's formula, and what each option changes."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from optogram import load
from optogram.core import Network
from optogram.pictures import Picture
from optogram.pictures.errors import RequestError
from optogram.techniques import stylize
from optogram.techniques.dream import resized
from optogram.techniques.stylize import _levels, _pooled, _recoloured, gram
from optogram.zoo import replay
from tests.core.nets import images, named


def seeing() -> Network:
    """Three sizes of maps, two of its layers at each."""
    parts: dict[str, nn.Module] = {}
    for level, (inputs, outputs) in enumerate(((3, 8), (8, 12), (12, 16)), start=1):
        for number, channels in enumerate((inputs, outputs), start=1):
            parts[f"conv{level}{number}"] = nn.Conv2d(channels, outputs, 3, padding=1)
            parts[f"relu{level}{number}"] = nn.ReLU()
        if level < 3:
            parts[f"pool{level}"] = nn.MaxPool2d(2)
    return Network(named(**parts), (3, 40, 40), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def photo(height: int = 40, width: int = 48, seed: int = 0) -> torch.Tensor:
    return resized(images(1, (3, 9, 9), seed=seed), height, width)[0]


def striped(seed: int = 5) -> torch.Tensor:
    stripes = (torch.arange(44) // 3 % 2).float().expand(3, 36, 44)
    return (0.7 * stripes + 0.3 * images(1, (3, 36, 44), seed=seed)[0]).clamp(0, 1)


def measured(picture: Picture) -> dict[str, float]:
    return dict(picture.measures)


def test_a_gram_matrix_forgets_places_and_is_positive_semidefinite():
    answer = images(2, (6, 5, 7), seed=1).double() - 0.4
    made = gram(answer)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(0))
    moved = answer.flatten(2)[..., order].view(answer.shape)
    assert torch.allclose(gram(moved), made, atol=1e-12)
    assert float(torch.linalg.eigvalsh(made).min()) > -1e-12
    flat = answer[0].flatten(1).numpy()
    assert torch.allclose(made[0], torch.from_numpy(flat @ flat.T / 35))


def test_a_masked_gram_matrix_is_that_of_the_places_under_the_mask():
    answer = images(1, (6, 5, 7), seed=1).double()
    mask = torch.zeros(5, 7)
    mask[1:4, 2:5] = 1
    assert torch.allclose(gram(answer, mask), gram(answer[..., 1:4, 2:5]))


@pytest.mark.parametrize("start", ["content", "noise"])
def test_the_style_is_matched_to_a_percent_of_the_start(start):
    picture = stylize(
        seeing(), photo(), striped(), content_weight=0.0, start=start, steps=60, pooling="average"
    )
    assert measured(picture)["style, of the start's"] <= 0.01
    assert picture.image.shape == photo().shape


def test_content_alone_is_matched_to_a_thousandth_of_the_start():
    options = {"start": "noise", "steps": 120, "content": ["relu11"], "content_weight": 10.0}
    picture = stylize(seeing(), photo(), striped(), style_weight=0.0, layers=["relu11"], **options)
    assert measured(picture)["content loss"] <= 1e-3 * -float(picture.history[0])
    assert picture.score == pytest.approx(float(picture.history.max()), rel=1e-3)


def test_more_weight_on_style_costs_content():
    options = {"content_weight": 1.0, "steps": 25}
    lost = [
        measured(stylize(seeing(), photo(), striped(), style_weight=w, **options))["content loss"]
        for w in (0.0, 0.1, 10.0)
    ]
    assert lost == sorted(lost)
    assert lost[0] < 1e-6 < lost[1]


@pytest.mark.parametrize("optimizer", ["L-BFGS", "SGD"])
def test_the_style_of_the_image_itself_changes_nothing(optimizer):
    picture = stylize(seeing(), photo(), photo(), steps=5, optimizer=optimizer)
    assert torch.allclose(picture.image, photo(), atol=1e-4)


def test_the_papers_formula_is_the_papers():
    """E_l = sum (G - A)^2 / (4 N^2 M^2) with sums over places, content sum (F - P)^2 / 2."""
    network, image = seeing(), photo()
    style = photo(seed=3)
    picture = stylize(
        network, image, style, formula="gatys2015", layers=["relu11", "relu21"],
        content=["relu22"], start="style", steps=0, style_weight=7.0, content_weight=3.0,
    )  # fmt: skip
    assert measured(picture)["style loss"] == pytest.approx(0, abs=1e-5)
    heard = [network.read(one[None], "relu22").layers["relu22"] for one in (image, style)]
    content = 3.0 * float((heard[0] - heard[1]).square().sum()) / 2
    assert measured(picture)["content loss"] == pytest.approx(content, rel=1e-4)
    begun = stylize(
        network, image, style, formula="gatys2015", layers=["relu11", "relu21"],
        content=["relu22"], steps=0, style_weight=7.0,
    )  # fmt: skip
    expected = 0.0
    for name in ("relu11", "relu21"):
        one, other = (
            network.read(x[None], name).layers[name][0].flatten(1) for x in (image, style)
        )
        channels, places = one.shape
        apart = (one @ one.T - other @ other.T).square().sum()
        expected += 7.0 / 2 * float(apart) / (4 * channels**2 * places**2)
    assert measured(begun)["style loss"] == pytest.approx(expected, rel=1e-3)


def test_styles_count_by_their_shares():
    network, image, pair = seeing(), photo(), [striped(), photo(seed=9)]
    options = {"steps": 0, "content_weight": 0.0}
    one, other = (measured(stylize(network, image, s, **options))["style loss"] for s in pair)
    both = stylize(network, image, pair, shares=[3.0, 1.0], **options)
    assert measured(both)["style loss"] == pytest.approx(0.75 * one + 0.25 * other, rel=1e-4)
    with pytest.raises(RequestError, match="for 2 styles: one each"):
        stylize(network, image, pair, shares=[1.0])


def test_a_mask_keeps_a_style_to_its_place():
    image = photo()
    mask = torch.zeros(40, 48)
    mask[:, :20] = 1
    options = {"content_weight": 0.01, "steps": 25, "layers": ["relu11"], "content": ["relu12"]}
    picture = stylize(seeing(), image, striped(), masks=[mask], **options)
    changed = (picture.image - image).abs().mean((0, 1))
    assert float(changed[:18].mean()) > 5 * float(changed[26:].mean())
    with pytest.raises(RequestError, match="2 masks for 1 styles"):
        stylize(seeing(), image, striped(), masks=[mask, mask])
    with pytest.raises(RequestError, match="a mask is 0 everywhere"):
        stylize(seeing(), image, striped(), masks=[torch.zeros(4, 4)])


def test_colours_can_be_the_images():
    image, style = photo(), striped() * torch.tensor([1.0, 0.2, 0.1])[:, None, None]
    kept = stylize(seeing(), image, style, steps=5, colours="content")
    chroma = [x[0] - x[2] for x in (kept.image, image)]
    inside = (kept.image > 0).all(0) & (kept.image < 1).all(0)
    assert torch.allclose(chroma[0][inside], chroma[1][inside], atol=1e-5)
    matched = _recoloured(0.4 + 0.2 * photo(seed=2), 0.3 + 0.2 * image)
    for given in (0.3 + 0.2 * image,):
        assert torch.allclose(matched.mean((1, 2)), given.mean((1, 2)), atol=0.01)
        assert torch.allclose(matched.flatten(1).cov(), given.flatten(1).cov(), atol=1e-3)


def test_average_pools_take_the_place_of_maxima_and_share_the_weights():
    network = seeing()
    twin = _pooled(network, "average")
    assert isinstance(twin.module.pool1, nn.AvgPool2d)
    assert isinstance(network.module.pool1, nn.MaxPool2d)
    assert twin.module.conv11.weight is network.module.conv11.weight
    with pytest.raises(RequestError, match="no module that pools by maxima"):
        _pooled(Network(named(conv=nn.Conv2d(3, 4, 3)), (3, 9, 9)), "average")


def test_the_usual_layers_are_the_first_at_each_size_of_maps():
    recipe = stylize(seeing(), photo(), striped(), steps=0).recipe
    assert recipe["layers"] == {"style": ["relu11", "relu21", "relu31"], "content": ["relu32"]}
    assert "has 3 of the 5 sizes" in recipe["lacks"]
    from torchvision.models import vgg19

    with torch.device("meta"):  # its 140 million weights need not be there
        bare = vgg19()
    bare.features.to_empty(device="cpu")
    for weight in bare.features.parameters():
        nn.init.zeros_(weight)
    levels = _levels(Network(nn.Sequential(OrderedDict(features=bare.features)), (3, 32, 32)))
    firsts = ["features.1", "features.6", "features.11", "features.20", "features.29"]
    assert [names[0] for names in levels] == firsts
    assert levels[3][1] == "features.22"
    googlenet = load("googlenet-bvlc", weights="random")
    firsts = ["conv1", "conv2", "inception3a", "inception4a", "inception5a"]
    assert [names[0] for names in _levels(googlenet)] == firsts


def test_coarse_sizes_are_painted_first_and_any_size_is_kept():
    image = photo(45, 53)
    picture = stylize(seeing(), image, striped(), steps=4, scales=2)
    assert picture.image.shape == image.shape
    assert len(picture.history) == 10
    assert picture.recipe["arguments"]["scales"] == 2
    options = {"steps": 1, "scales": 1, "optimizer": "SGD"}
    whole, pieces = (stylize(seeing(), image, striped(), tile=t, **options) for t in (None, 16))
    assert not torch.equal(whole.image, image)
    assert torch.allclose(whole.image, pieces.image, atol=1e-4)


def test_a_network_without_maps_is_refused():
    with pytest.raises(RequestError, match="mnist-mlp has no layers of maps"):
        stylize(load("mnist-mlp"), images(1, (1, 28, 28))[0], images(1, (1, 28, 28))[0])
    network = Network(named(c=nn.Conv2d(3, 2, 3), f=nn.Flatten()), (3, 9, 9))
    with pytest.raises(RequestError, match="'output' of Sequential has no places"):
        stylize(network, photo(9, 9), striped(), layers=["output"])
    with pytest.raises(RequestError, match="there is no style"):
        stylize(seeing(), photo(), [])


def test_a_style_from_a_file_is_named_and_made_again(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())\n"
        "    module.shape = (3, 20, 20)\n"
        "    return module\n"
    )
    network = load(f"{tmp_path / 'net.py'}:build")
    for name, seed in (("image", 0), ("style", 4)):
        made = stylize(network, photo(24, 20, seed), photo(20, 20, seed), steps=0)
        made.save(tmp_path / f"{name}.png", scale=1)
    from optogram import image as read

    picture = stylize(
        network, read(tmp_path / "image.png"), str(tmp_path / "style.png"), steps=3, layers=["1"]
    )
    path = picture.save(tmp_path / "art.png")
    assert picture.recipe["arguments"]["style"][0]["image"] == str(tmp_path / "style.png")
    again = replay(path)
    assert again.identical, again.sentence


@pytest.mark.data
def test_vggs_lower_layers_answer_one_on_average_and_carry_a_style(data_root):
    weights = data_root / "weights" / "vgg19_normalised_conv3_1.safetensors"
    network = load("vgg19-conv3_1", weights=weights)
    from optogram import data

    cat, tissue = (data("photos")[n][0] for n in (1, 4))
    for name in ("features.1", "features.6", "features.11"):
        mean = float(network.read(cat[None, :, :224, :224], name).layers[name].mean())
        assert 0.3 < mean < 3, name
    picture = stylize(network, cat, tissue, size=96, steps=30)
    assert measured(picture)["style, of the start's"] < 0.1
