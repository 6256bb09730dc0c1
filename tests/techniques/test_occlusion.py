"""What occlusion maps say, against known answers and an independent implementation."""

import pytest
import torch
from torch import nn

import optogram as og
from optogram.core.chance import generator
from optogram.techniques.occlusion import instead, strongest_map


def drawn(*shape):
    return torch.rand(shape, generator=generator("test", *shape))


class Area(nn.Module):
    """The sum of the pixels inside rows 3 to 7 and columns 5 to 11."""

    def forward(self, x):
        return x[:, :, 3:8, 5:12].sum((1, 2, 3))[:, None]


class Brightest(nn.Module):
    """Which half has the more light."""

    def forward(self, x):
        return torch.stack([x[..., :9].mean((1, 2, 3)), x[..., 9:].mean((1, 2, 3))], 1)


def classifier(height=17, width=19, seed=0):
    torch.manual_seed(seed)
    places = -(-height // 2) * -(-width // 2)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(5, 7, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(7 * places, 4),
    )  # fmt: skip


@pytest.fixture
def net():
    return og.Network(classifier(), (1, 17, 19), mean=[0.3], std=[0.4], labels=list("abcd"))


@pytest.fixture
def image():
    return drawn(1, 17, 19)


def test_a_sum_over_an_area_drops_by_exactly_what_the_occluder_hides_of_it():
    image = (drawn(1, 15, 17) * 64).round() / 64  # so that the sums are exact
    result = og.occlusion(
        og.Network(Area(), (1, 15, 17)), image, "output:0", patch=4, stride=3, value=0.25
    )
    assert result.boxes.shape == (*result.values.shape, 4)
    for value, box in zip(
        result.values.flatten(), result.boxes.reshape(-1, 4).tolist(), strict=True
    ):
        top, left, bottom, right = box
        hidden = image[:, max(top, 3) : min(bottom, 8), max(left, 5) : min(right, 12)]
        assert float(value) == float((hidden - 0.25).sum())


@pytest.mark.parametrize("patch", [(17, 19), 99])
def test_an_occluder_as_large_as_the_image_gives_the_constant_images_score(net, image, patch):
    result = og.occlusion(net, image, "output:b", patch=patch, value=0.7, show="value")
    constant = net(torch.full((1, 1, 17, 19), 0.7))[0, 1]
    assert result.values.shape == (1, 1)
    assert float(result.values) == pytest.approx(float(constant), abs=1e-6)


@pytest.mark.parametrize("engine", ["incremental", "naive"])
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_every_place_is_what_the_network_says_of_that_copy(net, image, engine, score):
    result = og.occlusion(
        net, image, "output:c", patch=(5, 3), stride=(2, 4), score=score, engine=engine
    )
    answer = (lambda x: net(x)) if score == "logit" else (lambda x: net(x).softmax(1))
    clean = answer(image[None])[0, 2]
    assert result.score == pytest.approx(float(clean), abs=1e-6)
    for value, box in zip(
        result.values.flatten(), result.boxes.reshape(-1, 4).tolist(), strict=True
    ):
        top, left, bottom, right = box
        copy = image.clone()
        copy[:, top:bottom, left:right] = 0.5
        assert float(value) == pytest.approx(float(clean - answer(copy[None])[0, 2]), abs=1e-5)


def test_the_grid_covers_the_image_to_its_edges(net, image):
    boxes = og.occlusion(net, image, "output:0", patch=(5, 4), stride=(5, 6)).boxes
    assert boxes[:, 0, 0].tolist() == [0, 5, 10, 12]
    assert boxes[0, :, 1].tolist() == [0, 6, 12, 15]
    assert boxes[-1, -1].tolist() == [12, 15, 17, 19]


def test_captum_sees_the_same_where_both_spread_over_the_pixels():
    captum = pytest.importorskip("captum.attr")

    whole = drawn(1, 16, 19)
    mine = og.occlusion(net_for(16, 19), whole, "output:3", patch=4, stride=3, value=0.0)
    theirs = captum.Occlusion(net_for(16, 19)).attribute(
        whole[None], (1, 4, 4), strides=(1, 3, 3), baselines=0.0, target=3, perturbations_per_eval=5
    )
    assert torch.allclose(mine.spread(), theirs[0, 0], atol=1e-5)


def net_for(height, width):
    return og.Network(classifier(height, width), (1, height, width), mean=[0.3], std=[0.4])


def test_red_is_where_the_unit_needs_what_is_hidden(net, image):
    drop = og.occlusion(net, image, "output:a", patch=5, stride=5)
    value = og.occlusion(net, image, "output:a", patch=5, stride=5, show="value")
    assert drop.signed
    assert not value.signed
    assert torch.allclose(drop.values, drop.score - value.values, atol=1e-6)


