"""The image that a unit responds to most: known answers, verdicts, and no regard for company."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from optogram.ascent import ascend, param, transform
from optogram.core import Direction, Network, Streams, Unit, backpropagate
from optogram.core import objective as ask
from optogram.core.progress import listening
from optogram.pictures import Picture, Sheet
from optogram.pictures.errors import RequestError
from optogram.techniques import maximize
from optogram.zoo.tiny import BRIGHT, tiny, variants
from tests.core.nets import images, named, seeded


def mlp(
    *sizes: int, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32, **more
) -> Network:
    parts: dict[str, nn.Module] = {"flat": nn.Flatten()}
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        parts[f"fc{number}"] = nn.Linear(inputs, outputs)
        if number < len(sizes) - 1:
            parts[f"relu{number}"] = nn.ReLU()
    return Network(named(**parts).to(dtype), shape, **more)


def cnn(dtype: torch.dtype, shape: tuple[int, int, int] = (1, 7, 5)) -> Network:
    """Maps of odd sizes, so that an image's place in memory is another in another batch."""
    module = named(
        conv=nn.Conv2d(shape[0], 9, 3, padding=1),
        norm=nn.BatchNorm2d(9),
        relu=nn.ReLU(inplace=True),
        pool=nn.AvgPool2d(2),
        late=nn.Conv2d(9, 300, 3, padding=1),
        out=nn.Flatten(),
    )
    return Network(module.to(dtype), shape)


def company(kind: str, dtype: torch.dtype) -> tuple[Network, str]:
    """A network with a layer of 300 units, and the layer's name."""
    if kind == "cnn":
        return cnn(dtype), "late"
    return mlp(35, 61, 300, 5, shape=(1, 7, 5), dtype=dtype), "fc2"


def same_bits(one: Picture, other: Picture) -> None:
    assert one.unit == other.unit
    assert torch.equal(numbers(one), numbers(other))
    assert torch.equal(one.history, other.history)
    assert one.score == other.score
    assert one.gradient_norm == other.gradient_norm
    assert one.rival_score == other.rival_score


def numbers(picture: Picture) -> Tensor:
    return picture.image if picture.raw is None else picture.raw


OPTIONS = {
    "auto": {},
    "noise, adam, jitter": {
        "param": 'pixels(start="uniform")',
        "transforms": "jitter(1)",
        "optimizer": "Adam",
        "regularizer": "0.05 * total_variation() + 0.01 * norm(1)",
        "relative": True,
    },
    "sphere, others": {"param": "sphere(3.0)", "others": 0.5, "optimizer": "Adam"},
    "sigmoid": {"param": 'pixels(start="normal", box="sigmoid")', "optimizer": "NAdam"},
    "paper": {
        "param": 'pixels(box="clip")',
        "relative": False,
        "optimizer": "SGD",
        "lr": 1.0,
        "regularizer": "0.01 * total_variation(delta=0) + 0.001 * norm(1)",
    },
}


