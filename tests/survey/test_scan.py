"""One pass finds what saving every activation and sorting finds."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import optogram as og
from optogram.core import Network, onward, prepared
from optogram.pictures import RequestError
from optogram.survey import from_arrays, from_folder, make, reduce, scan
from tests.survey.small import LAYERS, images, network


def everything(net, data, layer):
    """The pre-activations of all images, (image, unit, place), in the plain way."""
    with torch.no_grad():
        maps = net.read(data.take(torch.arange(len(data)))[0], layer, watch=True).before.layers[
            layer
        ]
    return maps.reshape(len(maps), maps.shape[1], -1)


def ranked(maps, unit, k, places):
    found = []
    for image, row in enumerate(maps[:, unit].tolist()):
        at = [row.index(max(row))] if places == "strongest" else range(len(row))
        found += [(-row[place], image, place) for place in at]
    return sorted(found)[:k]


@settings(max_examples=6)
@given(
    st.integers(0, 5),
    st.sampled_from([1, 7, 16]),
    st.sampled_from([1, 3, 9]),
    st.sampled_from(["strongest", "all"]),
    st.sampled_from([None, 2]),
)
def test_a_survey_equals_brute_force(seed, batch, k, places, levels):
    net, data = network(seed), images(23, seed, levels)
    survey = make(net, data, LAYERS, k=k, places=places, batch=batch, triage=False)
    for name in LAYERS:
        maps = everything(net, data, name)
        for unit in range(maps.shape[1]):
            held, expected = survey[f"{name}:{unit}"], ranked(maps, unit, k, places)
            width = net.layer(name).places[1] if net.layer(name).places else 1
            values = torch.tensor([-value for value, _, _ in expected])
            torch.testing.assert_close(held.values, values, rtol=1e-5, atol=1e-5)
            if (
                levels is None
            ):  # equal up to rounding, places among near ties may differ with the batch
                assert held.places.tolist() == [[i, *divmod(p, width)] for _, i, p in expected]
            flat = maps[:, unit].double().numpy()
            assert held.mean == pytest.approx(flat.mean(), rel=1e-5, abs=1e-6)
            assert held.variance == pytest.approx(flat.var(), rel=1e-5)
            assert held.active == pytest.approx((flat > 0).mean(), abs=1e-3)
            assert held.minimum == pytest.approx(flat.min(), rel=1e-5)
            assert held.maximum == pytest.approx(flat.max(), rel=1e-5)


def test_equal_images_are_listed_in_the_order_of_their_numbers():
    net = network()
    data = from_arrays(torch.rand(1, 1, 10, 10).repeat(20, 1, 1, 1))
    for batch in (1, 7, 20):
        held = make(net, data, ["conv2"], k=5, batch=batch, triage=False)["conv2:3"]
        assert held.places[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_batch_of_1_and_of_7_and_any_shard_find_the_same_lists():
    net, data = network(), images(40)
    first = make(net, data, LAYERS, batch=1, shard=40, triage=False)
    for batch, shard in ((7, 7), (16, 32)):
        other = make(net, data, LAYERS, batch=batch, shard=shard, triage=False)
        for name in LAYERS:
            one, two = first.part.layers[name], other.part.layers[name]
            assert torch.equal(one.top.images, two.top.images)
            assert torch.equal(one.top.places, two.top.places)
            torch.testing.assert_close(one.top.values, two.top.values, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(one.moments.spread, two.moments.spread, rtol=1e-5, atol=1e-6)
            assert torch.equal(one.answers.class_count, two.answers.class_count)


def test_maps_of_large_images_with_channels_last_are_read_right():
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.ReLU()), (3, 128, 132))
    data = from_arrays(torch.rand(5, 3, 128, 132))
    survey = make(net, data, ["0"], k=2)
    maps = everything(net, data, "0")
    for unit in range(4):
        expected = ranked(maps, unit, 2, "strongest")
        where = [[i, *divmod(p, net.layer("0").places[1])] for _, i, p in expected]
        assert survey[f"0:{unit}"].places.tolist() == where


class Normed(nn.Module):
    """Batch norms behind convolutions, a ReLU in place, one that copies and a response norm."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 20, 3, padding=1), nn.BatchNorm2d(20)
        self.conv2, self.norm2 = nn.Conv2d(20, 9, 3, stride=2), nn.BatchNorm2d(9)
        self.across, self.conv3 = nn.LocalResponseNorm(3, 0.1), nn.Conv2d(9, 5, 3)
        for norm in (self.norm1, self.norm2):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.1, 0.5)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)
        x = self.across(F.relu(self.norm2(self.conv2(x))))
        return self.conv3(x).mean((2, 3))


