import gzip
import hashlib
import importlib
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits, load_sample_image
from torchvision import datasets

from optogram.pictures.errors import RequestError
from optogram.survey import from_folder
from optogram.zoo.data import MNIST_FILES, PHOTOS, data


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch, tmp_path_factory):
    """No data but what a test lays out, and no download."""
    monkeypatch.delenv("OPTOGRAM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))

    def download(*arguments, **settings):
        raise RuntimeError("there is no network here:\nsecond line")

    monkeypatch.setattr(datasets, "MNIST", download)


def idx(array):
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(folder, *, packed=True):
    """Seven images to train on and three to test, and what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, count in (("train", 7), ("test", 3)):
        random = np.random.default_rng(count)
        arrays = random.integers(0, 256, (count, 28, 28)), random.integers(0, 10, count)
        for name, array in zip(MNIST_FILES[split], arrays, strict=True):
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
        written[split] = arrays
    return written


class TestMnist:
    @pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
    @pytest.mark.parametrize("packed", [True, False])
    @pytest.mark.parametrize("split", ["train", "test", "val"])
    def test_its_files_are_found_and_read(self, tmp_path, folder, packed, split):
        written = write_mnist(tmp_path / folder, packed=packed)
        images, labels = written["train" if split == "train" else "test"]
        found = data("mnist", root=tmp_path, split=split)
        shown, numbers = found.take(torch.arange(len(found)))
        np.testing.assert_allclose(shown[:, 0].numpy(), images / 255, atol=1e-7)
        assert numbers.tolist() == labels.tolist()
        assert found.classes == tuple("0123456789")

    def test_they_are_found_in_the_environment_s_folder_but_the_root_goes_first(
        self, tmp_path, monkeypatch
    ):
        here, there = write_mnist(tmp_path / "here"), write_mnist(tmp_path / "there" / "mnist")
        assert len(here["train"][0]) == len(there["train"][0])
        (tmp_path / "there" / "mnist" / f"{MNIST_FILES['train'][1]}.gz").write_bytes(
            gzip.compress(idx(np.full(7, 9)))
        )
        monkeypatch.setenv("OPTOGRAM_DATA", str(tmp_path / "there"))
        assert data("mnist").labels.tolist() == [9] * 7
        assert data("mnist", root=tmp_path / "here").labels.tolist() == list(here["train"][1])
        assert data("mnist", root=tmp_path / "nowhere").labels.tolist() == [9] * 7

    def test_offline_and_without_them_one_sentence_says_where_they_go(self, tmp_path, capfd):
        with pytest.raises(RequestError) as caught:
            data("mnist", root=tmp_path)
        said = str(caught.value)
        assert f"MNIST is not under '{tmp_path}' and cannot be downloaded" in said
        assert "(there is no network here)" in said
        assert "t10k-labels-idx1-ubyte.gz into" in said
        assert f"'{tmp_path / 'mnist'}'" in said
        assert "\n" not in said
        assert capfd.readouterr() == ("", "")

    def test_what_torchvision_downloads_is_read_and_its_chatter_is_not_passed_on(
        self, tmp_path, monkeypatch, capfd
    ):
        def download(root, *, train, download):
            assert download
            print("Downloading ...")
            write_mnist(root / "MNIST" / "raw", packed=not train)

        monkeypatch.setattr(datasets, "MNIST", download)
        assert len(data("mnist", root=tmp_path)) == 7
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (lambda whole: whole[:-20], "is cut short or broken"),
            (lambda whole: b"<html>", "is cut short or broken"),
            (lambda whole: whole[:30] + b"xx" + whole[32:], "is cut short or broken"),
            (lambda whole: b"", "is no IDX file of bytes with 3 axes"),
            (lambda whole: gzip.compress(idx(np.zeros(7))), "is no IDX file of bytes with 3 axes"),
            (lambda whole: gzip.compress(b"\0\0\x0d\3" + bytes(12)), "is no IDX file of bytes"),
            (lambda whole: gzip.compress(b"\0\0\x08\3"), "is no IDX file of bytes"),
            (
                lambda whole: gzip.compress(idx(np.zeros((7, 28, 28)))[:-1]),
                "promises 7 x 28 x 28 bytes and has 5487",
            ),
            (lambda whole: gzip.compress(idx(np.zeros((6, 28, 28)))), "hold 6 images, 7 labels"),
        ],
    )
    def test_a_broken_file_is_named(self, tmp_path, damage, says):
        write_mnist(tmp_path)
        path = tmp_path / f"{MNIST_FILES['train'][0]}.gz"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(RequestError, match=says):
            data("mnist", root=tmp_path)

    def test_the_real_one_is_as_published(self, data_root):
        counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        train, test = (data("mnist", root=data_root, split=one) for one in ("train", "test"))
        assert train.labels.bincount().tolist() == counts
        assert len(test) == 10_000
        official = "f68b3c2dcbeaaa9fbdd348bbdeb94873"
        packed = data_root / "mnist" / "train-images-idx3-ubyte.gz"
        assert hashlib.md5(packed.read_bytes()).hexdigest() == official
        pixels = gzip.decompress(packed.read_bytes())[16:]
        image = np.frombuffer(pixels, np.uint8)[784 * 59_999 :].reshape(28, 28) / 255
        np.testing.assert_allclose(train[59_999][0][0].numpy(), image, atol=1e-7)


class TestDigits:
    def test_they_are_all_there_each_in_one_split(self):
        train, test = data("digits"), data("digits", split="test")
        assert (len(train), len(test)) == (1297, 500)
        labels = load_digits().target
        assert torch.cat([train.labels, test.labels]).tolist() == labels.tolist()
        assert data("digits", split="val").digest == test.digest != train.digest

    def test_they_are_centred_in_a_box_as_mnist_is(self):
        images, _ = data("digits").take(torch.arange(1297))
        assert images.shape == (1297, 1, 28, 28)
        rows = torch.arange(28.0)
        mass = images.sum((1, 2, 3))
        for axis in (2, 3):
            profile = images.sum((1, 5 - axis))
            centre = (profile * rows).sum(1) / mass
            assert (centre - 13.5).abs().max() <= 0.6
            inked = [torch.nonzero(one).flatten() for one in profile]
            assert max(int(one[-1] - one[0]) for one in inked) < 20

    def test_they_have_as_much_ink_as_mnist(self):
        """MNIST's first 20,000: mean norm 9.25, 17.5 % of pixels above 0.1, 8.9 % above 0.9."""
        images, _ = data("digits").take(torch.arange(1297))
        assert images.flatten(1).norm(dim=1).mean() == pytest.approx(9.25, abs=0.5)
        assert (images > 0.1).float().mean() == pytest.approx(0.175, abs=0.01)
        assert (images > 0.9).float().mean() == pytest.approx(0.089, abs=0.01)

    def test_each_is_the_one_of_scikit_learn_enlarged_by_pillow(self):
        images, _ = data("digits").take(torch.arange(100))
        for drawn, glyph in zip(images[:, 0].numpy(), load_digits().images, strict=False):
            picture = Image.fromarray((glyph / 16).astype(np.float32))
            large = np.asarray(picture.resize((20, 20), Image.Resampling.BICUBIC))
            large = ((large - 0.4) / 0.4).clip(0, 1)
            windows = np.lib.stride_tricks.sliding_window_view(drawn, (20, 20))
            assert np.abs(windows - large).mean((2, 3)).min() < 0.03

    def test_the_shipped_network_reads_most_of_them(self):
        home = importlib.import_module("optogram.zoo.mnist_mlp")
        shipped = importlib.resources.files("optogram.zoo") / "shipped" / "mnist-mlp.safetensors"
        module = home.mnist_mlp().eval()
        module.load_state_dict({key: value.float() for key, value in load_file(shipped).items()})
        found = data("digits", split="test")
        images, labels = found.take(torch.arange(500))
        with torch.no_grad():
            right = (module(images).argmax(1) == labels).float().mean()
        assert right > 0.85  # 0.884 when the weights were made; another hand, another country


class TestPhotos:
    def test_there_are_ten_in_colour_each_of_its_own_size(self):
        found = data("photos")
        assert len(found) == len(PHOTOS) == 10
        sizes = {tuple(found[number][0].shape) for number in range(10)}
        assert (3, 300, 451) in sizes
        assert (3, 427, 640) in sizes
        for number in range(10):
            image = found[number][0]
            assert image.shape[0] == 3
            assert 0 <= image.min() < 0.1 < 0.9 < image.max() <= 1
            assert (image[0] != image[2]).any()

    def test_they_are_those_of_the_libraries(self):
        found = data("photos")
        names = [found.caption(number) for number in range(10)]
        image = found[names.index("flower")][0]
        theirs = load_sample_image("flower.jpg").transpose(2, 0, 1) / 255
        np.testing.assert_allclose(image.numpy(), theirs, atol=1e-7)

    def test_they_are_shown_together_in_one_shape(self):
        [(indices, images, labels)] = data("photos", shape=(3, 32, 48)).batches(10)
        assert images.shape == (10, 3, 32, 48)
        assert indices.tolist() == list(range(10))
        assert labels.tolist() == [-1] * 10

    def test_their_digest_is_always_the_same(self):
        assert data("photos").digest == data("photos", split="test").digest


class TestByPath:
    @pytest.fixture
    def animals(self, tmp_path):
        for place in ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png"):
            (tmp_path / "animals" / place).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (len(place), int(place[-5]), 0)).save(
                tmp_path / "animals" / place
            )
        return tmp_path / "animals"

    @pytest.mark.parametrize("split", ["test", "val"])
    def test_a_folder_with_splits_gives_one_of_them(self, animals, split):
        found = data(animals, split=split)
        assert [found.caption(number) for number in range(len(found))] == ["cat/3.png"]
        assert len(data(animals)) == 2
        assert data(animals).classes == ("cat", "dog")

    def test_a_folder_without_is_taken_whole(self, animals):
        (animals / "val").rename(animals / "more")
        assert data(animals).classes == ("more", "train")
        assert data(animals, split="test").digest == from_folder(animals).digest

    def test_a_class_that_is_called_test_is_no_split(self, animals):
        (animals / "val").rename(animals / "test")
        (animals / "train").rename(animals / "exam")
        assert data(animals).classes == ("exam", "test")

    def test_a_path_is_also_looked_for_under_the_root(self, animals, monkeypatch):
        assert len(data("animals", root=animals.parent)) == 2
        monkeypatch.setenv("OPTOGRAM_DATA", str(animals.parent))
        assert len(data("animals/train/dog")) == 1

    def test_an_npz_is_read_in_its_splits(self, animals):
        content = (animals / "train" / "cat" / "1.png").read_bytes()
        np.savez(
            animals / "a.npz",
            jpeg=np.frombuffer(content * 2, np.uint8),
            offset=np.array([0, len(content), 2 * len(content)]),
            label=np.array([1, 0]),
            split=np.array([0, 1]),
            classes=np.array(["a", "b"]),
        )
        assert data(animals / "a.npz").labels.tolist() == [1]
        assert data(animals / "a.npz", split="test").labels.tolist() == [0]

    @pytest.mark.parametrize("spec", ["mnits", "", "nowhere/at/all", "pyproject.toml"])
    def test_what_is_unknown_is_refused_with_what_there_is(self, spec):
        with pytest.raises(RequestError) as caught:
            data(spec)
        assert f"no data called {spec!r}; there is digits, photos, mnist" in str(caught.value)

    @pytest.mark.parametrize("spec", ["digits", "photos", "mnist", "some/folder"])
    def test_an_unknown_split_is_refused(self, spec):
        with pytest.raises(RequestError, match="has no split 'dev'; there is train and test"):
            data(spec, split="dev")