class TestKnownAnswers:
    @pytest.mark.parametrize("rho", [1.0, 9.2])
    def test_on_a_sphere_a_first_layer_unit_is_its_weights(self, rho):
        network = mlp(784, 40, 10, shape=(1, 28, 28))
        weights = network.module.fc1.weight.detach()
        for unit, picture in enumerate(
            maximize(network, network.units("fc1"), param=f"sphere({rho})")
        ):
            assert picture.raw is not None
            made = picture.raw.flatten()
            assert float(torch.cosine_similarity(made, weights[unit], dim=0)) >= 0.999
            assert abs(float(made.norm()) - rho) <= 1e-5 * rho

    @pytest.mark.parametrize(
        "options", [{}, {"optimizer": "Adam", "relative": False, "steps": 300}]
    )
    def test_on_a_sphere_three_bright_pixels_share_the_norm(self, options):
        picture = maximize(tiny(), "conv:0", param=param.sphere(3**0.5), **options)
        assert picture.score == pytest.approx(3, abs=3e-3)  # a cosine of 0.999
        for row, column in BRIGHT:
            assert float(picture.raw[0, row, column]) == pytest.approx(1, abs=0.05)

    def test_in_a_box_a_linear_unit_is_1_where_its_weights_are_positive(self):
        network = mlp(35, 12, shape=(1, 7, 5))
        weight = network.module.fc1.weight.data
        weight.copy_(weight.sign() * (0.5 + weight.abs()))
        for picture, w, bias in zip(
            maximize(network, network.units("fc1"), regularizer=None),
            weight,
            network.module.fc1.bias.tolist(),
            strict=True,
        ):
            assert torch.equal(picture.image.flatten(), (w > 0).float())
            assert picture.score == pytest.approx(float(w.clamp(min=0).sum()) + bias, rel=1e-5)
            assert picture.verdict == "excited"

    def test_under_a_squared_norm_it_is_the_weights_over_twice_its_weight(self):
        """S = w.x - lambda |x|^2 is best at w / (2 lambda), cut by the box (METHODS D2)."""
        network = mlp(35, 6, shape=(1, 7, 5))
        sheet = maximize(
            network,
            network.units("fc1"),
            regularizer="0.2 * alpha_norm(2)",
            relative=False,
            optimizer="SGD",
            lr=0.5,
            steps=200,
            schedule="constant",
        )
        for picture, w in zip(sheet, network.module.fc1.weight.detach(), strict=True):
            torch.testing.assert_close(
                picture.image.flatten(), (w / 0.4).clamp(0, 1), atol=1e-4, rtol=0
            )

    def test_without_a_box_it_goes_below_0_and_is_shown_in_range(self):
        network = mlp(35, 6, shape=(1, 7, 5))
        picture = maximize(
            network,
            "fc1:2",
            param="pixels(box=None)",
            regularizer="0.2 * alpha_norm(2)",
            relative=False,
            optimizer="SGD",
            lr=0.5,
            steps=200,
            schedule="constant",
        )
        w = network.module.fc1.weight.detach()[2]
        torch.testing.assert_close(picture.raw.flatten(), w / 0.4, atol=1e-4, rtol=0)
        assert torch.equal(picture.image, picture.raw.clamp(0, 1))
        assert picture.image.min() == 0

    def test_every_picture_ends_higher_than_it_began_and_its_score_is_its_own(self):
        network = variants()["modules"]
        for unit in (
            "conv1:3",
            "relu#2:1",
            "hidden:4",
            "output:0",
            "conv2:2@3,1",
            "conv2:2@strongest",
        ):
            if unit.startswith("relu"):
                unit = "relu2:1"
            picture = maximize(network, unit, steps=40)
            x = picture.image[None]
            heard = network.read(x, Unit(unit.split(":")[0]).layer, watch=True).before
            assert picture.score == pytest.approx(float(heard[unit]), rel=1e-4, abs=1e-5)
            assert picture.score > float(picture.history[0])
            assert picture.verdict == "excited"
            assert picture.unit == unit


