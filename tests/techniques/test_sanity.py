"""The ordering of Adebayo et al. (METHODS D12): which maps outlive their network, which do not."""

import pytest
import torch
from torch import nn

import optogram as og
from optogram.core.trust import Trust, trust, trusts

SEEDS = range(5)


@pytest.fixture(scope="module", params=["digits", pytest.param("mnist", marks=pytest.mark.data)])
def reader(request) -> tuple[og.Network, torch.Tensor, torch.Tensor]:
    """Two convolutions trained for a few seconds, on scikit-learn's digits and on MNIST's."""
    digits = og.data(request.param, split="train", shape=(1, 28, 28))
    images = digits.take(torch.arange(min(len(digits), 10_000)))[0]
    labels = torch.as_tensor(digits.labels)[: len(images)]
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()]
    module = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 10))
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for some in torch.randperm(len(images), generator=generator).split(64):
            loss = nn.functional.cross_entropy(module(images[some]), labels[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        right = (module.eval()(images).argmax(1) == labels).float().mean()
    assert float(right) > 0.95
    return og.Network(module, (1, 28, 28), name="digit reader"), images[:4], labels[:4]


def trusted(reader, technique, seed: int, **options) -> list[Trust]:
    network, images, labels = reader

    def explain(asked, image, unit):
        return technique(asked, image, unit, **options)

    found = []
    for image, label in zip(images, labels.tolist(), strict=True):
        target = network.resolve(f"output:{label}")
        made = explain(network, image, target)
        found.append(trust(explain, network, made, target, draws=4, steps=1, seed=seed))
    return found


def mean_top(results: list[Trust]) -> float:
    return sum(sum(t.top) / len(t.top) for t in results) / len(results)


def test_guided_backprop_keeps_most_then_deconvnet_then_gradients(reader):
    ways = {
        "guided": (og.guided_backprop, {}),
        "deconvnet": (og.deconvnet, {}),
        "gradient": (og.saliency, {}),
        "smoothgrad": (og.smoothgrad, {"samples": 5}),
        "input x gradient": (og.input_x_gradient, {"baseline": 0.0}),
        "integrated": (og.integrated_gradients, {"baseline": 0.0, "steps": 6}),
    }
    means = {name: mean_top(trusted(reader, way, 0, **o)) for name, (way, o) in ways.items()}
    gradients = [means[n] for n in ("gradient", "smoothgrad", "input x gradient", "integrated")]
    assert means["guided"] > means["deconvnet"] > max(gradients)
    assert means["guided"] > 0.5
    assert max(map(abs, gradients)) < 0.25


@pytest.mark.parametrize(
    ("technique", "badge"), [(og.guided_backprop, "fail"), (og.saliency, "pass")]
)
def test_badges_are_the_same_for_five_seeds(reader, technique, badge):
    for seed in SEEDS:
        given = [t.badge for t in trusted(reader, technique, seed)]
        assert given.count(badge) >= 3, (seed, given)


@pytest.mark.data
@pytest.mark.slow
def test_the_ordering_holds_on_a_photograph_and_a_famous_network(data_root):
    weights = data_root / "weights" / "googlenet_bvlc.safetensors"
    network = og.load("googlenet-bvlc", weights=weights)
    files = sorted((data_root / "imagenet_samples").glob("*.jpg"))
    means = {"guided_backprop": [], "deconvnet": [], "saliency": []}
    for index in (259, 386, 779):
        whole = og.image(files[index], channels=3)
        top, left = (whole.shape[1] - 160) // 2, (whole.shape[2] - 160) // 2
        image = whole[:, top : top + 160, left : left + 160]
        target = network.resolve(f"output:{index}")
        for name, tops in means.items():
            technique = getattr(og, name)
            made = technique(network, image, target)
            tops.append(mean_top([trust(technique, network, made, target, draws=2, steps=1)]))
    guided, deconvnet, gradient = (sum(tops) / 3 for tops in means.values())
    assert min(guided, deconvnet) > 0.5
    assert gradient < 0.25


@pytest.mark.data
@pytest.mark.slow
def test_badges_of_a_photograph_are_the_same_for_five_seeds(data_root):
    weights = data_root / "weights" / "googlenet_bvlc.safetensors"
    network = og.load("googlenet-bvlc", weights=weights)
    whole = og.image(data_root / "imagenet_samples" / "n02112018_Pomeranian.jpg", channels=3)
    image, target = whole[:, 60:220, 40:200], network.resolve("output:Pomeranian")
    expected = {"guided_backprop": "fail", "deconvnet": "fail", "saliency": "pass"}
    ways = [
        lambda asked, images, targets, n=name: list(getattr(og, n)(asked, images, targets))
        for name in expected
    ]
    found = [list(way(network, image[None], [target])) for way in ways]
    for seed in SEEDS:
        trusted = trusts(ways, network, found, [target], draws=2, steps=1, seed=seed)
        assert [one.badge for (one,) in trusted] == list(expected.values()), seed