@pytest.mark.parametrize("places", ["strongest", "all"])
@pytest.mark.parametrize("statistics", ["none", "moments"])
@pytest.mark.parametrize("asked", [["conv1", "conv2", "conv3"], ["conv3"]])
def test_batch_norms_that_are_done_as_their_input_is_read_change_nothing(
    places, statistics, asked, monkeypatch
):
    """All answers are treated as too large for the cache, on the copy made ready and without it."""
    torch.manual_seed(0)
    net, data = Network(Normed(), (3, 97, 98)), from_arrays(torch.rand(6, 3, 97, 98))
    monkeypatch.setattr(scan, "LARGE", 1)
    monkeypatch.setattr(onward, "LARGE", 1)
    monkeypatch.setattr(prepared, "MANY", 1)
    monkeypatch.setattr(reduce, "CHUNK", 3_000)  # one row of conv1, several of the others
    options = {"k": 3, "places": places, "statistics": statistics, "batch": 4, "triage": False}
    survey = make(net, data, asked, **options)
    for name in asked:
        maps, width = everything(net, data, name), net.layer(name).places[1]
        for unit in range(maps.shape[1]):
            held, expected = survey[f"{name}:{unit}"], ranked(maps, unit, 3, places)
            assert held.places.tolist() == [[i, *divmod(p, width)] for _, i, p in expected]
            values = torch.tensor([-value for value, _, _ in expected])
            torch.testing.assert_close(held.values, values, rtol=1e-5, atol=1e-5)
            if statistics == "moments":
                flat = maps[:, unit].double()
                assert held.mean == pytest.approx(float(flat.mean()), rel=1e-4, abs=1e-5)
                assert held.variance == pytest.approx(float(flat.var(correction=0)), rel=1e-4)


def test_layers_of_tokens_are_surveyed():
    torch.manual_seed(0)

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(1, 6, 5, stride=5)
            self.mix = nn.Linear(6, 4)

        def forward(self, x):
            return self.mix(self.embed(x).flatten(2).mT).mean(1)

    net, data = Network(Tokens(), (1, 10, 10)), images(12)
    held = make(net, data, ["mix"], k=3)["mix:2"]
    with torch.no_grad():
        said = net.read(data.take(torch.arange(12))[0], "mix").layers["mix"][..., 2]
    best = said.amax(1).topk(3)
    assert held.places[:, 0].tolist() == best.indices.tolist()
    assert held.places[:, 1].tolist() == said.argmax(1)[best.indices].tolist()
    assert held.boxes.tolist() == [[0, 0, 10, 10]] * 3


def test_an_image_that_makes_a_layer_answer_nan_is_named(tmp_path):
    net = network()
    shown = torch.rand(9, 1, 10, 10)
    data = from_arrays(shown)
    broken = data.read

    def read(numbers):
        found = broken(numbers).clone()
        for row, number in enumerate(numbers):
            if number == 5:
                found[row, 0, 3, 3] = torch.nan
        return found

    object.__setattr__(data, "read", read)
    with pytest.raises(RequestError, match="image 5 of arrays makes 'conv1' answer NaN"):
        make(net, data, LAYERS, batch=4)


def test_unreadable_images_are_skipped_counted_and_named(tmp_path):
    from PIL import Image

    for number in range(6):
        pixels = np.full((10, 10), 20 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    survey = make(network(), from_folder(tmp_path), ["conv1"], k=9)
    assert survey.part.images == 5
    assert list(survey.part.skipped) == ["3.png"]
    assert survey["conv1:0"].k == 5


@pytest.mark.parametrize(
    "give",
    [
        lambda shown, folder: shown,
        lambda shown, folder: shown.numpy(),
        lambda shown, folder: list(shown.unbind()),
        lambda shown, folder: iter(shown.unbind()),
        lambda shown, folder: torch.utils.data.TensorDataset(shown, torch.zeros(len(shown)).long()),
    ],
)
def test_tensors_arrays_iterables_and_torch_data_sets_are_data_sets(give, tmp_path):
    shown = images(11).take(torch.arange(11))[0]
    expected = make(network(), from_arrays(shown), ["fc1"], triage=False)
    found = make(network(), give(shown, tmp_path), ["fc1"], triage=False)
    assert torch.equal(found.part.layers["fc1"].top.images, expected.part.layers["fc1"].top.images)


def test_what_is_no_data_set_is_refused():
    with pytest.raises(RequestError, match="a int is no data set"):
        make(network(), 3, ["fc1"])


def test_the_room_is_the_function_its_name_says():
    net, data = network(), images(8)
    assert og.survey is __import__("optogram.survey", fromlist=["survey"])
    one, two = og.survey(net, data, ["fc1"]), og.survey.make(net, data, ["fc1"])
    assert torch.equal(one["fc1:0"].values, two["fc1:0"].values)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = og.survey.nothing


def test_layers_are_chosen_by_name_by_pattern_or_all_with_weights():
    net, data = network(), images(4)
    names = lambda layers: list(make(net, data, layers, triage=False).layers)  # noqa: E731
    assert names(None) == ["conv1", "conv2", "fc1", "fc2"]
    assert names("conv*") == ["conv1", "conv2"]
    assert names(["fc?", "relu1"]) == ["relu1", "fc1", "fc2"]
    with pytest.raises(RequestError, match="no layer called 'conv9'"):
        names(["conv9"])


@pytest.mark.parametrize("wrong", [{"k": 0}, {"batch": -1}, {"shard": 0}])
def test_counts_below_1_are_refused(wrong):
    with pytest.raises(RequestError, match="at least 1"):
        make(network(), images(4), ["fc1"], **wrong)


def test_a_survey_draws_no_random_numbers_and_leaves_no_hook():
    net, data = network(), images(9)
    before = torch.get_rng_state()
    make(net, data, LAYERS)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(part._forward_hooks for part in net.module.modules())