class TestCompany:
    """A picture depends on its recipe and not on what else was made."""

    @pytest.mark.parametrize("name", OPTIONS)
    @pytest.mark.parametrize("kind", ["cnn", "mlp"])
    def test_in_float64_it_is_the_same_bit_for_bit(self, kind, name):
        """Also on an image of odd size, where each place in a batch has another alignment."""
        network, layer = company(kind, torch.float64)
        options = {**OPTIONS[name], "steps": 4}
        wanted = [f"{layer}:{(17 * k + 5) % 300}" for k in range(9)]
        expected = dict(zip(wanted, maximize(network, wanted, **options), strict=True))
        for some in (wanted[::-1], wanted[3:5], wanted[:1]):
            for unit, picture in zip(some, maximize(network, some, **options), strict=True):
                same_bits(picture, expected[unit])
        same_bits(maximize(network, wanted[7], **options), expected[wanted[7]])

    @pytest.mark.parametrize("kind", ["cnn", "mlp"])
    def test_among_several_hundred_others_it_is_the_same_bit_for_bit(self, kind):
        network, layer = company(kind, torch.float64)
        every = maximize(network, network.units(layer), steps=2)
        assert len(every) == 300
        for row in (0, 5, 299):
            same_bits(maximize(network, f"{layer}:{row}", steps=2), every[row])

    @pytest.mark.parametrize("name", ["calm", "noise, adam, jitter", "sphere, others", "sigmoid"])
    @pytest.mark.parametrize("kind", ["cnn", "mlp"])
    def test_in_float32_it_is_the_same_within_a_hundred_thousandth(self, kind, name):
        """Where the climb is calm: a regulariser too stiff for its step blows up a last bit."""
        network, layer = company(kind, torch.float32)
        calm = {"regularizer": "2.5 * total_variation(delta=0.3) + 0.7 * norm(1)", "relative": True}
        options = {**OPTIONS.get(name, calm), "steps": 20}
        every = maximize(network, network.units(layer), **options)
        for count in (1, 2, 7, 64):
            rows = [(17 * k + 5) % 300 for k in range(count)]
            some = maximize(network, [f"{layer}:{row}" for row in rows], batch=5, **options)
            for row, picture in zip(rows, some, strict=True):
                assert float((numbers(picture) - numbers(every[row])).abs().max()) <= 1e-5

    def test_the_order_and_the_size_of_batches_make_no_difference(self):
        network = mlp(35, 61, 30, 5, shape=(1, 7, 5), dtype=torch.float64)
        wanted = [
            "fc2:3",
            "fc3:1",
            "relu1:7",
            "fc2:0",
            "output:4",
            "fc2:9",
        ]
        expected = {u: maximize(network, u, steps=5) for u in wanted}
        for order, batch in ((wanted, None), (wanted[::-1], 2), ([wanted[2], *wanted], 3)):
            sheet = maximize(network, order, steps=5, batch=batch)
            assert [p.unit for p in sheet] == order
            for unit, picture in zip(order, sheet, strict=True):
                same_bits(picture, expected[unit])
                assert picture.recipe["result"] == expected[unit].recipe["result"]

    def test_the_seed_and_the_unit_decide_what_is_drawn(self):
        network = mlp(35, 6, shape=(1, 7, 5))
        start = {"param": 'pixels(start="uniform")', "steps": 0}
        one, again, other_seed, other_unit = (
            maximize(network, unit, seed=seed, **start).image
            for unit, seed in (("fc1:1", 0), ("fc1:1", 0), ("fc1:1", 1), ("fc1:2", 0))
        )
        assert torch.equal(one, again)
        assert not torch.equal(one, other_seed)
        assert not torch.equal(one, other_unit)


@pytest.fixture(scope="module")
def seen() -> Network:
    """A network whose units are on for half of 500 images, and what those reached in its layers."""
    network, data = mlp(49, 80, 70, 60, 10, shape=(1, 7, 7)), images(500, (1, 7, 7))
    names = ["fc1", "fc2", "fc3", "fc4"]
    for name in names:
        answers = network.read(data, name).layers[name]
        network.module.get_submodule(name).bias.data.sub_(answers.mean(0))
    heard = network.read(data, *names)
    network.records = {f"{n}.maximum": heard.layers[n].amax(0) for n in names}
    assert all(bool((maxima > 0).all()) for maxima in network.records.values())
    return network


