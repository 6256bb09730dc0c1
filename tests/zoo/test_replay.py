"""A result made again from its file is the same, and a recipe that cannot be followed says why."""

from pathlib import Path

import pytest
import torch

import optogram as og
from optogram.pictures import read_recipe
from optogram.pictures.errors import RequestError


@pytest.fixture(scope="module")
def network() -> og.Network:
    return og.load("mnist-mlp")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".safetensors", ".html"])
def test_a_picture_is_identical_when_it_is_made_again(
    network: og.Network, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"x{suffix}"
    og.maximize(network, "fc7:1", steps=5).save(file)
    again = og.replay(file)
    assert again.identical
    assert again.sentence == "identical"


def test_a_sheet_is_identical_and_so_is_each_of_its_pictures_alone(
    network: og.Network, tmp_path: Path
) -> None:
    sheet = og.maximize(network, ["output:3", "fc7:1"], steps=5)
    sheet.save(tmp_path / "sheet.png")
    sheet[1].save(tmp_path / "one.png")
    assert og.replay(tmp_path / "sheet.png").identical
    assert og.replay(tmp_path / "one.png").identical


def test_all_kinds_of_arguments_come_back_from_their_text(network: og.Network) -> None:
    direction = og.Direction("fc7", torch.arange(32.0) - 9, "ramp")
    picture = og.maximize(
        network,
        direction,
        param=og.param.pixels(start="uniform", box="sigmoid"),
        regularizer=0.01 * og.objective.total_variation(boundary="zero")
        + 0.001 * og.objective.norm(1),
        transforms=[og.transform.jitter(1)],
        steps=4,
        seed=5,
    )
    assert og.replay(picture.recipe).identical


def test_a_map_is_made_again_from_the_image_that_its_recipe_names(
    network: og.Network, tmp_path: Path
) -> None:
    image = og.zoo.image_for(network, "digits:3")
    og.saliency(network, image, "output:3").save(tmp_path / "why.png")
    assert og.replay(tmp_path / "why.png").identical
    nameless = image.clone()
    recipe = og.saliency(network, nameless, "output:3").recipe
    with pytest.raises(RequestError, match="does not say where its image lies"):
        og.replay(recipe)
    assert og.replay(recipe, image=image).identical
    with pytest.raises(RequestError, match="not the one"):
        og.replay(recipe, image=image * 0.5)


def test_another_seed_is_not_the_same_picture(network: og.Network, tmp_path: Path) -> None:
    picture = og.maximize(network, "fc7:1", param="pixels(start='uniform')", steps=3)
    picture.save(tmp_path / "x.png")
    recipe = read_recipe(tmp_path / "x.png")
    recipe["arguments"]["seed"] = 1
    again = og.replay(recipe)
    assert not again.identical
    assert again.sentence != "identical"


def test_recipes_that_cannot_be_followed_say_why(network: og.Network) -> None:
    recipe = og.maximize(network, "fc7:1", steps=1).recipe
    with pytest.raises(RequestError, match="names no technique"):
        og.replay({**recipe, "technique": "divination"})
    arguments = dict(recipe["arguments"])
    with pytest.raises(RequestError, match="which network"):
        og.replay({**recipe, "arguments": {**arguments, "network": {}}})
    other = {"name": "mnist-mlp", "weights": "sha256:0"}
    with pytest.raises(RequestError, match="other weights"):
        og.replay({**recipe, "arguments": {**arguments, "network": other}})


def test_a_pair_of_numbers_comes_back_as_a_pair(network: og.Network) -> None:
    image = og.zoo.image_for(network, "digits:3")
    whole = og.occlusion(network, image, "output:3", patch=(14, 7), stride=7)
    assert og.replay(whole.recipe).identical
