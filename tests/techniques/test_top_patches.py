"""Top patches are those of a full sort, cut out by their fields, beside their projections."""

import pytest
import torch

import optogram as og
from optogram.core import Direction, backpropagate, objective, rules
from optogram.core.unit import Unit
from optogram.pictures import Picture, RequestError
from tests.survey.small import images, network


def maps(net, data, layer):
    shown = data.take(torch.arange(len(data)))[0]
    with torch.no_grad():
        return shown, net.read(shown, layer, watch=True).before.layers[layer]


def test_patches_are_those_of_a_full_sort():
    net, data = network(), images(30)
    shown, said = maps(net, data, "conv2")
    best = said[:, 3].flatten(1).amax(1).topk(5)
    sheet = og.top_patches(net, data, "conv2:3", k=5)
    assert sheet.units == ("conv2:3",) * 5
    torch.testing.assert_close(sheet.scores, best.values, rtol=1e-5, atol=1e-6)
    for picture, image in zip(sheet, best.indices.tolist(), strict=True):
        row, column = divmod(int(said[image, 3].argmax()), said.shape[3])
        top, left, bottom, right = net.layer("conv2").field.box(row, column, 10, 10)
        assert isinstance(picture, Picture)
        assert torch.equal(picture.image, shown[image, :, top:bottom, left:right])


def test_they_are_the_surveys():
    net, data = network(), images(30)
    survey = og.survey(net, data, ["conv1", "fc1"], k=4)
    sheet = og.top_patches(net, data, ["conv1:2", "fc1:1"], k=4)
    assert sheet.columns == 4
    for row, address in enumerate(("conv1:2", "fc1:1")):
        some = sheet[4 * row : 4 * row + 4]
        torch.testing.assert_close(some.scores, survey[address].values)
        for rank, picture in enumerate(some):
            assert torch.equal(picture.image, survey[address].crop(rank))


@pytest.mark.parametrize(
    ("project", "rule"),
    [("deconvnet", rules.deconvnet), ("guided", rules.guided), ("gradient", rules.plain)],
)
def test_projections_come_from_the_place_itself_and_fit_their_patch(project, rule):
    net, data = network(), images(20)
    shown, said = maps(net, data, "conv2")
    sheet = og.top_patches(net, data, "conv2:1", k=3, project=project, batch=2)
    assert len(sheet) == 6
    best = said[:, 1].flatten(1).amax(1).topk(3).indices.tolist()
    for rank, image in enumerate(best):
        row, column = divmod(int(said[image, 1].argmax()), said.shape[3])
        asked = objective.activation(Unit("conv2", 1, (row, column)))
        whole = backpropagate(net, shown[image][None], asked, rule)[0]
        top, left, bottom, right = net.layer("conv2").field.box(row, column, 10, 10)
        patch, projection = sheet[rank], sheet[3 + rank]
        assert projection.image.shape == patch.image.shape
        expected = whole[:, top:bottom, left:right]
        torch.testing.assert_close(projection.raw, expected, rtol=1e-4, atol=1e-6)
        whole[:, top:bottom, left:right] = 0
        assert not bool(whole.any())


def test_a_first_layer_is_projected_by_its_filter_under_every_rule():
    net, data = network(), images(9)
    one, two = (
        og.top_patches(net, data, "conv1:1", k=2, project=p) for p in ("deconvnet", "gradient")
    )
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.image, b.image)


def test_directions_and_single_places_are_asked_too():
    net, data = network(), images(25)
    _, said = maps(net, data, "conv2")
    vector = torch.tensor([1.0, -1, 0, 2, 0, 0])
    along = torch.einsum("bchw,c->bhw", said, vector).flatten(1).amax(1)
    targets = [Direction("conv2", vector, "mine"), "conv2:2@1,1"]
    sheet = og.top_patches(net, data, targets, k=2)
    expected = [along, said[:, 2, 1, 1]]
    for row, values in enumerate(expected):
        scores = sheet[2 * row : 2 * row + 2].scores
        torch.testing.assert_close(scores, values.topk(2).values, rtol=1e-5, atol=1e-6)
    assert sheet[2].unit == "conv2:2@1,1"


def test_a_layer_stands_for_units_spread_over_it():
    net, data = network(), images(20)
    some = og.top_patches(net, data, "conv2", k=2, sample=3, project="deconvnet")
    named = ["conv2:0", "conv2:2", "conv2:4"]
    one_by_one = og.top_patches(net, data, named, k=2, project="deconvnet")
    assert some.units == one_by_one.units == tuple(unit for unit in named for _ in range(4))
    assert torch.equal(some.scores, one_by_one.scores)
    every = og.top_patches(net, data, ["conv2", "fc1:1"], k=1, sample=None)
    assert every.units == (*(f"conv2:{number}" for number in range(6)), "fc1:1")
    assert og.top_patches(net, data, "conv2", k=1).units == every.units[:-1]
    with pytest.raises(RequestError, match="sample=0: at least one unit"):
        og.top_patches(net, data, "conv2", sample=0)


def test_one_image_may_fill_the_list_where_that_is_asked():
    net, data = network(), images(20)
    _, said = maps(net, data, "conv1")
    sheet = og.top_patches(net, data, "conv1:0", k=6, everywhere=True)
    torch.testing.assert_close(sheet.scores, said[:, 0].flatten().topk(6).values)


def test_fewer_images_make_fewer_patches():
    assert len(og.top_patches(network(), images(3), "fc1:0", k=9)) == 3


def test_the_recipe_names_network_and_images():
    net, data = network(), images(5)
    sheet = og.top_patches(net, data, "fc1:0", k=2)
    given = sheet.recipe["arguments"]
    assert given["network"] == net.recipe()
    assert given["dataset"]["digest"] == data.digest
    assert given["k"] == 2


@pytest.mark.parametrize(
    ("unit", "said"),
    [("conv9:0", "no layer called"), ("fc1:5", "no unit"), ([], "no unit was asked for")],
)
def test_units_that_are_not_there_are_refused(unit, said):
    with pytest.raises(RequestError, match=said):
        og.top_patches(network(), images(3), unit)


def test_k_below_1_is_refused():
    with pytest.raises(RequestError, match="at least 1"):
        og.top_patches(network(), images(3), "fc1:0", k=0)


def test_a_list_does_not_depend_on_the_batch():
    net, data = network(), images(30)
    one, two = (og.top_patches(net, data, "conv2:0", batch=b) for b in (1, 7))
    torch.testing.assert_close(one.scores, two.scores, rtol=1e-5, atol=1e-6)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.image, b.image)


@pytest.mark.data
def test_the_strongest_digits_of_an_output_are_mostly_of_its_class(data_root):
    net = og.load("mnist-mlp")
    data = og.data("mnist", split="test", root=data_root)
    survey = og.survey(net, data, ["output"], k=9, triage=False)
    right = [int((survey[f"output:{digit}"].labels == digit).sum()) for digit in range(10)]
    assert sum(right) >= 85
    assert [survey[f"output:{digit}"].prefers for digit in range(10)] == list("0123456789")
