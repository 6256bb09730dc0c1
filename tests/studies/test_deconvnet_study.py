"""The deconvnet study: its yardsticks on cases that are known, and the whole of it, quickly."""

import json
from functools import partial

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from optogram import Network, RequestError, load
from optogram.cli.studies import study as command
from optogram.studies import deconvnet_study
from optogram.studies.deconvnet.architecture import aliased_share
from optogram.studies.deconvnet.bench import convolutions
from optogram.studies.deconvnet.features import _first_settled
from optogram.studies.deconvnet.hiding import _under
from optogram.studies.deconvnet.invariance import _straightness, changed
from optogram.studies.deconvnet.layers import _upper, _without
from optogram.studies.deconvnet.pooling import _participation
from optogram.studies.deconvnet.study import PARTS
from optogram.studies.deconvnet.views import crops, faces, thinned
from optogram.studies.shelf import Shelf


@pytest.fixture(scope="module")
def network():
    return load("tiny-zfnet")


def test_a_thinned_set_is_evenly_spread_and_another_set():
    whole = crops((3, 64, 64), "both")
    few = thinned(whole, 5)
    places = torch.linspace(0, len(whole) - 1, 5).round().long()
    assert torch.equal(few.take(torch.arange(5))[0], whole.take(places)[0])
    assert torch.equal(few.labels, whole.labels[places])
    assert [few.caption(n) for n in range(5)] == [whole.caption(int(n)) for n in places]
    assert len({whole.digest, few.digest, thinned(whole, 6).digest}) == 3
    assert thinned(whole, len(whole)) is whole


def test_a_point_is_aliased_by_the_share_of_frequencies_above_nyquist():
    """One pixel has a flat spectrum: of 64 x 64 frequencies those with both below 1/4 stay."""
    point = torch.zeros(1, 1, 3, 3)
    point[0, 0, 1, 1] = 1
    assert aliased_share(point, 1).item() == pytest.approx(0)
    assert aliased_share(point, 2).item() == pytest.approx(1 - (33 / 64) ** 2)
    assert aliased_share(point, 4).item() == pytest.approx(1 - (17 / 64) ** 2)


def test_a_smooth_filter_is_aliased_less_than_a_rough_one():
    ramp = torch.hann_window(11, periodic=False)
    smooth = (ramp[:, None] * ramp[None])[None, None]
    rough = smooth * (-1.0) ** (torch.arange(11)[:, None] + torch.arange(11)[None])
    assert aliased_share(smooth, 4) < 0.1
    assert aliased_share(rough, 2) > 0.9


def test_an_image_is_moved_enlarged_and_turned():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    down = changed(image, "translation", 4 / 64)
    torch.testing.assert_close(down[..., 4:, :], image[..., :-4, :], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(changed(image, "scale", 1.0), image, atol=1e-4, rtol=1e-4)
    turned = changed(image, "rotation", 180.0)
    torch.testing.assert_close(turned, image.flip(-1, -2), atol=1e-3, rtol=1e-3)
    large = changed(image, "scale", 2.0)
    small = torch.nn.functional.avg_pool2d(large, 2)[..., 0, 0]
    assert (small - image[..., 16, 16]).abs().max() < 0.5


def test_a_layer_settles_where_it_stays_at_half():
    assert _first_settled([0.6, 0.4, 0.5, 0.9], [1, 2, 4, 8]) == 4
    assert _first_settled([0.5, 0.5], [1, 2]) == 1
    assert _first_settled([0.1, 0.2], [1, 2]) is None


def test_a_straight_line_is_straight():
    line = {"amounts": [0.0, 0.1, 0.2, 0.3], "fc7": [[0.0], [0.2], [0.4], [0.6]]}
    assert _straightness(line, "fc7") == pytest.approx(1)
    line["fc7"] = [[0.0], [0.9], [0.9], [0.9]]
    assert _straightness(line, "fc7") < 0.5


def test_energy_under_a_box_is_its_sum():
    energy = torch.rand(8, 9, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[0, 0, 8, 9], [2, 3, 5, 7]]])
    found = _under(energy, boxes)[0]
    assert found.tolist() == pytest.approx([float(energy.sum()), float(energy[2:5, 3:7].sum())])


def test_the_pixels_that_share_the_light_are_counted():
    flat, point = torch.ones(3, 4, 5), torch.zeros(3, 4, 5)
    point[:, 1, 2] = 1
    assert _participation(flat) == pytest.approx(20)
    assert _participation(point) == pytest.approx(1)


def test_windows_left_and_right_share_no_pixel_and_name_their_photograph():
    left, right = crops((3, 64, 64), "left"), crops((3, 64, 64), "right")
    assert left.classes == right.classes
    assert set(left.labels.tolist()) == set(right.labels.tolist()) == set(range(10))
    a, b = left.take(torch.arange(len(left)))[0], right.take(torch.arange(len(right)))[0]
    assert a.shape[1:] == (3, 64, 64)
    assert torch.cdist(a.flatten(1), b.flatten(1)).min() > 0


def test_five_convolutions_are_taken_that_look_beyond_a_pixel(network):
    assert convolutions(network) == ("conv1", "conv2", "conv3", "conv4", "conv5")
    squeeze = load("torchvision:squeezenet1_0", weights="random")
    chosen = convolutions(squeeze)
    modules = dict(squeeze.module.named_modules())
    assert len(set(chosen)) == 5
    assert all(max(modules[name].kernel_size) > 1 for name in chosen)
    assert chosen[0] == "features.0"