class TestTorchvision:
    def test_a_set_is_made_with_what_it_takes(self):
        found = data("torchvision:FakeData", shape=(3, 8, 8))
        theirs = datasets.FakeData()
        assert len(found) == len(theirs) == 1000
        assert found[5][0].shape == (3, 8, 8)
        assert int(theirs[5][1]) == found[5][1]
        assert found.name == "torchvision:FakeData/train"

    def test_one_that_is_there_is_not_downloaded(self, tmp_path, monkeypatch):
        """Its files as torchvision unpacks them; a download would raise."""

        def download(self):
            raise AssertionError("downloaded")

        written = write_mnist(tmp_path / "FashionMNIST" / "raw", packed=False)
        monkeypatch.setattr(datasets.FashionMNIST, "download", download)
        found = data("torchvision:FashionMNIST", root=tmp_path, split="test")
        assert found.labels.tolist() == list(written["test"][1])
        np.testing.assert_allclose(found[2][0][0].numpy(), written["test"][0][2] / 255, atol=1e-7)

    def test_one_that_can_not_be_had_says_why(self, tmp_path, monkeypatch):
        def download(self):
            raise OSError("no network\nmore")

        monkeypatch.setattr(datasets.FashionMNIST, "download", download)
        with pytest.raises(RequestError, match=r"cannot be had with split='test' .*: no network$"):
            data("torchvision:FashionMNIST", root=tmp_path, split="test")

    def test_a_split_it_does_not_know_is_refused_in_its_own_words(self, tmp_path):
        with pytest.raises(RequestError, match="torchvision:STL10 cannot be had with split='dev'"):
            data("torchvision:STL10", root=tmp_path, split="dev")

    def test_one_that_is_only_a_pattern_for_others_is_refused(self):
        with pytest.raises(RequestError, match="torchvision:VisionDataset cannot be had"):
            data("torchvision:VisionDataset")

    @pytest.mark.parametrize("name", ["Cifar", "", "wrap_dataset_for_transforms_v2", "os"])
    def test_a_name_it_does_not_have_is_refused(self, name):
        with pytest.raises(RequestError, match=f"no data set '{name}'; there is .*CIFAR10"):
            data(f"torchvision:{name}")


def test_a_set_remembers_by_which_name_it_is_found_again():
    found = data("digits", split="test", shape=(1, 14, 14))
    recipe = found.recipe()
    assert recipe == {"data": "digits", "split": "test", "digest": found.digest}
    again = data(recipe["data"], split=recipe["split"], shape=(1, 14, 14))
    assert again.digest == recipe["digest"]