class TestVerdicts:
    """METHODS C2: all planted failures are flagged, and none of 200 good runs is."""

    def test_200_good_runs_are_not_flagged(self, seen):
        wanted = [*seen.units("fc1"), *seen.units("relu2"), *seen.units("fc3")][:200]
        sheet = maximize(seen, wanted, regularizer=None)
        assert len(sheet) == 200
        assert {(p.verdict, p.cause) for p in sheet} == {("excited", None)}
        for picture, unit in zip(sheet, wanted, strict=True):
            assert picture.best_in_data == seen.best_in_data(unit)
            assert picture.best_in_data is not None
            assert picture.score >= picture.best_in_data
            assert picture.times_data is None or picture.times_data >= 1

    def test_200_good_runs_without_records_are_not_flagged_either(self, seen):
        network = Network(seen.module, (1, 7, 7))
        wanted = [*network.units("fc1"), *network.units("fc2"), *network.units("fc3")][:200]
        sheet = maximize(network, wanted)
        assert {p.verdict for p in sheet} == {"excited"}
        assert {p.best_in_data for p in sheet} == {None}

    def test_a_unit_that_is_off_whatever_the_image_is_dead(self):
        module = named(flat=nn.Flatten(), fc=nn.Linear(49, 4), relu=nn.ReLU(), out=nn.Linear(4, 2))
        module.fc.bias.data[2] = -1000
        data = images(100, (1, 7, 7))
        for layer in ("fc", "relu"):
            network = Network(module, (1, 7, 7))
            assert maximize(network, f"{layer}:2").verdict == "failed"
            network.records = {"fc.maximum": network.read(data, "fc").layers["fc"].amax(0)}
            found = maximize(network, f"{layer}:2")
            assert (found.verdict, found.cause) == ("dead", "off whatever was tried")
            assert found.score < -900
            assert maximize(network, f"{layer}:1", regularizer=None).verdict == "excited"

    def test_a_unit_that_no_pixel_reaches_is_dead_without_records_too(self):
        found = maximize(tiny(), "conv:2")
        assert found.verdict == "dead"
        assert found.gradient_norm == 0
        assert found.jitter_survival is None

    @pytest.mark.parametrize("transforms", [(), "jitter(2)"])
    @pytest.mark.parametrize("start", ["0.01", '"uniform"'])
    def test_a_learning_rate_of_0_has_failed(self, seen, transforms, start):
        for network in (seen, Network(seen.module, (1, 7, 7))):
            sheet = maximize(
                network,
                network.units("fc2"),
                lr=0.0,
                transforms=transforms,
                param=f"pixels(start={start})",
            )
            for picture in sheet:
                # Black may by chance excite a unit more than any image: that is no failure.
                reached = picture.best_in_data is not None and picture.score >= picture.best_in_data
                assert picture.verdict == ("excited" if reached else "failed")
                assert picture.cause == (None if reached else "nothing moved")
            assert [p.verdict for p in sheet].count("failed") > 60

    def test_what_is_dead_behind_its_relu_has_failed(self):
        module = named(flat=nn.Flatten(), fc=nn.Linear(49, 4), relu=nn.ReLU(), out=nn.Linear(4, 2))
        module.fc.bias.data[2] = -3
        network = Network(module, (1, 7, 7))
        after = maximize(network, "relu:2", activation="post", regularizer=None)
        assert (after.verdict, after.cause) == ("failed", "no gradient")
        assert after.gradient_norm == 0
        assert after.score == 0
        assert maximize(network, "relu:2", regularizer=None).score > -3  # it only had no gradient

    def test_a_wrong_input_range_is_below_the_data(self, seen):
        """Records of images in 0..255: hardly a picture in [0, 1] can reach what they excite."""
        network = Network(seen.module, (1, 7, 7))
        heard = network.read(255 * images(500, (1, 7, 7)), "fc1", "fc2", "fc3")
        network.records = {f"{n}.maximum": heard.layers[n].amax(0) for n in heard.layers}
        flagged, causes = 0, []
        for layer in ("fc1", "fc2", "fc3"):
            for picture in maximize(network, network.units(layer), regularizer=None):
                assert (picture.verdict == "excited") == (picture.score >= picture.best_in_data)
                flagged += picture.verdict == "below data"
                causes.append(picture.cause)
        assert flagged > 190  # of 210; the rest is off for bright images
        assert causes.count("wrong input range") > 150

    def test_too_few_steps_are_below_the_data(self, seen):
        sheet = maximize(seen, seen.units("fc3"), steps=1, lr=0.001, regularizer=None)
        for picture in sheet:
            assert (picture.verdict == "excited") == (picture.score >= picture.best_in_data)
        assert [p.verdict for p in sheet].count("below data") > 40
        assert {p.cause for p in sheet if p.verdict == "below data"} == {"too few steps"}

    def test_a_score_that_the_records_are_not_about_is_not_compared(self, seen):
        assert maximize(seen, "fc4:1", score="probability", steps=3).best_in_data is None
        assert maximize(seen, "relu1:1", activation="post", steps=3).best_in_data is None
        assert maximize(seen, "fc4:1", steps=3).best_in_data == seen.best_in_data(Unit("fc4", 1))
        assert maximize(seen, "output:1", steps=3).best_in_data == seen.best_in_data(Unit("fc4", 1))


