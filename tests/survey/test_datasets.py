import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from optogram.pictures.errors import RequestError
from optogram.survey import fit, from_arrays
from optogram.survey.datasets import ImageSet


def listed(images, broken=(), **settings):
    """A set whose images are read one by one, as from files, some of which are broken."""

    def read(numbers):
        for number in numbers:
            if number in broken:
                raise RequestError(f"{number} is broken")
        return [images[number] for number in numbers]

    def content():
        for image in images:
            yield image.numpy().tobytes()

    labels = torch.arange(len(images))
    return ImageSet("listed", (), labels, read, content, lambda i: f"picture {i}", **settings)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_an_image_is_given_with_its_label_and_can_be_counted_from_the_end():
    images = noise(4, 3, 5, 6)
    found = from_arrays(images, [3, 2, 1, 0])
    for number in range(4):
        image, label = found[number]
        assert torch.equal(image, images[number])
        assert label == 3 - number
    assert torch.equal(found[-1][0], images[3])
    assert torch.equal(found[np.int64(1)][0], images[1])


@pytest.mark.parametrize("number", [4, -5])
def test_there_is_no_image_beyond_the_ends_so_that_a_for_loop_ends(number):
    found = from_arrays(noise(4, 3, 5, 6))
    with pytest.raises(IndexError, match=r"arrays has 4 images, and no number"):
        found[number]
    assert len(list(found)) == 4


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 9), st.none() | st.integers(0, 12))
def test_batches_cut_the_set_without_gap_or_overlap(count, size, start, stop):
    images = noise(count, 1, 2, 2)
    batches = list(from_arrays(images, range(count)).batches(size, start=start, stop=stop))
    numbers = [int(number) for indices, _, _ in batches for number in indices]
    assert numbers == list(range(count))[start:stop]
    assert all(len(indices) == size for (indices, _, _), _ in pairwise(batches))
    for indices, shown, labels in batches:
        assert torch.equal(shown, images[indices])
        assert torch.equal(labels, indices)


def test_a_batch_of_nobody_is_refused():
    with pytest.raises(RequestError, match="at least 1 image, not 0"):
        next(from_arrays(noise(2, 1, 2, 2)).batches(0))


def test_images_are_taken_in_the_order_asked_for_and_as_often():
    images = noise(4, 1, 2, 2)
    shown, labels = from_arrays(images, [10, 11, 12, 13]).take(torch.tensor([3, 0, 3]))
    assert torch.equal(shown, torch.stack([images[3], images[0], images[3]]))
    assert labels.tolist() == [13, 10, 13]


def test_a_batch_leaves_out_what_cannot_be_read_and_names_it():
    images = noise(5, 1, 2, 2)
    found = listed(images, broken={1, 4})
    shown = [(indices.tolist(), labels.tolist()) for indices, _, labels in found.batches(2)]
    assert shown == [([0], [0]), ([2, 3], [2, 3])]
    assert found.skipped == {"picture 1": "1 is broken", "picture 4": "4 is broken"}
    assert len(found) == 5


def test_one_image_that_cannot_be_read_is_an_error_when_it_is_asked_for():
    with pytest.raises(RequestError, match="1 is broken"):
        listed(noise(2, 1, 2, 2), broken={1})[1]


def test_images_of_several_shapes_need_one_to_be_asked_for():
    found = listed([noise(3, 4, 4), noise(3, 4, 5)])
    with pytest.raises(RequestError, match=r"picture 0 is \(3, 4, 4\), picture 1 is \(3, 4, 5\)"):
        list(found.batches(2))
    [(_, images, _)] = found.fitted((3, 2, 2)).batches(2)
    assert images.shape == (2, 3, 2, 2)


def test_a_colour_image_among_grey_ones_is_named_not_skipped():
    found = listed([noise(1, 4, 4), noise(3, 4, 4)], shape=(1, 4, 4))
    with pytest.raises(RequestError, match="picture 1: an image of 3 channels cannot be shown"):
        list(found.batches(2))
    assert not found.skipped


