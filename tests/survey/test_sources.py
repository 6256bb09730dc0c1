import os
import struct
import zipfile
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset
from torchvision.datasets import FakeData
from torchvision.transforms import v2

from optogram.pictures.errors import RequestError
from optogram.survey import from_arrays, from_folder, from_npz, from_torch


def painted(seed, size=(6, 5), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(picture, kind="PNG"):
    file = BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def as_unit(picture):
    """Pillow's own pixels, as an oracle for ours."""
    pixels = np.asarray(picture, dtype=np.float64) / 255
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def assert_shows(image, picture):
    np.testing.assert_allclose(image.numpy(), as_unit(picture), atol=1e-7)


class TestArrays:
    def test_bytes_are_divided_by_255_when_handed_out(self):
        images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
        found = from_arrays(images)
        [(_, shown, labels)] = found.batches(4)
        np.testing.assert_array_equal(
            shown[:, 0].numpy(), images.astype(np.float32) / np.float32(255)
        )
        assert shown.dtype == torch.float32
        assert labels.tolist() == [-1] * 4

    def test_an_array_that_may_not_be_written_is_no_reason_for_a_warning(self):
        images = np.frombuffer(bytes(range(16)), np.uint8).reshape(1, 4, 4)
        assert from_arrays(images)[0][0].max() == torch.tensor(15) / 255

    @pytest.mark.parametrize("shape", [(4, 4), (0, 4, 4), (2, 3, 0, 4), (1, 2, 3, 4, 5)])
    def test_other_numbers_of_axes_and_nothing_are_refused(self, shape):
        with pytest.raises(RequestError, match="this one is"):
            from_arrays(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf])
    def test_values_outside_the_unit_range_are_refused(self, value):
        images = np.full((2, 4, 4), 0.5)
        images[1, 2, 3] = value
        with pytest.raises(RequestError, match=r"images are in \[0, 1\] here"):
            from_arrays(images)

    def test_whole_numbers_wider_than_a_byte_have_no_known_range(self):
        with pytest.raises(RequestError, match="the values of scans are int64"):
            from_arrays(np.zeros((1, 2, 2), np.int64), name="scans")

    def test_what_is_no_array_is_refused(self):
        with pytest.raises(RequestError, match="a dict cannot be read as an array"):
            from_arrays({"images": 1})

    @pytest.mark.parametrize("labels", [[0], [0, 1, 2], [[0, 1]], [0.0, 1.0]])
    def test_labels_are_one_whole_number_for_each_image(self, labels):
        with pytest.raises(RequestError, match="its labels are 2 whole numbers"):
            from_arrays(np.zeros((2, 4, 4)), labels)

    @pytest.mark.parametrize("labels", [[0, 2], [-2, 0]])
    def test_labels_stay_within_the_classes(self, labels):
        with pytest.raises(RequestError, match="has 2 classes, and labels from"):
            from_arrays(np.zeros((2, 4, 4)), labels, classes=("cat", "dog"))
        assert len(from_arrays(np.zeros((2, 4, 4)), [1, -1], classes=("cat", "dog"))) == 2


