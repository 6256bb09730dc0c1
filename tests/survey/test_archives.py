"""Images from tar files and object stores are the same set, wherever they lie."""

import io
import tarfile

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

import optogram as og
from optogram.atlas import verify
from optogram.pictures.errors import RequestError
from optogram.survey import as_images, from_folder, from_store, from_tar
from optogram.zoo import data
from tests.survey.small import LAYERS, network

COUNT = 11


def png(number):
    pixels = np.random.default_rng(number).integers(0, 255, (10, 10), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def add(tar, name, content):
    about = tarfile.TarInfo(name)
    about.size = len(content)
    tar.addfile(about, io.BytesIO(content))


def archive(first, stop, labels=True):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(first, stop):
            add(tar, f"part/{number:04d}.json", b"{}")
            add(tar, f"part/{number:04d}.png", png(number))
            if labels:
                add(tar, f"part/{number:04d}.cls", str(number % 3).encode())
    return file.getvalue()


@pytest.fixture
def tars(tmp_path):
    for number, (first, stop) in enumerate([(0, 4), (4, 5), (5, COUNT)]):
        (tmp_path / f"shard-{number:03d}.tar").write_bytes(archive(first, stop))
    return tmp_path


@pytest.fixture
def store():
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/bucket/{n % 2}/{n:04d}.png": png(n) for n in range(COUNT)})
    memory.pipe({"/tars/a-0.tar": archive(0, 6), "/tars/a-1.tar": archive(6, COUNT)})
    yield memory
    memory.store.clear()


def expected(number):
    return torch.from_numpy(np.array(Image.open(io.BytesIO(png(number))))).float()[None] / 255


@pytest.mark.parametrize(
    "pattern", ["shard-{000..002}.tar", "shard-*.tar", "shard-0{0..0}{0..2}.tar"]
)
def test_every_image_of_tar_files_is_had_by_its_number(tars, pattern):
    found = from_tar(str(tars / pattern))
    assert len(found) == COUNT
    assert found.classes == ("0", "1", "2")
    for number in (COUNT - 1, 0, 4, 5):
        image, label = found[number]
        assert torch.equal(image, expected(number))
        assert label == number % 3
    assert found.caption(4) == "shard-001.tar/part/0004.png"
    shown = torch.cat([images for _, images, _ in found.batches(4)])
    assert torch.equal(shown, torch.stack([expected(n) for n in range(COUNT)]))


def test_the_same_files_have_the_same_hash_wherever_they_lie(tars, store):
    for path in tars.glob("*.tar"):
        store.pipe(f"/copy/{path.name}", path.read_bytes())
    here, there = from_tar(str(tars / "shard-*.tar")), from_tar("memory://copy/shard-*.tar")
    assert here.digest == there.digest
    store.pipe("/copy/shard-001.tar", archive(6, 7))
    assert from_tar("memory://copy/shard-*.tar").digest != here.digest


def test_an_object_store_is_read_as_a_folder(tmp_path, store):
    for path in store.find("/bucket"):
        file = tmp_path / "bucket" / path.removeprefix("/bucket/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.cat_file(path))
    here = from_folder(tmp_path / "bucket")
    for url in ("memory://bucket", f"file://{tmp_path}/bucket"):
        there = from_store(url)
        assert there.classes == here.classes == ("0", "1")
        assert torch.equal(there.labels, here.labels)
        assert there.digest == here.digest
        assert torch.equal(there[7][0], here[7][0])


def test_they_are_data_by_name(tars, store, monkeypatch):
    monkeypatch.setenv("OPTOGRAM_DATA", str(tars))
    assert len(data("shard-{000..002}.tar")) == COUNT
    assert len(data("memory://bucket", shape=(1, 10, 10))) == COUNT
    assert len(as_images("memory://tars/a-*.tar")) == COUNT
    assert data("memory://tars/a-1.tar").recipe()["data"] == "memory://tars/a-1.tar"


def test_a_survey_and_an_atlas_of_tar_files_are_those_of_a_folder(tars, tmp_path, store):
    shown = torch.stack([expected(n) for n in range(COUNT)])
    plain = og.survey(network(), shown, LAYERS)
    found = og.survey(network(), "memory://tars/a-{0..1}.tar", LAYERS)
    for name in LAYERS:
        assert torch.equal(found.part.layers[name].top.images, plain.part.layers[name].top.images)
    asked = {"layers": "fc1", "pictures": []}
    made = og.atlas.build(network(), str(tars / "shard-*.tar"), tmp_path / "a", **asked)
    assert verify(made.folder).clean
    assert (
        made.manifest
        == og.atlas.build(
            network(), str(tars / "shard-{000..002}.tar"), tmp_path / "b", **asked
        ).manifest
    )


def test_an_image_that_is_broken_is_left_out_and_named(store):
    store.pipe("/bucket/0/0099.png", b"no image")
    found = from_store("memory://bucket")
    assert sum(len(numbers) for numbers, _, _ in found.batches(4)) == COUNT
    assert list(found.skipped) == ["0/0099.png"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.tar", "there is no file"),
        ("nothing-*.tar", "no file matches"),
        ("nothing-{3..1}.tar", "should count up"),
        ("cut.tar", "no whole tar file"),
        ("text.tar", "no whole tar file"),
        ("packed.tar.gz", "is compressed"),
        ("empty.tar", "holds no image"),
        ("labels.tar", "should hold a label's number, not 'cat'"),
    ],
)
def test_what_is_no_use_is_said_in_a_sentence(tmp_path, name, said):
    whole = archive(0, 3)
    (tmp_path / "cut.tar").write_bytes(whole[:1700])
    (tmp_path / "text.tar").write_bytes(b"hello " * 300)
    (tmp_path / "packed.tar.gz").write_bytes(b"")
    for kind, members in (("empty", []), ("labels", [("0.cls", b"cat"), ("0.png", png(0))])):
        with tarfile.open(tmp_path / f"{kind}.tar", "w") as tar:
            for member, content in members:
                add(tar, member, content)
    with pytest.raises(RequestError, match=said) as found:
        data(str(tmp_path / name))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://nowhere", "there is no image at"),
        ("nonsense://bucket", "cannot be reached"),
        ("s3://bucket/photos", "needs what is not installed.*s3fs"),
    ],
)
def test_an_address_without_images_is_said_in_a_sentence(url, said):
    if url.startswith("s3"):
        try:
            import s3fs  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("s3fs is installed")
    with pytest.raises(RequestError, match=said):
        data(url)
