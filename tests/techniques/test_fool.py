"""Fooling: the smallest change against closed forms and a library's, progress by its rule."""

import json
import math
import warnings

import pytest
import torch
from torch import nn

import optogram as og
from optogram.ascent.smallest import _onto_plane, smallest_change
from optogram.core import objective as ask
from optogram.pictures.errors import RequestError
from tests.core.nets import named


@pytest.fixture(scope="module")
def mlp():
    return og.load("mnist-mlp")


@pytest.fixture(scope="module")
def digits(mlp):
    """40 digits that the network reads right, and a wrong class for each."""
    found = og.data("digits", split="test", shape=mlp.shape)
    images = torch.stack([found[i][0] for i in range(48)])
    labels = found.labels[:48]
    images, labels = (t[mlp(images).argmax(1) == labels][:40] for t in (images, labels))
    return images, (labels + 1 + torch.arange(len(labels)) % 9) % 10


def plane(weights, bias=0.0):
    """A network whose only answer is a weighted sum of the pixels."""
    return linear([weights], [bias])


def linear(weights, biases):
    """A network of one layer, with these weights."""
    module = named(flat=nn.Flatten(), fc=nn.Linear(len(weights[0]), len(weights)))
    with torch.no_grad():
        module.fc.weight.copy_(torch.tensor(weights))
        module.fc.bias.copy_(torch.tensor(biases))
    return og.Network(module, (1, 1, len(weights[0])), name="linear")


def addresses(targets):
    return [f"output:{int(t)}" for t in targets]


def test_the_smallest_change_of_a_linear_unit_is_the_distance_to_its_plane():
    network, grey = plane([3.0, 4.0]), torch.full((1, 1, 2), 0.5)
    made = og.fool(network, "fc:0", start=grey, goal=4.5)  # 3.5 at the start, |weights| = 5
    assert made.verdict == "fooled"
    assert float(made.change.norm()) == pytest.approx(0.2, rel=1e-3)
    torch.testing.assert_close(made.change.flatten(), torch.tensor([0.12, 0.16]), rtol=1e-2, atol=0)
    assert made.score == pytest.approx(4.5, abs=1e-3)


def test_where_the_box_ends_the_other_pixels_go_further():
    network, start = plane([3.0, 4.0]), torch.tensor([[[0.5, 0.95]]])
    made = og.fool(network, "fc:0", start=start, goal=6.0)  # 5.3; the second pixel gives 0.2
    torch.testing.assert_close(made.image.flatten(), torch.tensor([2 / 3, 1.0]), rtol=0, atol=2e-3)


def test_a_goal_beyond_the_box_is_a_failure_that_says_so():
    made = og.fool(plane([3.0, 4.0]), "fc:0", start=torch.zeros(1, 1, 2), goal=7.5, steps=5)
    assert made.verdict == "failed"
    assert made.score <= 7.0 + 1e-5


def test_the_projection_is_that_of_brute_force():
    chance = torch.Generator().manual_seed(3)
    for _ in range(5):
        image, slope = (
            torch.rand(1, 1, 1, 3, generator=chance),
            torch.randn(1, 1, 1, 3, generator=chance),
        )
        grid = torch.cartesian_prod(*[torch.linspace(0, 1, 101)] * 3)
        reach = float(((slope > 0).float() - image).mul(slope).sum())
        lack = 0.6 * reach
        good = ((grid - image.flatten()) @ slope.flatten()) >= lack
        best = (grid[good] - image.flatten()).norm(dim=1).min()
        point = _onto_plane(image, slope, torch.tensor([lack]))
        assert float(((point - image) * slope).sum()) == pytest.approx(lack, rel=1e-4)
        assert float((point - image).norm()) <= float(best) + 1e-5
        assert float((point - image).norm()) >= float(best) - 0.03