def test_many_units_and_sizes_come_as_a_sheet_units_first(net, image):
    sheet = og.occlusion(net, image, ["output:a", "3:2"], patch=[4, (6, 3)], stride=4)
    assert [a.target for a in sheet] == ["output:0", "output:0", "3:2", "3:2"]
    alone = og.occlusion(net, image, "3:2", patch=(6, 3), stride=4)
    assert torch.allclose(sheet[3].values, alone.values, atol=1e-6)
    assert sheet[2].unit_of_values == "activation"


def test_the_activity_of_the_strongest_map_is_its_sum(net, image):
    unit = strongest_map(net, image, "4")
    heard = net.read(image[None], "4").layers["4"][0].sum((1, 2))
    assert unit.index == int(heard.argmax())
    result = og.occlusion(net, image, unit, patch=6, stride=6, score="activity", show="value")
    copy = image.clone()
    copy[:, :6, :6] = 0.5
    expected = net.read(copy[None], "4").layers["4"][0, unit.index].sum()
    assert float(result.values[0, 0]) == pytest.approx(float(expected), rel=1e-5)
    assert result.score == pytest.approx(float(heard.max()), rel=1e-5)


def test_the_most_probable_class_is_named_at_each_place(image):
    net = og.Network(classifier(seed=3), (1, 17, 19), labels=list("abcd"))
    result = og.occlusion(net, image, "output:0", patch=9, stride=2, score="class", value=1.0)
    copy = image.clone()
    copy[:, :9, :9] = 1.0
    assert int(result.values[0, 0]) == int(net(copy[None]).argmax())
    assert result.checks["classes"] == {str(int(n)): "abcd"[int(n)] for n in result.values.unique()}


def test_classes_are_drawn_where_they_are_nearest_and_never_averaged(image):
    net = og.Network(Brightest(), (1, 17, 19), labels=["left", "right"])
    result = og.occlusion(net, image, "output:0", patch=6, stride=2, score="class")
    spread = result.spread()
    assert set(result.values.unique().tolist()) == {0.0, 1.0}
    assert set(spread.unique().tolist()) == {0.0, 1.0}
    size = (result.boxes[..., 2:] - result.boxes[..., :2]).prod(-1)
    assert int(size.min()) > 0
    assert int(size.sum()) == 17 * 19
    for row, column in [(0, 0), (3, 2), (-1, -1)]:
        top, left, bottom, right = result.boxes[row, column].tolist()
        assert bool((spread[top:bottom, left:right] == result.values[row, column]).all())


def test_all_panels_of_figure_7_come_from_one_call(net, image, caplog):
    classes, asked = ["output:b", "output:d"], {"patch": 6, "stride": 5, "value": "black"}
    with caplog.at_level("INFO", "optogram"):
        sheet = og.occlusion_panels(net, image, classes, layer="4", **asked)
    assert caplog.text.count("occluders in") == 1
    strongest = strongest_map(net, image, "4")
    for row, unit in enumerate(classes):
        activity, below, chance, likeliest = sheet[4 * row : 4 * row + 4]
        expected = og.occlusion(net, image, strongest, score="activity", **asked)
        assert torch.allclose(activity.values, expected.values, atol=1e-5)
        assert activity.target == str(strongest)
        assert activity.unit_of_values == "activity"
        projected = og.deconvnet(net, image, f"{strongest}@strongest", signed=True)
        assert torch.equal(below.values, projected.values)
        expected = og.occlusion(net, image, unit, score="probability", **asked)
        assert torch.allclose(chance.values, expected.values, atol=1e-6)
        assert chance.target == str(net.resolve(unit))
        expected = og.occlusion(net, image, unit, score="class", **asked)
        names = [[likeliest.checks["classes"][int(n)] for n in row] for row in likeliest.values]
        assert names == [[net.label(int(n)) for n in row] for row in expected.values]
        counts = likeliest.values.flatten().long().bincount()
        assert counts.tolist() == sorted(counts.tolist(), reverse=True)
        share = likeliest.checks[likeliest.checks["classes"][0]]
        assert share == f"{100 * int(counts[0]) / counts.sum():.0f}%"
        assert [one.checks["panel"][:3] for one in (activity, below, chance, likeliest)] == [
            "(b)", "(c)", "(d)", "(e)",
        ]  # fmt: skip
    seen = og.occlusion_panels(net, image, "output:b", layer="4", show="value", **asked)
    assert torch.allclose(seen[2].values, seen[2].score - sheet[2].values, atol=1e-6)
    assert torch.allclose(seen[0].values, seen[0].score - sheet[0].values, atol=1e-4)


def test_the_panels_follow_the_last_layer_with_places_and_want_a_class(net, image):
    sheet = og.occlusion_panels(net, image, "output:a", patch=9, stride=9)
    assert sheet[0].target.startswith("4:")
    with pytest.raises(og.RequestError, match="asks about classes"):
        og.occlusion_panels(net, image, "3:2")