class TestEvidence:
    @pytest.mark.parametrize("steps", [0, 1, 7])
    def test_the_history_has_a_score_for_each_step(self, steps):
        picture = maximize(variants()["modules"], "hidden:3", steps=steps)
        assert picture.history.shape == (steps,)
        if steps:
            assert float(picture.history[-1]) == pytest.approx(picture.score, rel=1e-5)

    def test_survival_is_the_share_left_one_pixel_to_each_side(self):
        network = variants()["modules"]
        picture = maximize(network, "output:2", steps=20)
        left = [
            float(network(picture.image.roll(move, (1, 2))[None])[0, 2])
            for move in ((1, 0), (-1, 0), (0, 1), (0, -1))
        ]
        assert picture.jitter_survival == pytest.approx(sum(left) / 4 / picture.score, rel=1e-4)

    def test_the_opacity_is_where_the_picture_was_worked_on(self):
        picture = maximize(tiny(), "conv:0", steps=5)
        wanted = torch.zeros(4, 4)
        for row, column in BRIGHT:
            wanted[row, column] = 1
        assert torch.equal(picture.opacity, wanted)
        assert torch.allclose(picture.faded[0], torch.where(wanted > 0, picture.image[0], 1.0))
        assert maximize(tiny(), "conv:0", steps=0).opacity is None

    def test_survival_of_noise_is_the_share_left_under_noise_the_same_for_all(self):
        network = variants()["modules"]
        alone = maximize(network, "output:2", steps=20)
        drawn = Streams(0, ("noise", "more noise")).normal("survival", alone.image.numel())
        noise = 0.05 * drawn.view(2, *alone.image.shape).float()
        left = network(alone.image + noise)[:, 2].mean() / alone.score
        assert alone.noise_survival == pytest.approx(float(left), rel=1e-4)
        among = maximize(network, ["output:1", "output:2"], steps=20)[1]
        assert among.noise_survival == pytest.approx(alone.noise_survival, rel=1e-3)

    def test_the_rival_is_the_strongest_other_unit(self):
        network = variants()["modules"]
        for unit, layer in (("hidden:3", "hidden"), ("conv2:1", "conv2")):
            picture = maximize(network, unit, steps=20)
            answer = network.read(picture.image[None], layer).layers[layer][0]
            values = answer.flatten(1).mean(1) if answer.dim() > 1 else answer
            values[int(unit[-1])] = -math.inf
            assert picture.rival == f"{layer}:{int(values.argmax())}"
            assert picture.rival_score == pytest.approx(float(values.max()), rel=1e-4)

    def test_the_rival_of_a_place_is_at_that_place(self):
        network = variants()["modules"]
        here = maximize(network, "conv2:1@2,3", steps=10)
        answer = network.read(here.image[None], "conv2").layers["conv2"][0]
        values = answer[:, 2, 3]
        values[1] = -math.inf
        assert here.rival == f"conv2:{int(values.argmax())}@2,3"
        assert here.rival_score == pytest.approx(float(values.max()), rel=1e-4)
        strongest = maximize(network, "conv2:1@strongest", steps=10)
        answer = network.read(strongest.image[None], "conv2").layers["conv2"][0].amax((1, 2))
        answer[1] = -math.inf
        assert strongest.rival_score == pytest.approx(float(answer.max()), rel=1e-4)

    def test_a_lonely_unit_has_no_rival(self):
        network = mlp(35, 1, shape=(1, 7, 5))
        assert maximize(network, "fc1:0", steps=3).rival is None
        assert maximize(variants()["modules"], "hidden", steps=3).rival is None

    def test_the_answers_are_the_whole_networks(self):
        network = tiny()
        picture = maximize(network, "conv:1", regularizer=None)
        chances = network(picture.image[None]).softmax(1)[0]
        assert len(picture.answers) == 3
        assert picture.answers[0][0] == "horizon"
        for name, chance in picture.answers:
            assert chance == pytest.approx(float(chances[network.labels.index(name)]), rel=1e-4)

    def test_the_last_gradient_is_reported(self):
        network = variants()["modules"]
        *_, before, _ = ascend(
            network,
            ask.activation("hidden:3"),
            param.pixels(),
            steps=3,
            lr=0.05,
            owners=("hidden:3",),
        )
        picture = maximize(
            network,
            "hidden:3",
            steps=3,
            optimizer="Adam",
            relative=False,
            regularizer=None,
            schedule="constant",
        )
        back = backpropagate(network, before.images, ask.activation("hidden:3"))
        assert picture.gradient_norm == pytest.approx(float(back.norm()), rel=1e-4)