def test_digits_are_forged_by_no_more_than_the_strongest_attack_of_the_library(mlp, digits):
    """DDN (Rony et al., 2019), of foolbox, with as many gradients; the issue allows 1.1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import foolbox

    images, targets = digits
    made = og.fool(mlp, addresses(targets), start=images, steps=60)
    assert all(picture.verdict == "fooled" for picture in made)
    assert (mlp(made.images).argmax(1) == targets).float().mean() >= 0.95
    module = mlp.module.eval()
    wanted = [p.requires_grad for p in module.parameters()]
    module.requires_grad_(False)
    attack = foolbox.attacks.DDNAttack(steps=60)
    model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    criterion = foolbox.criteria.TargetedMisclassification(targets)
    _, forged, _ = attack(model, images, criterion, epsilons=None)
    for parameter, grad in zip(module.parameters(), wanted, strict=True):
        parameter.requires_grad_(grad)
    ours = torch.stack([p.change for p in made]).flatten(1).norm(dim=1).median()
    assert float(ours) <= 1.1 * float((forged - images).flatten(1).norm(dim=1).median())


def test_an_adversarial_digit_reaches_the_confidence_that_is_asked_for(mlp, digits):
    images, targets = digits
    made = og.fool(mlp, addresses(targets[:6]), start=images[:6], goal=0.99)
    assert made.scores.min() >= 0.9899
    assert made.scores.max() <= 0.9905  # no further than that
    for picture, image in zip(made, images, strict=False):
        assert torch.equal(picture.start, image)
        assert (
            picture.recipe["arguments"]["start"]["sha256"]
            != made.recipe["arguments"]["start"]["sha256"]
        )


def test_units_and_directions_are_forged_like_classes(mlp, digits):
    image = digits[0][0]
    made = og.fool(mlp, ["fc7:1", "fc5:20"], start=image)
    for picture, unit in zip(made, ("fc7:1", "fc5:20"), strict=True):
        best = mlp.best_in_data(og.unit(unit))
        assert picture.verdict == "fooled"
        assert picture.score == pytest.approx(best, rel=1e-3)
        assert float(picture.change.norm()) < float(image.norm())
    vector = torch.zeros(32)
    vector[1] = 2.0
    direction = og.fool(mlp, og.Direction("fc7", vector), start=image, goal=2 * made[0].score)
    alone = og.fool(mlp, "fc7:1", start=image, goal=made[0].score)
    torch.testing.assert_close(direction.change, alone.change, rtol=0, atol=5e-3)


def test_every_digit_is_seen_with_certainty_in_noise(mlp):
    made = og.fool(mlp, mlp.units("output"), start="noise")
    assert made.scores.min() >= 0.9999
    assert max(dict(picture.measures)["steps"] for picture in made) <= 300
    roughness = sum(made.images.diff(dim=d).abs().sum((1, 2, 3)) for d in (-1, -2))
    assert roughness.min() > 2 * 100.9  # that of the mean digit (METHODS D14)
    assert [picture.answers[0][0] for picture in made] == list("0123456789")
    for picture in made:
        steps, *first = [value for _, value in picture.measures]
        assert len(first) == 4
        assert first == sorted(first)
        assert first[-1] == steps == len(picture.history) - 1


def test_a_step_is_as_long_as_should_raise_the_probability_by_the_papers_rule():
    """Two classes of one pixel: p = sigmoid(z), so that the rule can be followed by hand."""
    network = linear([[1.0], [0.0]], [-0.5, 0.0])
    made = og.fool(
        network, "output:0", start=torch.full((1, 1, 1), 0.5), method="progress", steps=3
    )
    z, expected = 0.0, [0.5]
    for _ in range(3):
        p = 1 / (1 + math.exp(-z))
        z += min(0.03, 0.1 * (1 - p)) / (p * (1 - p))  # dp/dz = p (1 - p)
        expected.append(1 / (1 + math.exp(-z)))
    torch.testing.assert_close(made.history, torch.tensor(expected), rtol=1e-4, atol=0)
    assert made.verdict == "failed"


def test_a_priors_ascent_takes_all_its_steps_and_is_calmer(mlp):
    free = og.fool(mlp, "output:3", start="noise", steps=150, goal=0.9999)
    damped = og.fool(mlp, "output:3", start="noise", prior="decay", steps=150)
    assert dict(damped.measures)["steps"] == 150
    assert float(damped.image.norm()) < 0.8 * float(free.image.norm())
    assert damped.score > 0.5


def test_a_picture_depends_neither_on_its_company_nor_on_the_batch(mlp, digits):
    images, targets = digits
    together = og.fool(mlp, addresses(targets[:4]), start=images[:4], steps=30)
    alone = og.fool(mlp, addresses(targets[:1])[0], start=images[0], steps=30)
    torch.testing.assert_close(alone.image, together[0].image, rtol=0, atol=2e-2)
    assert float(alone.change.norm()) == pytest.approx(float(together[0].change.norm()), rel=0.05)


def test_it_is_made_again_from_its_recipe(mlp, tmp_path):
    path = og.fool(mlp, "output:8").save(tmp_path / "eight.png")
    assert og.replay(path).identical


def test_what_was_changed_is_shown_beside(mlp, digits, tmp_path):
    made = og.fool(mlp, "output:3", start=digits[0][0], steps=20)
    plain, row = made.pil(), made.captioned()
    assert row.width >= 3 * plain.width
    page = made.save(tmp_path / "a.html").read_text()
    assert page.count("data:image") >= 3
    assert "The change, amplified" in page
    facts = json.loads(made.save(tmp_path / "a.json").read_text())
    assert facts["measures"] == [["steps", 20.0]]
    assert any(line.startswith("changed by") for line in made.caption())
    assert float(made.amplified.sub(0.5).abs().max()) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "smallest"}, "give start=IMAGE"),
        ({"goal": 1.0}, "between 0 and 1"),
        ({"goal": "some"}, "'majority'"),
        ({"steps": 0}, "at least 1"),
        ({"start": torch.full((1, 28, 28), 1.5)}, "outside"),
        ({"start": torch.zeros(3, 1, 28, 28), "unit": ["output:1", "output:2"]}, "3 images and 2"),
        ({"start": torch.zeros(1, 28, 28), "prior": "blur"}, "for method='progress'"),
        ({"unit": []}, "no unit"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(mlp, options, words):
    with pytest.raises(RequestError, match=words):
        og.fool(mlp, **{"unit": "output:1", **options})


def test_a_unit_of_unknown_strength_needs_a_goal():
    with pytest.raises(RequestError, match="goal="):
        og.fool(plane([1.0, 1.0]), "fc:0", start=torch.zeros(1, 1, 2))


def test_smallest_change_keeps_what_is_there_already():
    network, image = plane([1.0, 1.0]), torch.full((1, 1, 1, 2), 0.5)
    found = smallest_change(network, image, ask.activation("fc:0"), 0.2, steps=3)
    assert bool(found.reached.all())
    torch.testing.assert_close(found.images, image)


@pytest.mark.data
@pytest.mark.slow
def test_squeezenet_is_certain_of_noise(data_root):
    network = og.load(
        "torchvision:squeezenet1_0", weights=data_root / "weights" / "squeezenet1_0.safetensors"
    )
    made = og.fool(network, ["output:340", "output:817"], goal=0.999)
    assert made.scores.min() >= 0.9989