def test_masks_are_hidden_and_spread_over_the_pixels_they_hide(net, image):
    masks = torch.zeros(3, 17, 19, dtype=torch.bool)
    masks[0, 2:5, 3:9] = masks[1, 3:11, 8] = masks[2, 16, 18] = True
    result = og.occlusion(net, image, "output:a", masks=masks, value="black")
    assert result.values.shape == (1, 3)
    assert result.boxes[0].tolist() == [[2, 3, 5, 9], [3, 8, 11, 9], [16, 18, 17, 19]]
    for value, mask in zip(result.values[0], masks, strict=True):
        copy = torch.where(mask, 0.0, image)
        expected = net(image[None])[0, 0] - net(copy[None])[0, 0]
        assert float(value) == pytest.approx(float(expected), abs=1e-5)
    both, none = masks[:2].all(0), ~masks.any(0)
    assert torch.allclose(result.raw[0][both], result.values[0, :2].mean())
    assert not result.raw[0][none].any()


def test_what_is_shown_instead(net, image):
    def content(value):
        return instead(net, image, value, 8)

    assert content("grey").unique().tolist() == [0.5]
    assert content("black").unique().tolist() == [0.0]
    assert float(net.normalized(content("mean")[None]).abs().max()) < 1e-6
    other = drawn(1, 17, 19) / 2
    assert torch.equal(content(other), other)
    three = og.Network(nn.Conv2d(3, 1, 1), (3, 8, 8))
    colour = instead(three, drawn(3, 8, 8), [0.1, 0.2, 0.3], 4)
    assert torch.allclose(colour[:, 5, 6], torch.tensor([0.1, 0.2, 0.3]))
    skimage = pytest.importorskip("skimage.filters")
    blurred = skimage.gaussian(image[0].numpy(), 2.0, mode="nearest", truncate=3.0)
    assert torch.allclose(content("blur")[0], torch.from_numpy(blurred).float(), atol=1e-5)


def test_adaptive_asks_few_places_finds_the_strongest_and_says_that_it_is_approximate():
    image = torch.zeros(1, 40, 40)
    image[:, 20:26, 10:16] = 1.0
    shown = []

    class Counts(nn.Module):
        def forward(self, x):
            shown.append(len(x))
            return (x[:, :, 20:26, 10:16].sum((1, 2, 3)) / 36)[:, None]

    net = og.Network(Counts(), (1, 40, 40))
    exact = og.occlusion(net, image, "output:0", patch=6, stride=1, value=0.0, engine="naive")
    every = sum(shown)
    shown.clear()
    some = og.occlusion(
        net, image, "output:0", patch=6, stride=1, value=0.0, engine="naive", adaptive=0.25
    )
    assert sum(shown) < 0.3 * every
    assert "approximate" in some.checks
    assert exact.checks is None
    assert some.values.argmax() == exact.values.argmax()
    assert float(some.values.max()) == float(exact.values.max())
    assert float((some.values - exact.values).abs().max()) < 0.5


def test_the_same_call_gives_the_same_numbers_and_draws_nothing(net, image):
    # Python's own generator is left out: beartype draws from it which item of a list to check.
    before = torch.get_rng_state()
    once = og.occlusion(net, image, "output:a", patch=4, stride=2)
    assert torch.equal(torch.get_rng_state(), before)
    again = og.occlusion(net, image, "output:a", patch=4, stride=2)
    assert once.recipe["result"] == again.recipe["result"]
    assert once.recipe["technique"] == "occlusion"


def test_the_default_occluder_is_a_seventh_of_the_image_moved_by_a_quarter_of_itself():
    net = og.Network(nn.Conv2d(1, 1, 1), (1, 56, 56))
    boxes = og.occlusion(net, drawn(1, 56, 56), "output:0").boxes
    assert boxes[0, 0].tolist() == [0, 0, 8, 8]
    assert boxes[1, 1].tolist() == [2, 2, 10, 10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "patch=0"),
        ({"stride": (2, 0)}, r"stride=\(2, 0\)"),
        ({"patch": []}, r"patch=\[\]"),
        ({"value": "pink"}, "'pink'"),
        ({"value": 2.0}, r"\[0, 1\]"),
        ({"value": [0.1, 0.2]}, "value of shape"),
        ({"adaptive": 1.5}, "adaptive=1.5"),
        ({"memory": 0.0}, "memory=0"),
        ({"masks": torch.zeros(1, 17, 19, dtype=torch.bool)}, "hides nothing"),
    ],
)
def test_a_wrong_request_is_refused_in_one_sentence(net, image, options, message):
    with pytest.raises(og.RequestError, match=message):
        og.occlusion(net, image, "output:a", **options)


def test_an_image_of_other_channels_is_refused(net):
    with pytest.raises(og.RequestError, match="takes one image"):
        og.occlusion(net, drawn(3, 17, 19), "output:a")