class TestTargets:
    def test_an_axis_as_a_direction_has_the_units_picture(self):
        network = variants(torch.float64)["modules"]
        axis = torch.zeros(12)
        axis[4] = 1
        one = maximize(network, Direction("hidden", axis, "four"), steps=10)
        assert one.unit == "hidden:<four>"
        torch.testing.assert_close(one.image, maximize(network, "hidden:4", steps=10).image)
        sheet = maximize(network, [Direction("hidden", axis, "four"), "hidden:2"], steps=10)
        torch.testing.assert_close(sheet[0].image, one.image)

    def test_a_whole_layer_can_be_excited(self):
        network = variants()["modules"]
        picture = maximize(network, "hidden", steps=20, regularizer=None)
        mean = float(network.read(picture.image[None], "hidden").layers["hidden"].mean())
        assert picture.score == pytest.approx(mean, rel=1e-4)

    def test_a_label_is_its_unit(self):
        one, other = maximize(tiny(), "output:horizon"), maximize(tiny(), "output:1")
        assert torch.equal(one.image, other.image)
        assert one.unit == "output:1"

    def test_several_layers_keep_the_order_asked(self):
        network = variants()["modules"]
        wanted = [
            "hidden:1",
            "output:0",
            "conv1:2@3,3",
            "hidden:0",
            "conv1:2",
            "output:3",
            "conv1:1@3,3",
        ]
        sheet = maximize(network, wanted, steps=3)
        assert isinstance(sheet, Sheet)
        assert [p.unit for p in sheet] == wanted
        for unit, picture in zip(wanted, sheet, strict=True):
            torch.testing.assert_close(
                picture.image, maximize(network, unit, steps=3).image, atol=1e-5, rtol=0
            )

    def test_one_unit_is_a_picture_and_a_list_of_one_a_sheet(self):
        assert isinstance(maximize(tiny(), "conv:0", steps=1), Picture)
        assert isinstance(maximize(tiny(), Unit("conv", 0), steps=1), Picture)
        assert isinstance(maximize(tiny(), ["conv:0"], steps=1), Sheet)
        assert isinstance(maximize(tiny(), tiny().units("conv"), steps=1), Sheet)

    def test_a_probability_is_raised_as_such(self):
        network = variants()["modules"]
        for score in ("probability", "log_probability"):
            picture = maximize(network, "output:1", score=score, steps=60, regularizer=None)
            share = float(network(picture.image[None]).softmax(1)[0, 1])
            expected = math.log(share) if score == "log_probability" else share
            assert picture.score == pytest.approx(expected, rel=1e-4)
            assert picture.score > float(picture.history[0])

    def test_an_image_too_small_for_the_whole_network_is_made_for_an_early_layer(self):
        module = named(
            conv=nn.Conv2d(1, 4, 3), relu=nn.ReLU(), flat=nn.Flatten(), fc=nn.Linear(4 * 36, 5)
        )
        network = Network(module, (1, 8, 8))
        picture = maximize(network, "conv:1", param="pixels(shape=[1, 4, 6])", steps=5)
        assert picture.image.shape == (1, 4, 6)
        assert picture.answers == ()
        with pytest.raises(RequestError, match="does not take images of shape"):
            maximize(network, "fc:1", param="pixels(shape=[1, 4, 6])", steps=5)