def test_an_image_is_the_same_alone_and_in_a_batch():
    images = (noise(6, 3, 40, 50) * 255).to(torch.uint8)
    found = from_arrays(images, shape=(3, 17, 19))
    [(_, together, _)] = found.batches(6)
    for number in range(6):
        assert torch.equal(found[number][0], together[number])


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 24),
    st.sampled_from([1, 3]),
    st.booleans(),
)
def test_a_square_fits_as_torchvision_resizes_and_crops(rows, columns, size, channels, batch):
    image = noise(*([2] if batch else []), channels, rows, columns)
    theirs = v2.functional.resize(image, [size], antialias=True)
    theirs = v2.functional.center_crop(theirs, [size, size])
    torch.testing.assert_close(fit(image, (channels, size, size)), theirs, atol=1e-6, rtol=0)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 30), st.integers(1, 30))
def test_whatever_comes_in_the_shape_asked_for_comes_out(rows, columns, height, width):
    fitted = fit(noise(1, rows, columns), (3, height, width))
    assert fitted.shape == (3, height, width)
    assert 0 <= fitted.min() <= fitted.max() <= 1


def test_nothing_is_stretched():
    """A disc twice as large stays a disc, and its middle stays in the middle."""
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(80.0), indexing="ij")
    disc = ((rows - 19.5) ** 2 + (columns - 39.5) ** 2 < 100).float()[None]
    fitted = fit(disc, (1, 80, 60))[0]
    rows, columns = torch.nonzero(fitted > 0.5).unbind(1)
    assert rows.min() + rows.max() == 79
    assert columns.min() + columns.max() == 59
    assert rows.max() - rows.min() == columns.max() - columns.min()
    assert 38 <= rows.max() - rows.min() <= 40


def test_an_image_of_the_right_shape_is_left_alone():
    image = noise(3, 7, 9)
    assert torch.equal(fit(image, (3, 7, 9)), image)
    assert torch.equal(fit(image, (3, 7, 5)), image[:, :, 2:7])


def test_a_grey_image_is_repeated_in_colour():
    image = noise(1, 4, 4)
    assert torch.equal(fit(image, (3, 4, 4)), torch.cat([image] * 3))


def test_a_colour_image_is_grey_only_where_its_channels_are_equal():
    image = noise(1, 4, 4)
    assert torch.equal(fit(torch.cat([image] * 3), (1, 4, 4)), image)
    with pytest.raises(RequestError, match="3 channels cannot be shown where 1 is wanted"):
        fit(noise(3, 4, 4), (1, 4, 4))
    with pytest.raises(RequestError, match="4 channels cannot be shown where 3 are wanted"):
        fit(noise(4, 4, 4), (3, 4, 4))


@pytest.mark.parametrize("shape", [(0, 2, 2), (3, 2, -1)])
def test_a_shape_has_three_sizes_of_at_least_one(shape):
    with pytest.raises(RequestError, match="channels, height, width"):
        from_arrays(noise(2, 1, 2, 2), shape=shape)


def test_the_digest_is_the_hash_of_all_that_is_handed_out():
    images = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    head = b'{"classes": ["a"], "shape": null, "images": 1}'
    content = head + bytes(8) + b"arrays;torch.uint8;(1, 1, 2, 2);" + bytes([0, 1, 2, 255])
    found = from_arrays(images, [0], classes=("a",), name="whatever")
    assert found.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_the_digest_knows_every_change_but_the_name():
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    changed = images.copy()
    changed[1, 3, 3] += 1
    first = from_arrays(images, [0, 1], classes="ab")
    assert from_arrays(images.copy(), [0, 1], classes="ab", name="other").digest == first.digest
    others = [
        from_arrays(changed, [0, 1], classes="ab"),
        from_arrays(images, [1, 1], classes="ab"),
        from_arrays(images, [0, 1], classes="ac"),
        from_arrays(images, [0, 1], classes="ab", shape=(1, 4, 4)),
        from_arrays(images.reshape(2, 2, 8), [0, 1], classes="ab"),
        from_arrays(images[:1], [0], classes="ab"),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 7


def test_a_set_fitted_anew_has_a_digest_of_its_own():
    found = from_arrays(noise(2, 1, 4, 4))
    before = found.digest
    assert found.fitted((1, 2, 2)).digest != before
    assert found.fitted((1, 2, 2)).fitted(None).digest == before


def test_a_set_says_how_it_is_found_again():
    found = from_arrays(noise(2, 1, 4, 4), name="mine")
    assert found.recipe() == {"data": "mine", "split": "", "digest": found.digest}
