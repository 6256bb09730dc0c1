"""Networks by name, and every way in which a name or a weights file can be wrong."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import optogram as og
from optogram.pictures.errors import RequestError
from optogram.zoo.networks import networks, read_weights


def test_the_shipped_network_says_what_each_digit_is() -> None:
    network = og.load("mnist-mlp")
    digits = og.data("digits", split="test", shape=network.shape)
    images = torch.stack([digits[i][0] for i in range(200)])
    right = (network(images).argmax(1) == digits.labels[:200]).float().mean()
    assert (
        right > 0.6
    )  # other pens, an eighth of the resolution: far above chance is what to expect


@pytest.mark.data
def test_the_shipped_weights_reach_the_studys_accuracy_on_the_test_set(data_root: Path) -> None:
    network = og.load("mnist-mlp")
    test = og.data("mnist", root=data_root, split="test")
    right = 0
    for _, images, labels in test.batches(1000):
        right += int((network(images).argmax(1) == labels).sum())
    assert right >= 9806


@pytest.mark.data
def test_the_records_are_what_the_training_images_reach(data_root: Path) -> None:
    network = og.load("mnist-mlp")
    training = og.data("mnist", root=data_root, split="train")
    for name in ("fc1", "fc7"):
        unit = int(network.records[f"{name}.maximum"].argmax())
        place = int(network.records[f"{name}.image"][unit])
        value = network.read(training[place][0][None], name).layers[name][0, unit]
        assert value == pytest.approx(network.best_in_data(og.Unit(name, unit)), rel=1e-4)


def test_output_and_the_relus_share_the_records_of_the_layers_that_they_follow() -> None:
    network = og.load("mnist-mlp")
    assert network.best_in_data(og.Unit("output", 3)) == network.best_in_data(og.Unit("fc8", 3))
    assert network.best_in_data(og.Unit("relu2", 5)) == network.best_in_data(og.Unit("fc2", 5))


def test_every_listed_network_can_be_built() -> None:
    for name, description in networks():
        assert description
        if ":" not in name:
            assert og.load(name, weights="random").layers


def test_torchvision_networks_come_with_labels_normalisation_and_the_same_random_weights() -> None:
    state = torch.get_rng_state()
    network = og.load("torchvision:squeezenet1_0", weights="random")
    assert torch.equal(torch.get_rng_state(), state)
    assert network.shape == (3, 224, 224)
    assert str(network.resolve("output:Pomeranian")) == "output:259"
    assert network.fingerprint == og.load("torchvision:squeezenet1_0", weights="random").fingerprint


def test_timm_networks_are_loaded_with_their_own_size_and_normalisation() -> None:
    network = og.load("timm:test_resnet", weights="random")
    assert network.shape == (3, 160, 160)
    assert network(torch.rand(1, *network.shape)).shape == (1, 1000)


@pytest.mark.data
def test_real_photographs_are_recognised_by_the_original_googlenet(data_root: Path) -> None:
    network = og.load("googlenet-bvlc", weights=data_root / "weights/googlenet_bvlc.safetensors")
    files = sorted((data_root / "imagenet_samples").glob("*.jpg"))
    right = 0
    for index in range(0, 1000, 100):
        image = og.zoo.image_for(network, files[index])
        right += int(network(image[None]).argmax()) == index
    assert right >= 8  # 74 % over all thousand


NET = "import torch.nn as nn\nclass N(nn.Module):\n    pass\n"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mnist-mpl", "no network called 'mnist-mpl'; there is mnist-mlp"),
        ("torchvision:resnet19", "nearest: resnet18"),
        ("timm:resnet18_", "timm has no model"),
        ("nothing.py:build", "no file 'nothing.py'"),
        ("googlenet-bvlc", "comes without weights"),
    ],
)
def test_a_wrong_name_is_answered_with_what_there_is(name: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        og.load(name)


def test_a_network_of_ones_own_comes_from_a_function_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import optogram as og\nfrom torch import nn\n"
        "def module():\n    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))\n"
        "def build():\n    return og.Network(module(), (1, 2, 2))\n"
        "def bare():\n    m = module(); m.shape = (1, 2, 2); return m\n"
        "def shapeless():\n    return nn.Linear(4, 2)\n"
        "def broken():\n    raise OSError('no disk')\n"
        "def number():\n    return 3\n"
    )
    assert og.load(f"{file}:build").layer("1").units == 2
    assert og.load(f"{file}:bare").shape == (1, 2, 2)
    for function, says in [
        ("shapeless", "without a `shape`"),
        ("broken", "failed: OSError: no disk"),
        ("number", "returned a int"),
        ("absent", "has no function 'absent'; it has module, build, bare"),
    ]:
        with pytest.raises(RequestError, match=says):
            og.load(f"{file}:{function}")


def test_weights_files_that_do_not_fit_or_run_code_are_refused_in_a_sentence(
    tmp_path: Path,
) -> None:
    with pytest.raises(RequestError, match="no weights file"):
        read_weights(tmp_path / "nothing.pt")
    evil = tmp_path / "evil.pt"
    evil.write_bytes(pickle.dumps(print))
    with pytest.raises(RequestError, match=r"cannot read|run code"):
        read_weights(evil)
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(RequestError, match="run code"):
        read_weights(tmp_path / "module.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(RequestError, match="cannot read"):
        read_weights(tmp_path / "torn.safetensors")
    save_file({"fc1.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(RequestError, match=r"for another network: it lacks 'fc1.bias'"):
        og.load("mnist-mlp", weights=tmp_path / "other.safetensors")


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    state = og.load("mnist-mlp").module.state_dict()
    state = {name: tensor.clone() for name, tensor in state.items()}
    state["fc3.bias"][7] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(RequestError, match=r"'fc3.bias' of mnist-mlp hold NaN"):
        og.load("mnist-mlp", weights=tmp_path / "nan.safetensors")


def test_half_precision_and_data_parallel_names_are_widened_and_stripped(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {"module.weight": torch.ones(2, dtype=torch.float16)}}, tmp_path / "w.pt"
    )
    (weight,) = read_weights(tmp_path / "w.pt").values()
    assert weight.dtype == torch.float32
    assert list(read_weights(tmp_path / "w.pt")) == ["weight"]


def test_weights_are_checked_in_networks_that_a_file_returns_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import optogram as og\nfrom torch import nn\n"
        "def build():\n"
        "    return og.Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))\n"
    )
    save_file(
        {"1.weight": torch.full((2, 4), torch.inf), "1.bias": torch.zeros(2)}, tmp_path / "w.st"
    )
    (tmp_path / "w.st").rename(tmp_path / "w.safetensors")
    with pytest.raises(RequestError, match="hold NaN or infinity"):
        og.load(f"{tmp_path / 'mine.py'}:build", weights=tmp_path / "w.safetensors")