class TestOptions:
    def test_texts_and_objects_mean_the_same(self):
        network = variants()["modules"]
        said = maximize(
            network,
            "hidden:3",
            steps=4,
            param='pixels(start="uniform")',
            transforms="[jitter(1)]",
            regularizer="0.5 * total_variation() + 0.1 * norm(1)",
        )
        made = maximize(
            network,
            "hidden:3",
            steps=4,
            param=param.pixels(start="uniform"),
            transforms=[transform.jitter(1)],
            regularizer=0.5 * ask.total_variation() + 0.1 * ask.norm(1),
        )
        assert torch.equal(said.image, made.image)
        assert torch.equal(
            said.image,
            maximize(
                network,
                "hidden:3",
                steps=4,
                param='pixels(start="uniform")',
                transforms="jitter(1)",
                regularizer="0.5 * total_variation() + 0.1 * norm(1)",
            ).image,
        )

    def test_it_is_the_ascent_that_its_options_say(self):
        network = variants()["modules"]
        wanted = ["hidden:3"]
        question = ask.activation(wanted) - 0.3 * ask.others(wanted) - 0.1 * ask.total_variation()
        *_, end = ascend(
            network,
            question,
            param.pixels(start="uniform"),
            steps=6,
            optimizer="NAdam",
            lr=0.02,
            schedule="cosine",
            owners=wanted,
            seed=7,
            transforms=[transform.jitter(1)],
        )
        picture = maximize(
            network,
            "hidden:3",
            param='pixels(start="uniform")',
            steps=6,
            optimizer="NAdam",
            lr=0.02,
            schedule="cosine",
            others=0.3,
            regularizer="0.1 * total_variation()",
            relative=False,
            seed=7,
            transforms="jitter(1)",
        )
        torch.testing.assert_close(picture.image, end.images[0], atol=1e-5, rtol=0)

    def test_by_default_one_weight_means_the_same_for_every_unit(self):
        """Weights a thousand times as large change nothing: the regulariser is relative."""
        pictures = []
        for scale in (1, 1000):
            module = mlp(49, 8, shape=(1, 7, 7), dtype=torch.float64).module
            module.fc1.weight.data.mul_(scale)
            pictures.append(maximize(Network(module, (1, 7, 7)), "fc1:2").image)
        torch.testing.assert_close(pictures[1], pictures[0], atol=1e-5, rtol=0)

    def test_a_regulariser_that_is_written_is_taken_as_written(self):
        network = mlp(49, 8, shape=(1, 7, 7))
        written = maximize(network, "fc1:2", regularizer="1000 * norm(1)")
        assert float(written.image.max()) < 0.06

    def test_more_of_a_regulariser_makes_less_of_what_it_measures(self):
        network = variants()["modules"]
        for measure, term in (
            (lambda x: x.sum(), "norm(1)"),
            (
                lambda x: x.diff(dim=-1).abs().sum() + x.diff(dim=-2).abs().sum(),
                "total_variation()",
            ),
        ):
            sizes = [
                float(
                    measure(
                        maximize(
                            network, "hidden:3", regularizer=f"{w} * {term}", relative=True
                        ).image
                    )
                )
                for w in (0.01, 0.3, 3.0)
            ]
            assert sizes[0] > sizes[1] > sizes[2]

    def test_penalising_the_others_keeps_them_lower(self):
        network = variants()["modules"]
        means = []
        for weight in (0.0, 5.0):
            picture = maximize(network, "hidden:3", others=weight, regularizer=None, relative=False)
            answer = network.read(picture.image[None], "hidden").layers["hidden"][0]
            means.append(float((answer.sum() - answer[3]) / 11))
        assert means[1] < means[0]

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"unit": "conv:7"}, "no unit conv:7"),
            ({"unit": []}, "no unit was asked for"),
            ({"batch": 0}, "batch=0: at least 1"),
            ({"optimizer": "Newton"}, "no optimiser called 'Newton'"),
            ({"schedule": "slow"}, "no schedule called 'slow'"),
            ({"param": "norm(1)"}, "is no Parameterization: it is a Objective"),
            ({"param": "circle()"}, "no 'circle'"),
            ({"regularizer": "pixels()"}, "is no Objective: it is a Pixels"),
            ({"regularizer": "total_variaton()"}, "there is total_variation"),
            ({"steps": -1}, "neither may be negative"),
            ({"lr": -0.1}, "neither may be negative"),
            ({"transforms": "jitter(-1)"}, "at least 0"),
            ({"param": "pixels(shape=[2, 4, 4])"}, "channel"),
        ],
        ids=str,
    )
    def test_a_request_that_cannot_be_is_refused_in_one_sentence(self, options, sentence):
        with pytest.raises(RequestError, match=sentence) as refusal:
            maximize(tiny(), **{"unit": "conv:0", **options})
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize("options", [{"activation": "mid"}, {"score": "loss"}], ids=str)
    def test_an_unknown_score_is_refused(self, options):
        with pytest.raises((RequestError, TypeError), match=next(iter(options))):
            maximize(tiny(), "conv:0", **options)

    def test_it_says_how_far_it_is(self):
        heard = []
        with listening(lambda *said: heard.append(said)):
            maximize(
                mlp(35, 10, shape=(1, 7, 5)), [f"fc1:{i}" for i in range(10)], steps=1, batch=4
            )
        done = [("maximize", n, 10) for n in (4, 8, 10)]
        assert [said for said in heard if said[0] == "maximize"] == done
        assert [said for said in heard if said[0] == "steps"] == 3 * [
            ("steps", 0, 1),
            ("steps", 1, 1),
        ]

    def test_the_network_is_as_before(self):
        module = seeded(
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(), nn.ReLU(inplace=True))
        ).train()
        before = {k: v.clone() for k, v in module.state_dict().items()}
        maximize(Network(module, (1, 6, 6)), "0:1", steps=3)
        assert module.training
        assert all(p.grad is None for p in module.parameters())
        assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
