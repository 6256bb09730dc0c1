"""Recipes travel in files: what JSON can say comes back as it went in, and other readers agree."""

import hashlib
import json
import struct
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load

from optogram.pictures import Picture, Report, RequestError, Sheet, canonical, digest
from optogram.pictures.recipe import png_bytes, read_recipe, recipe_digest, safetensors_bytes

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    LEAVES | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
RECIPES = st.dictionaries(TEXTS, VALUES, max_size=5)
NASTY = {
    "unit": "</script><script>alert(1)</script>",
    "note": "<!-- é 中 \u2028 \x00 ]]>",
    "seed": 0,
}


def picture(recipe: dict) -> Picture:
    return Picture(torch.rand(1, 5, 6), "fc:1", 2.0, torch.zeros(3), recipe=recipe)


@given(recipe=RECIPES)
def test_the_canonical_text_is_the_recipe(recipe):
    assert json.loads(canonical(recipe)) == recipe


@given(recipe=RECIPES, seed=st.randoms())
def test_the_order_in_which_a_recipe_was_written_does_not_count(recipe, seed):
    items = list(recipe.items())
    seed.shuffle(items)
    assert canonical(dict(items)) == canonical(recipe)
    assert recipe_digest(dict(items)) == recipe_digest(recipe)


def test_the_canonical_text_is_short_and_in_letters_as_they_are():
    assert canonical({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    expected = hashlib.sha256('{"a":"é","b":[1,2.5]}'.encode()).hexdigest()
    assert recipe_digest({"b": [1, 2.5], "a": "é"}) == f"sha256:{expected}"


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1: 2}, [{None: 2}], torch.ones(2), {1, 2}, "\ud800", b"x"],
)
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(RequestError, match="recipe"):
        canonical({"a": value})


def test_a_recipe_that_holds_itself_is_refused():
    recipe: dict = {}
    recipe["a"] = recipe
    with pytest.raises(RequestError):
        canonical(recipe)


def test_a_digest_is_over_dtype_shape_and_little_endian_bytes():
    values = torch.tensor([[1.0, -2.5, 0.0]])
    content = b"float32;1,3;" + struct.pack("<3f", 1.0, -2.5, 0.0)
    assert digest(values) == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_other_shapes_types_and_values_have_other_digests():
    values = torch.zeros(2, 3)
    others = [values.T, values.double(), values.int(), values + 1, -values, values.bfloat16()]
    others += [torch.tensor(0.0), torch.zeros(0), torch.zeros(6, dtype=torch.bool)]
    assert len({digest(tensor) for tensor in [values, *others]}) == len(others) + 1


def test_a_digest_sees_values_and_not_how_they_lie_in_memory():
    values = torch.arange(12.0).reshape(3, 4)
    assert digest(values.T) == digest(values.T.contiguous())
    assert digest(values.requires_grad_()) == digest(values.detach())


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".jpeg", ".html", ".safetensors"])
def test_every_form_of_a_picture_gives_its_recipe_back(tmp_path, suffix):
    path = picture(NASTY).save(tmp_path / f"a{suffix}")
    assert read_recipe(path) == NASTY


@pytest.mark.parametrize("suffix", [".png", ".webp", ".html", ".safetensors", ".json"])
def test_every_form_of_a_sheet_gives_its_recipe_back(tmp_path, suffix):
    path = Sheet([picture({}), picture({})], recipe=NASTY).save(tmp_path / f"a{suffix}")
    assert read_recipe(path) == NASTY


@given(recipe=RECIPES)
@settings(max_examples=50)
def test_any_recipe_goes_through_any_file(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "a.png").write_bytes(png_bytes(Image.new("L", (2, 2)), recipe))
    assert read_recipe(folder / "a.png") == recipe
    assert read_recipe(Report("title", recipe=recipe).save(folder / "a.html")) == recipe
    made = picture(recipe)
    for suffix in (".safetensors", ".webp"):
        assert read_recipe(made.save(folder / f"b{suffix}")) == recipe


def test_pillow_reads_the_same_recipe_in_the_png(tmp_path):
    with Image.open(picture(NASTY).save(tmp_path / "a.png")) as opened:
        assert json.loads(opened.text["optogram"]) == NASTY


def test_a_recipe_longer_than_pillow_would_read_comes_back(tmp_path):
    recipe = {"units": [f"layer.{i}:{i * i}" for i in range(200_000)]}
    (tmp_path / "a.png").write_bytes(png_bytes(Image.new("L", (2, 2)), recipe))
    assert read_recipe(tmp_path / "a.png") == recipe


def test_safetensors_hold_the_recipe_as_metadata(tmp_path):
    path = picture(NASTY).save(tmp_path / "a.safetensors")
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["optogram"]) == NASTY


def test_safetensors_are_written_in_one_order_and_to_the_letter_of_their_format():
    facts = {letter: [letter] for letter in "hgfedcba"}
    tensors = {"b": torch.rand(3), "a": torch.rand(2, 2)}
    written = {safetensors_bytes(tensors, {"z": 1}, facts) for _ in range(20)}
    (content,) = written
    assert int.from_bytes(content[:8], "little") % 8 == 0
    loaded = load(content)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_the_script_in_the_page_is_one_script_of_json(tmp_path):
    scripts = []

    class Finder(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "script":
                scripts.append(dict(attrs))

    Finder().feed(picture(NASTY).save(tmp_path / "a.html").read_text("utf-8"))
    assert scripts == [{"type": "application/json", "id": "optogram-recipe"}]


def test_a_recipe_written_by_hand_is_a_recipe(tmp_path):
    (tmp_path / "a.json").write_text('{"technique": "maximize", "optogram": "0.1"}')
    assert read_recipe(tmp_path / "a.json") == {"technique": "maximize", "optogram": "0.1"}


def test_the_recipe_beside_must_be_of_that_picture(tmp_path):
    path = picture(NASTY).save(tmp_path / "a.webp")
    picture(NASTY).save(tmp_path / "b.webp")
    path.write_bytes((tmp_path / "b.webp").read_bytes())
    with pytest.raises(RequestError, match="another picture"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png_bytes(Image.new("L", (2, 2)))),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0\0\0\5iTXt"),
        ("a.png", b"nonsense"),
        ("a.html", b"<html><script>1</script></html>"),
        ("a.html", b"<script id='optogram-recipe'>{broken</script>"),
        ("a.json", b"[1, 2]"),
        ("a.json", b"{broken"),
        ("a.safetensors", b"12"),
        ("a.safetensors", b"\xff" * 40),
        ("a.webp", b"no json beside"),
        ("a.txt", b"hello"),
    ],
)
def test_a_file_without_a_recipe_says_so(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match="recipe"):
        read_recipe(tmp_path / name)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(RequestError, match="there is no file"):
        read_recipe(tmp_path / "a.png")
    with pytest.raises(RequestError, match="folder"):
        read_recipe(tmp_path)


def test_numpy_numbers_that_are_floats_are_written_as_such():
    assert canonical({"a": np.float64(0.5)}) == '{"a":0.5}'
