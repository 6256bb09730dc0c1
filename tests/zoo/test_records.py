import json
from importlib import resources

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from optogram.pictures.errors import RequestError
from optogram.survey import from_arrays
from optogram.survey.datasets import ImageSet
from optogram.zoo.data import data
from optogram.zoo.mnist_mlp import mnist_mlp
from optogram.zoo.records import records


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def small():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 3 * 4, 5)
    ).eval()


def said_by_hand(module, layer, images):
    """What a layer returns, one image at a time, as (image, unit, place)."""
    with torch.no_grad():
        said = torch.stack([module[: layer + 1](image[None])[0] for image in images])
    return said.double().reshape(*said.shape[:2], -1)


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_they_are_what_a_look_at_all_values_gives(batch):
    module, images = small(), noise(7, 2, 5, 6)
    found = records(module, ["0", "3"], from_arrays(images), batch=batch)
    for layer in (0, 3):
        values = said_by_hand(module, layer, images)
        every = values.transpose(0, 1).flatten(1).numpy()
        strongest = values.amax(2).argmax(0)
        close = {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(found[f"{layer}.maximum"].numpy(), every.max(1), **close)
        np.testing.assert_allclose(found[f"{layer}.minimum"].numpy(), every.min(1), **close)
        np.testing.assert_allclose(found[f"{layer}.mean"].numpy(), every.mean(1), **close)
        np.testing.assert_allclose(found[f"{layer}.std"].numpy(), every.std(1), **close)
        assert found[f"{layer}.image"].tolist() == strongest.tolist()
    norms = np.linalg.norm(images.flatten(1).numpy(), axis=1)
    assert float(found["data.mean_norm"]) == pytest.approx(norms.mean(), rel=1e-6)
    torch.testing.assert_close(found["data.mean_image"], images.mean(0))


def test_they_come_in_the_types_they_are_kept_in():
    found = records(small(), ["0"], from_arrays(noise(3, 2, 5, 6)))
    assert {key: (value.dtype, tuple(value.shape)) for key, value in found.items()} == {
        "0.maximum": (torch.float32, (3,)),
        "0.minimum": (torch.float32, (3,)),
        "0.mean": (torch.float32, (3,)),
        "0.std": (torch.float32, (3,)),
        "0.image": (torch.int32, (3,)),
        "data.mean_norm": (torch.float32, ()),
        "data.mean_image": (torch.float32, (2, 5, 6)),
    }


def test_a_layer_is_heard_before_the_relu_that_would_overwrite_it():
    found = records(small(), ["0", "1"], from_arrays(noise(5, 2, 5, 6)))
    assert found["0.minimum"].min() < 0 == found["1.minimum"].min()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_of_several_strongest_images_the_first_is_named(batch):
    # Of eighths every sum is exact: a batch of one image may be added up in another order.
    module, images = small(), noise(5, 2, 5, 6)[[0, 1, 0, 1, 0]].mul(8).round() / 8
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(8).round_().div_(8)
    twice = records(module, ["3"], from_arrays(images), batch=batch)["3.image"]
    assert set(twice.tolist()) <= {0, 1}


def test_a_far_away_mean_does_not_drown_the_spread():
    """Squares summed in float32 would be off by as much as the variance itself."""
    module = nn.Conv2d(1, 1, 1)
    nn.init.constant_(module.weight, 1e-2)
    nn.init.constant_(module.bias, 100.0)
    images = noise(50, 1, 8, 8)
    found = records(nn.Sequential(module), ["0"], from_arrays(images), batch=4)
    with torch.no_grad():
        values = module(images).double()
    assert float(found["0.std"]) == pytest.approx(float(values.std(correction=0)), rel=1e-5)


def test_only_the_images_before_the_stop_count():
    images = noise(9, 2, 5, 6)
    some = records(small(), ["3"], from_arrays(images), stop=4, batch=3)
    first = records(small(), ["3"], from_arrays(images[:4]), batch=3)
    assert all(torch.equal(some[key], first[key]) for key in first)


def test_an_image_that_cannot_be_read_keeps_its_number_and_is_left_out():
    images = noise(4, 2, 5, 6)

    def read(numbers):
        if 1 in numbers:
            raise RequestError("broken")
        return images[list(numbers)]

    some = ImageSet("some", (), torch.zeros(4, dtype=torch.int64), read, lambda: (), str)
    found = records(small(), ["3"], some, batch=2)
    values = said_by_hand(small(), 3, images)[:, :, 0]
    values[1] = -torch.inf
    assert found["3.image"].tolist() == values.argmax(0).tolist()
    torch.testing.assert_close(found["data.mean_image"], images[[0, 2, 3]].mean(0))


def test_the_module_sees_the_images_as_it_wants_them():
    images = noise(4, 2, 5, 6)
    looked = records(small(), ["3"], from_arrays(images), look=lambda x: 1 - x)
    other = records(small(), ["3"], from_arrays(1 - images))
    assert torch.equal(looked["3.maximum"], other["3.maximum"])
    torch.testing.assert_close(looked["data.mean_image"], images.mean(0))


def test_of_a_module_that_is_called_twice_the_first_call_counts():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.constant_(self.conv.weight, 2.0)

        def forward(self, x):
            return self.conv(self.conv(x))

    found = records(Twice(), ["conv"], from_arrays(torch.ones(3, 1, 2, 2)), batch=2)
    assert (float(found["conv.maximum"]), float(found["conv.mean"])) == (2, 2)


def test_the_module_is_left_as_it_was_also_after_an_error():
    module = small()

    def look(images):
        raise KeyError("midway")

    with pytest.raises(KeyError):
        records(module, ["0", "3"], from_arrays(noise(2, 2, 5, 6)), look=look)
    with pytest.raises(RequestError):
        records(module, ["0", "nowhere"], from_arrays(noise(2, 2, 5, 6)))
    records(module, ["0"], from_arrays(noise(2, 2, 5, 6)))
    assert not any(one._forward_hooks for one in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_layer_that_is_not_there_or_never_called_is_named():
    images = from_arrays(noise(2, 2, 5, 6))
    with pytest.raises(RequestError, match="no layer called '9'; this network has 0, 1, 2, 3"):
        records(small(), ["9"], images)
    module = small()
    module.spare = nn.Linear(1, 1)
    module.forward = lambda x: module[0](x)
    with pytest.raises(RequestError, match="never called its layer 'spare'"):
        records(module, ["spare"], images)


def test_without_an_image_there_is_nothing_to_record():
    with pytest.raises(RequestError, match="arrays has no image to show"):
        records(small(), ["0"], from_arrays(noise(2, 2, 5, 6)), stop=0)


SHIPPED = resources.files("optogram.zoo") / "shipped"


def shipped_module():
    module = mnist_mlp().eval()
    weights = load_file(SHIPPED / "mnist-mlp.safetensors")
    module.load_state_dict({key: value.float() for key, value in weights.items()})
    return module


@pytest.mark.slow
def test_the_shipped_records_are_those_of_the_shipped_weights(data_root):
    """All 60,000 at once, layer by layer, against the file."""
    kept = load_file(SHIPPED / "mnist-mlp.records.safetensors")
    train = data("mnist", root=data_root)
    values, _ = train.take(torch.arange(len(train)))
    assert float(kept["data.mean_norm"]) == pytest.approx(9.2, abs=0.05)
    assert float(kept["data.mean_norm"]) == pytest.approx(
        float(values.flatten(1).norm(dim=1).mean()), rel=1e-6
    )
    torch.testing.assert_close(kept["data.mean_image"], values.mean(0))
    names = []
    for name, layer in shipped_module().named_children():
        with torch.no_grad():
            values = layer(values)
        if not isinstance(layer, nn.Linear):
            continue
        names += [f"{name}.{key}" for key in ("maximum", "minimum", "mean", "std", "image")]
        close = {"rtol": 1e-3, "atol": 1e-3}
        torch.testing.assert_close(kept[f"{name}.maximum"], values.amax(0), **close)
        torch.testing.assert_close(kept[f"{name}.minimum"], values.amin(0), **close)
        torch.testing.assert_close(kept[f"{name}.mean"], values.mean(0), **close)
        torch.testing.assert_close(kept[f"{name}.std"], values.std(0), **close)
        strongest = values.gather(0, kept[f"{name}.image"].long()[None])[0]
        torch.testing.assert_close(strongest, values.amax(0), **close)
    assert sorted(kept) == sorted([*names, "data.mean_norm", "data.mean_image"])


def test_the_shipped_weights_are_as_good_as_their_account_says(data_root):
    account = json.loads((SHIPPED / "mnist-mlp.json").read_text())
    test = data("mnist", root=data_root, split="test")
    images, labels = test.take(torch.arange(len(test)))
    with torch.no_grad():
        right = int((shipped_module()(images).argmax(1) == labels).sum())
    assert right == pytest.approx(10_000 * account["shipped"]["test_accuracy"], abs=1)
    assert right >= 9806
    assert account["data"]["test"]["digest"] == test.fitted((1, 28, 28)).digest
