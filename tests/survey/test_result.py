"""A survey's answers about units, classes, images and groups are those one works out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from optogram.core import Network, backpropagate, objective
from optogram.core.unit import Unit
from optogram.pictures import RequestError, Sheet
from optogram.survey import from_arrays, make
from tests.survey.small import LAYERS, images, network


@pytest.fixture(scope="module")
def held():
    net, data = network(), images(60)
    return net, data, make(net, data, LAYERS, k=5)


def strongest(net, data, layer):
    with torch.no_grad():
        shown = data.take(torch.arange(len(data)))[0]
        said = net.read(shown, layer, watch=True).before.layers[layer]
    return said.reshape(len(said), said.shape[1], -1).amax(2).double()


def test_boxes_cut_what_the_unit_saw(held):
    net, data, survey = held
    for address in ("conv1:2", "conv2:4"):
        unit = survey[address]
        for rank in range(unit.k):
            image, row, column = unit.places[rank].tolist()
            top, left, bottom, right = unit.boxes[rank].tolist()
            expected = net.layer(address.split(":")[0]).field.box(row, column, 10, 10)
            assert (top, left, bottom, right) == expected
            assert torch.equal(unit.crop(rank), data[image][0][:, top:bottom, left:right])


def test_every_pixel_that_matters_lies_inside_the_box(held):
    net, data, survey = held
    unit = survey["conv2:3"]
    for (image, row, column), box in zip(unit.places.tolist(), unit.boxes.tolist(), strict=True):
        asked = objective.activation(Unit("conv2", 3, (row, column)))
        slope = backpropagate(net, data[image][0][None], asked)[0, 0]
        slope[box[0] : box[2], box[1] : box[3]] = 0
        assert not bool(slope.any())


def test_a_field_that_hangs_over_the_edge_is_filled_up_with_grey():
    torch.manual_seed(0)
    net = Network(nn.Conv2d(1, 1, 3, padding=1), (1, 4, 4))
    nn.init.ones_(net.module.weight)
    shown = torch.zeros(1, 1, 4, 4)
    shown[0, 0, 0, 0] = 1.0
    shown[0, 0, 1:, 1:] = 0.01
    unit = make(net, from_arrays(shown), ["output"], k=1)["output:0"]
    # The place (1, 1) sees the bright corner and four dim pixels: everything, no edge.
    assert unit.places.tolist() == [[0, 1, 1]]
    assert unit.patches.shape == (1, 1, 3, 3)
    shown[0, 0, 1:, 1:] = -0.0
    unit = make(net, from_arrays(shown), ["output"], k=1)["output:0"]
    assert unit.places.tolist() == [[0, 0, 0]]
    assert unit.crop(0).shape == (1, 2, 2)
    patch = unit.patches[0, 0]
    assert patch[0].tolist() == [0.5] * len(patch[0])
    assert patch[1, 1] == 1.0


def test_patches_are_one_tensor_and_one_sheet(held):
    _, _, survey = held
    unit = survey["conv2:0"]
    assert unit.patches.shape[:2] == (5, 1)
    sheet = unit.sheet()
    assert isinstance(sheet, Sheet)
    assert len(sheet) == 5
    assert torch.equal(sheet.scores, unit.values)


def test_class_means_selectivity_and_preference_are_those_in_closed_form(held):
    net, data, survey = held
    answers = strongest(net, data, "fc1").numpy()
    labels = data.labels.numpy()
    means = np.stack([answers[labels == c].mean(0) for c in range(3)])
    np.testing.assert_allclose(survey.class_means("fc1"), means, rtol=1e-5, atol=1e-6)
    between = sum((labels == c).mean() * (means[c] - answers.mean(0)) ** 2 for c in range(3))
    np.testing.assert_allclose(survey.selectivity("fc1"), between / answers.var(0), rtol=1e-4)
    assert survey["fc1:2"].prefers == "xyz"[means[:, 2].argmax()]
    above = (means[1] - answers.mean(0)) / answers.std(0)
    assert survey.preferring("y", "fc1", 2) == [
        (f"fc1:{i}", pytest.approx(above[i], rel=1e-4)) for i in np.argsort(-above)[:2]
    ]


def test_an_unknown_class_is_answered_with_those_there_are(held):
    with pytest.raises(RequestError, match="no class 'q' in these images; there is x, y, z"):
        held[2].preferring("q", "fc1")


def test_correlation_nearest_and_participation_are_numpys(held):
    net, data, survey = held
    fc, out = strongest(net, data, "fc1").numpy(), strongest(net, data, "output").numpy()
    both = np.corrcoef(np.concatenate([fc, out], 1).T)
    np.testing.assert_allclose(survey.correlation("fc1"), both[:5, :5], atol=1e-5)
    np.testing.assert_allclose(survey.participation("fc1"), both[:5, 5:], atol=1e-5)
    others = both[1, :5].copy()
    others[1] = -2
    assert survey.nearest("fc1:1", 2) == [
        (f"fc1:{i}", pytest.approx(others[i], abs=1e-5)) for i in np.argsort(-others)[:2]
    ]


def test_participation_needs_the_outputs():
    survey = make(network(), images(9), ["fc1"])
    with pytest.raises(RequestError, match="'output' is surveyed too"):
        survey.participation("fc1")


def test_an_image_that_excites_a_unit_unusually_is_noticed(held):
    net, data, survey = held
    image = torch.zeros(1, 10, 10)
    image[0, ::2] = 1.0
    found = dict(survey.unusual(net, image, n=100))
    with torch.no_grad():
        said = net.read(image[None], "conv2", watch=True).before.layers["conv2"].amax((2, 3))[0]
    answers = strongest(net, data, "conv2")
    for unit in range(6):
        score = (said[unit].double() - answers[:, unit].mean()) / answers[:, unit].std(correction=0)
        assert found[f"conv2:{unit}"] == pytest.approx(float(score), rel=1e-3, abs=1e-4)


def test_images_are_compared_with_a_reference(held):
    net, _, survey = held
    bright = make(net, from_arrays(torch.rand(20, 1, 10, 10) * 0.2 + 0.8), LAYERS, triage=False)
    answers = bright.part.layers["conv1"].answers
    reference = survey.part.layers["conv1"].answers
    scores = (answers.mean - reference.mean) / reference.variance.sqrt()
    best = bright.beyond(survey, n=50)
    assert dict(best)["conv1:0"] == pytest.approx(float(scores[0]))
    assert [score for _, score in best] == sorted((s for _, s in best), reverse=True)


def test_records_let_any_network_judge_its_pictures(held):
    net, data, survey = held
    plain = network()
    judged = Network(plain.module, (1, 10, 10), mean=[0.5], std=[0.3], records=survey.records())
    for layer in ("conv1", "relu1", "conv2", "fc1", "output"):
        best = strongest(net, data, layer).amax(0)
        for unit in range(len(best)):
            known = judged.best_in_data(Unit(layer, unit))
            assert known == pytest.approx(float(best[unit]), rel=1e-5)


def test_the_table_has_a_row_for_each_unit(held):
    _, _, survey = held
    rows = survey.table().to_pylist()
    assert len(rows) == sum(layer.units for layer in survey.layers.values())
    row = next(r for r in rows if (r["layer"], r["unit"]) == ("fc1", 3))
    unit = survey["fc1:3"]
    assert row["mean"] == unit.mean
    assert row["variance"] == unit.variance
    assert row["active_share"] == unit.active
    assert row["q0.5"] == unit.quantiles[0.5]
    assert (row["state"], row["prefers"]) == (unit.state, unit.prefers)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("conv9:1", "was not surveyed; there is"),
        ("conv2", "knows units"),
        ("conv2:6", "has units 0 to 5"),
        ("fc1:cat", "give its number"),
    ],
)
def test_units_that_are_not_there_are_refused(held, address, said):
    with pytest.raises(RequestError, match=said):
        held[2][address]


def test_a_label_of_the_output_is_a_unit(held):
    assert held[2]["output:b"].unit == "output:1"


def test_fewer_statistics_cost_less_and_say_so():
    survey = make(network(), images(9), ["fc1"], statistics="none")
    unit = survey["fc1:0"]
    assert (unit.mean, unit.active, unit.quantiles, unit.selectivity) == (None, None, {}, None)
    assert unit.state in ("alive", "data-dead", "reachable", "certified-dead")
    with pytest.raises(RequestError, match="statistics='all'"):
        survey.correlation("fc1")
    assert list(survey.records()) == ["fc1.maximum"]


def test_unlabelled_images_have_no_preference():
    survey = make(network(), from_arrays(torch.rand(9, 1, 10, 10)), ["fc1"])
    assert survey["fc1:0"].prefers is None
    assert survey["fc1:0"].selectivity is None
    assert survey.class_means("fc1").shape == (0, 5)