class TestFolders:
    @pytest.fixture
    def photos(self, tmp_path):
        for place in ("dog/b.png", "dog/a.PNG", "cat/deep/er/c.png", "alone.png", "zebra/z.png"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            painted(len(place)).save(tmp_path / place)
        (tmp_path / "labels.txt").write_text("no image")
        (tmp_path / "cat" / ".hidden.png").write_text("no image")
        (tmp_path / ".thumbnails").mkdir()
        painted(1).save(tmp_path / ".thumbnails" / "t.png")
        return tmp_path

    def test_images_come_in_the_order_of_their_paths_with_a_class_per_sub_folder(self, photos):
        found = from_folder(photos)
        paths = ["alone.png", "cat/deep/er/c.png", "dog/a.PNG", "dog/b.png", "zebra/z.png"]
        assert [found.caption(number) for number in range(len(found))] == paths
        assert found.classes == ("cat", "dog", "zebra")
        assert found.labels.tolist() == [-1, 0, 1, 1, 2]
        assert found.name == photos.name
        for number, path in enumerate(paths):
            assert_shows(found[number][0], painted(len(path)))
        assert not found.skipped

    def test_a_folder_without_sub_folders_has_no_classes(self, tmp_path):
        painted(0).save(tmp_path / "one.png")
        found = from_folder(tmp_path)
        assert found.classes == ()
        assert found[0][1] == -1

    def test_files_that_are_broken_are_counted_named_and_skipped(self, photos):
        whole = encoded(painted(0, (64, 64)))
        (photos / "cat" / "cut.png").write_bytes(whole[:-100])
        (photos / "dog" / "empty.jpg").write_bytes(b"")
        (photos / "dog" / "text.gif").write_text("hello")
        (photos / "dog" / "cut.jpg").write_bytes(encoded(painted(1, (64, 64)), "JPEG")[:-300])
        found = from_folder(photos)
        assert len(found) == 5
        assert list(found.skipped) == [
            "cat/cut.png",
            "dog/cut.jpg",
            "dog/empty.jpg",
            "dog/text.gif",
        ]

    def test_a_class_keeps_its_number_when_all_its_images_are_broken(self, photos):
        (photos / "dog" / "a.PNG").write_bytes(b"")
        (photos / "dog" / "b.png").write_bytes(b"")
        found = from_folder(photos)
        assert found.classes == ("cat", "dog", "zebra")
        assert found.labels.tolist() == [-1, 0, 2]

    def test_a_file_that_is_broken_in_its_middle_is_skipped_when_it_is_met(self, photos):
        whole = bytearray(encoded(painted(0, (64, 64))))
        middle = len(whole) // 2
        whole[middle : middle + 200] = bytes(200)
        (photos / "cat" / "bad.png").write_bytes(whole)
        found = from_folder(photos)
        assert len(found) == 6
        shown = [int(number) for indices, _, _ in found.batches(4) for number in indices]
        assert shown == [0, 2, 3, 4, 5]
        assert list(found.skipped) == ["cat/bad.png"]

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
    def test_every_kind_of_picture_is_read_and_noticed_when_it_is_cut_short(self, tmp_path, kind):
        content = encoded(painted(3, (50, 40)), kind)
        (tmp_path / f"whole.{kind}").write_bytes(content)
        (tmp_path / f"cut.{kind}").write_bytes(content[: len(content) // 2])
        found = from_folder(tmp_path)
        assert [found.caption(i) for i in range(len(found))] == [f"whole.{kind}"]
        assert list(found.skipped) == [f"cut.{kind}"]
        assert found[0][0].shape == (3, 40, 50)

    def test_a_jpeg_with_a_trailer_longer_than_the_tail_is_decoded_to_be_sure(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(encoded(painted(3), "JPEG") + bytes(1000))
        assert len(from_folder(tmp_path)) == 1

    @pytest.mark.parametrize("files", [{}, {"notes.txt": b"hello"}])
    def test_an_empty_folder_is_a_wrong_request(self, tmp_path, files):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        with pytest.raises(RequestError, match="has no image in it; give PNG or JPEG files"):
            from_folder(tmp_path)

    def test_so_is_one_with_broken_images_only(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"")
        with pytest.raises(
            RequestError, match="has no image in it that can be read, only 1 broken"
        ):
            from_folder(tmp_path)

    def test_and_one_that_is_not_there(self, tmp_path):
        with pytest.raises(RequestError, match=r"there is no folder '.*nowhere'"):
            from_folder(tmp_path / "nowhere")

    def test_a_link_back_up_does_not_go_round_for_ever(self, photos):
        os.symlink(photos, photos / "dog" / "up")
        assert len(from_folder(photos)) == 5

    def test_a_linked_folder_counts(self, photos, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        painted(9).save(elsewhere / "linked.png")
        os.symlink(elsewhere, photos / "yak")
        assert from_folder(photos).classes == ("cat", "dog", "yak", "zebra")

    def test_the_digest_knows_names_and_bytes_but_not_the_place(self, photos, tmp_path_factory):
        first = from_folder(photos).digest
        moved = tmp_path_factory.mktemp("other") / "name"
        photos.rename(moved)
        assert from_folder(moved).digest == first
        (moved / "dog" / "a.PNG").rename(moved / "dog" / "A.PNG")
        renamed = from_folder(moved).digest
        painted(77).save(moved / "dog" / "A.PNG")
        assert len({first, renamed, from_folder(moved).digest}) == 3

    def test_grey_and_colour_are_shown_together_when_a_shape_is_asked_for(self, tmp_path):
        painted(0).save(tmp_path / "colour.png")
        painted(1, (7, 9), "L").save(tmp_path / "grey.png")
        [(_, images, _)] = from_folder(tmp_path, shape=(3, 5, 5)).batches(2)
        assert images.shape == (2, 3, 5, 5)
        assert torch.equal(images[1, 0], images[1, 2])


def packed(**changes):
    """The arrays of a file of three images, one of them grey."""
    pictures = [painted(0), painted(1, (4, 4), "L"), painted(2, (8, 3))]
    files = [encoded(picture) for picture in pictures]
    arrays = {
        "jpeg": np.frombuffer(b"".join(files), np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "label": np.array([1, 0, 1], np.uint8),
        "split": np.array([0, 1, 0], np.uint8),
        "classes": np.array(["cat", "dog"]),
    }
    return arrays | changes


class TestNpz:
    @pytest.fixture
    def write(self, tmp_path):
        def write(arrays):
            np.savez(tmp_path / "some.npz", **arrays)
            return tmp_path / "some.npz"

        return write

    def test_images_are_decoded_when_asked_for_and_always_in_colour(self, write):
        found = from_npz(write(packed()))
        assert (len(found), found.classes, found.labels.tolist()) == (3, ("cat", "dog"), [1, 0, 1])
        assert_shows(found[0][0], painted(0))
        assert_shows(found[1][0], painted(1, (4, 4), "L").convert("RGB"))
        assert_shows(found[2][0], painted(2, (8, 3)))

    @pytest.mark.parametrize(
        ("split", "numbers"), [("train", [0, 2]), ("val", [1]), ("test", [1]), (None, [0, 1, 2])]
    )
    def test_a_split_has_its_own_images_and_labels(self, write, split, numbers):
        path = write(packed())
        whole, found = from_npz(path), from_npz(path, split=split)
        assert found.name == ("some" if split is None else f"some/{split}")
        assert found.labels.tolist() == whole.labels[numbers].tolist()
        for place, number in enumerate(numbers):
            assert torch.equal(found[place][0], whole[number][0])
            assert found.caption(place) == f"image {number} of some.npz"

    def test_an_unknown_split_is_refused_and_so_is_an_empty_one(self, write):
        with pytest.raises(RequestError, match="no split 'dev'; there is train, test, val"):
            from_npz(write(packed()), split="dev")
        with pytest.raises(RequestError, match="no image in its split 'val'"):
            from_npz(write(packed(split=np.zeros(3, int))), split="val")

    @pytest.mark.parametrize("key", ["jpeg", "offset", "label", "split", "classes"])
    def test_an_array_that_is_missing_is_named(self, write, key):
        arrays = packed()
        del arrays[key]
        with pytest.raises(RequestError, match=f"lacks {key}; a file of images has the arrays"):
            from_npz(write(arrays))

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"jpeg": np.zeros(9)}, "of another form"),
            ({"jpeg": np.zeros((9, 9), np.uint8)}, "of another form"),
            ({"offset": np.array([0.0, 1.0, 2.0, 3.0])}, "of another form"),
            ({"offset": np.array([0])}, "of another form"),
            ({"offset": np.array([], int)}, "of another form"),
            ({"label": np.array([0, 1])}, "of another form"),
            ({"label": np.array(0)}, "of another form"),
            ({"split": np.array([0, 1])}, "of another form"),
            ({"offset": np.array([-1, 5, 7, 9])}, "do not divide"),
            ({"offset": np.array([0, 7, 5, 9])}, "do not divide"),
            ({"offset": np.array([0, 7, 9, 10**9])}, "do not divide"),
            ({"offset": np.array([0, 7, 7, 9])}, "do not divide"),
            ({"label": np.array([0, 1, 2])}, "labels outside its 2 classes"),
            ({"label": np.array([0, 1, -1])}, "labels outside its 2 classes"),
        ],
    )
    def test_a_file_of_another_form_is_refused(self, write, changes, says):
        with pytest.raises(RequestError, match=says):
            from_npz(write(packed(**changes)))

    def test_nothing_is_unpickled(self, write):
        with pytest.raises(RequestError, match=r"no whole \.npz of plain arrays"):
            from_npz(write(packed(classes=np.array(["cat", {}], dtype=object))))

    def test_a_file_that_is_cut_short_or_something_else_is_refused(self, tmp_path, write):
        whole = write(packed()).read_bytes()
        np.save(tmp_path / "one.npy", np.zeros(3))
        contents = [b"", b"hello", whole[:-40], whole[: len(whole) // 2], flipped(whole)]
        for content in [*contents, (tmp_path / "one.npy").read_bytes()]:
            (tmp_path / "bad.npz").write_bytes(content)
            with pytest.raises(RequestError, match=r"no whole \.npz of plain arrays; if it was"):
                from_npz(tmp_path / "bad.npz")

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(RequestError, match=r"there is no file '.*nowhere\.npz'"):
            from_npz(tmp_path / "nowhere.npz")

    def test_an_image_that_is_broken_inside_is_named_and_skipped(self, write):
        arrays = packed()
        arrays["jpeg"] = arrays["jpeg"].copy()
        arrays["jpeg"][arrays["offset"][2] + 3 :] = 0
        found = from_npz(write(arrays))
        with pytest.raises(RequestError, match=r"image 2 of some\.npz cannot be read"):
            found[2]
        shown = [int(i) for indices, _, _ in found.fitted((3, 4, 4)).batches(2) for i in indices]
        assert shown == [0, 1]
        assert list(found.skipped) == ["image 2 of some.npz"]

    def test_the_digest_is_of_the_images_not_of_the_file(self, tmp_path, write):
        first = from_npz(write(packed())).digest
        np.savez_compressed(tmp_path / "other.npz", name="more", **packed())
        assert from_npz(tmp_path / "other.npz").digest == first
        assert from_npz(tmp_path / "other.npz", split="train").digest != first
        assert from_npz(write(packed(label=np.array([1, 1, 1])))).digest != first

    def test_the_tiny_imagenet_at_hand_is_as_its_description_says(self, data_root):
        path = data_root / "tinyimagenet20" / "tinyimagenet20.npz"
        train, val = from_npz(path, split="train"), from_npz(path, split="val")
        assert (len(train), len(val)) == (10_000, 1_000)
        assert train.labels.bincount().tolist() == [500] * 20
        assert val.labels.bincount().tolist() == [50] * 20
        assert train.classes[:2] == ("goldfish", "koala")
        [(_, images, _)] = val.batches(1000)
        assert images.shape == (1000, 3, 64, 64)
        mean = images.mean((0, 2, 3))
        torch.testing.assert_close(mean, torch.tensor([0.46, 0.436, 0.383]), atol=0.02, rtol=0)

    def test_the_photographs_at_hand_are_all_readable(self, data_root):
        found = from_folder(data_root / "imagenet_samples", shape=(3, 32, 32))
        assert (len(found), found.skipped, found.classes) == (1000, {}, ())
        assert found.caption(0) == "n01440764_tench.jpg"
        indices, images, _ = next(found.batches(8, start=990))
        assert (indices[0], images.shape) == (990, (8, 3, 32, 32))


def flipped(content):
    """A zip file with one wrong byte in the middle of its largest member."""
    with zipfile.ZipFile(BytesIO(content)) as file:
        largest = max(file.infolist(), key=lambda member: member.file_size)
    wrong = bytearray(content)
    wrong[largest.header_offset + largest.file_size // 2] ^= 0xFF
    return bytes(wrong)


class Listed(Dataset):
    def __init__(self, items, **attributes):
        self.items = items
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


class TestTorch:
    def test_pillow_images_and_their_labels_are_taken(self):
        theirs = FakeData(4, (3, 6, 8), num_classes=5)
        found = from_torch(theirs)
        assert len(found) == 4
        for number in range(4):
            picture, label = theirs[number]
            assert_shows(found[number][0], picture)
            assert found[number][1] == int(label)

    def test_tensors_of_bytes_and_of_floats_are_the_same_images(self):
        pixels = torch.arange(60, dtype=torch.uint8).reshape(2, 1, 5, 6)
        labels = torch.tensor([4, 2])
        as_bytes = from_torch(TensorDataset(pixels, labels))
        as_floats = from_torch(TensorDataset(pixels / 255, labels))
        assert torch.equal(as_bytes[1][0], as_floats[1][0])
        assert as_bytes.labels.tolist() == [4, 2]
        assert as_bytes.digest == as_floats.digest

    def test_an_array_without_channels_and_an_item_without_label(self):
        found = from_torch(Listed([np.full((2, 3), 0.5), np.ones((2, 3))]))
        assert found[1][0].shape == (1, 2, 3)
        assert found.labels.tolist() == [-1, -1]

    def test_a_label_that_is_no_whole_number_is_not_known(self):
        image = torch.zeros(1, 2, 2)
        labels = [{"boxes": []}, "cat", 1.5, None, 7, np.int64(8), np.array(9), torch.tensor(3)]
        found = from_torch(Listed([(image, label) for label in labels]))
        assert found.labels.tolist() == [-1, -1, -1, -1, 7, 8, 9, 3]

    def test_targets_and_classes_are_believed_so_that_no_image_is_decoded_for_them(self):
        class Unread(Listed):
            def __getitem__(self, number):
                raise AssertionError("read")

        found = from_torch(Unread([0, 0], targets=[1, 0], classes=["cat", "dog"]))
        assert (found.labels.tolist(), found.classes) == ([1, 0], ("cat", "dog"))

    @pytest.mark.parametrize(
        ("item", "says"),
        [
            (torch.full((1, 2, 2), 1.5), "normalising them is left to the Network"),
            (torch.zeros(1, 2, 2, 2), r"image 0 of Listed has the shape \(1, 2, 2, 2\)"),
            (torch.zeros(1, 2, 2, dtype=torch.int32), "are int32"),
            (17, "image 0 of Listed cannot be read: an image is"),
        ],
    )
    def test_an_item_that_is_no_image_is_refused(self, item, says):
        with pytest.raises(RequestError, match=says):
            from_torch(Listed([item]))[0]

    def test_an_empty_set_and_one_without_end_are_refused(self):
        with pytest.raises(RequestError, match="Listed is empty"):
            from_torch(Listed([]))

        class Stream(IterableDataset):
            def __iter__(self):
                return iter(())

        with pytest.raises(RequestError, match="Stream cannot be asked for its n-th image"):
            from_torch(Stream())

    def test_a_set_that_normalises_says_that_it_must_not(self):
        normalise = v2.Compose(
            [v2.PILToTensor(), v2.ToDtype(torch.float32), v2.Normalize([0], [1])]
        )
        found = from_torch(FakeData(1, (1, 4, 4), transform=normalise))
        with pytest.raises(RequestError, match="the values of image 0 of FakeData reach from"):
            found[0]


def test_a_png_that_would_unpack_to_gigapixels_is_skipped(tmp_path):
    painted(0).save(tmp_path / "good.png")
    size = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        check = struct.pack(">I", zlib.crc32(kind + body))
        content += struct.pack(">I", len(body)) + kind + body + check
    (tmp_path / "bomb.png").write_bytes(content)
    found = from_folder(tmp_path)
    assert [len(indices) for indices, _, _ in found.batches(2)] == [1]
    assert list(found.skipped) == ["bomb.png"]