def test_filters_that_are_off_answer_nothing_and_come_back(network):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    conv = network.module.conv3
    before = network(images)
    handle = conv.register_forward_hook(partial(_without, torch.arange(conv.out_channels)))
    silent = network(images)
    handle.remove()
    torch.testing.assert_close(silent[0], silent[1])  # nothing of the image is left
    assert torch.equal(network(images), before)


def test_removed_layers_are_gone_and_what_is_above_fits(network):
    shape = network.layer("norm2").shape
    whole = _upper(network, (), 7, 0, shape)
    less = _upper(network, ("conv3", "conv4", "fc6", "fc7"), 7, 0, shape)
    names = [name for name, _ in less.named_children()]
    assert not {"conv3", "relu3", "conv4", "fc6", "drop6", "relu6", "fc7", "relu7"} & set(names)
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    assert whole.train()(x).shape == less.train()(x).shape == (2, 7)
    assert not (set(less.modules()) | set(whole.modules())) & set(network.module.modules())
    assert sum(p.numel() for p in less.parameters()) < sum(p.numel() for p in whole.parameters())


def test_the_parts_of_faces_lie_in_the_images(network):
    found = faces(network, crops((3, 64, 64), "right"))
    assert len(found.images) > 1
    for boxes in found.parts.values():
        assert boxes.shape == (len(found.images), 4)
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert 0 <= boxes.min() <= boxes.max() <= 64


@pytest.mark.slow
def test_the_whole_study_runs_from_the_package_alone_and_goes_on_where_it_was(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("OPTOGRAM_DATA", raising=False)
    page = deconvnet_study(tmp_path / "study", quick=True)
    text = page.read_text()
    assert all(f"{number}. " in text for number in range(1, 10))
    assert "http" not in "".join(part for part in text.split('src="')[1:] if part[:5] != "data:")
    found = json.loads((tmp_path / "study" / "numbers.json").read_text())
    assert set(found["numbers"]) == set(PARTS)
    assert not any("skipped" in numbers for numbers in found["numbers"].values())
    shown = {claim["shown_by"] for claim in found["claims"]} - {""}
    there = {path.stem for path in (tmp_path / "study" / "figures").iterdir()}
    assert shown <= there
    assert set(found["numbers"]["evolution"]["settled"]) == set(convolutions(load("tiny-zfnet")))
    part = tmp_path / "study" / "parts" / "probes.json"
    before = part.stat().st_mtime_ns
    deconvnet_study(tmp_path / "study", quick=True)
    assert part.stat().st_mtime_ns == before
    assert json.loads((tmp_path / "study" / "numbers.json").read_text()) == found


@pytest.mark.slow
def test_a_network_of_ones_own_with_checkpoints_in_a_folder(tmp_path, monkeypatch):
    """Another layout: no contrast normalisation, two convolutions, three kinds."""
    monkeypatch.delenv("OPTOGRAM_DATA", raising=False)
    (tmp_path / "own.py").write_text(OWN)
    own = load(f"{tmp_path}/own.py:build", weights="random")
    kept = tmp_path / "kept"
    kept.mkdir()
    for epoch in (1, 3):
        state = {k: v + 0.1 / epoch for k, v in own.module.state_dict().items()}
        save_file(state, kept / f"own-epoch{epoch}.safetensors")
    deconvnet_study(
        tmp_path / "s", network=f"{tmp_path}/own.py:build", checkpoints=kept, quick=True
    )
    numbers = json.loads((tmp_path / "s" / "numbers.json").read_text())["numbers"]
    assert numbers["evolution"]["epochs"] == [1, 3]
    assert {name: row["removed"] for name, row in numbers["ablation"]["thinned"].items()} == {
        "0": 2,
        "3": 3,
    }
    assert list(numbers["features"]["layers"]) == ["0", "3"]


OWN = """
import torch
from torch import nn

def build():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3),
    )
    module.shape = (3, 64, 64)
    return module
"""


def test_checkpoints_of_another_network_and_other_names_are_refused(tmp_path):
    save_file({"fc8.bias": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(RequestError, match="names no epoch"):
        deconvnet_study(tmp_path / "s", checkpoints=tmp_path / "a.safetensors", quick=True)
    with pytest.raises(RequestError, match="no checkpoints at"):
        deconvnet_study(tmp_path / "s", checkpoints=tmp_path / "none", quick=True)
    save_file({"4/fc8.bias": torch.zeros(3)}, tmp_path / "b.safetensors")
    with pytest.raises(RequestError, match="epoch 4 is of another network"):
        deconvnet_study(tmp_path / "s", checkpoints=tmp_path / "b.safetensors", quick=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="with an epoch's number"):
        deconvnet_study(tmp_path / "s", checkpoints=tmp_path / "empty", quick=True)


def test_the_command_lists_its_options():
    said = CliRunner().invoke(command, ["deconvnet", "--help"]).output
    assert all(option in said for option in ("--network", "--weights", "--checkpoints", "--quick"))


def test_a_network_without_a_second_linear_layer_is_asked_at_its_last_convolution(tmp_path):
    from optogram.studies.deconvnet.bench import Bench

    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    asked = Network(module, (3, 8, 8))
    images = crops((3, 64, 64), "both")
    found = faces(load("tiny-zfnet"), images)
    bench = Bench(asked, None, images, images, images, {}, {}, found, Shelf(tmp_path, {}))
    assert bench.high == "0"
    assert bench.hidden == ("0",)
