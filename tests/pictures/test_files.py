"""Images in: every kind of file against pixels made by hand. Files out: whole or not at all."""

import io
import os
import signal
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from optogram.pictures import RequestError, image, write_atomically

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = COLOURS[..., 0]
LOSSLESS = ["png", "bmp", "tiff", "webp"]


def saved(folder: Path, name: str, pixels: np.ndarray | Image.Image, **options) -> Path:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(folder / name, **options)
    return folder / name


def as_planes(pixels: np.ndarray) -> torch.Tensor:
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.tensor(planes / 255.0, dtype=torch.float32)


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header promises more than the file holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_lossless_file_comes_back_as_its_pixels(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    result = image(saved(tmp_path, f"a.{suffix}", COLOURS, **options))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, as_planes(COLOURS))


def test_a_jpeg_comes_back_as_pillow_decodes_it(tmp_path):
    path = saved(tmp_path, "a.jpg", COLOURS)
    torch.testing.assert_close(image(path), as_planes(np.asarray(Image.open(path))))


def test_of_an_animation_the_first_frame_counts(tmp_path):
    first, second = Image.new("RGB", (4, 3), (255, 0, 0)), Image.new("RGB", (4, 3), (0, 255, 0))
    path = saved(tmp_path, "a.gif", first, save_all=True, append_images=[second])
    assert image(path)[:, 0, 0].tolist() == [1, 0, 0]


def test_bytes_and_pillow_images_are_images_too(tmp_path):
    path = saved(tmp_path, "a.png", COLOURS)
    torch.testing.assert_close(image(path.read_bytes()), image(path))
    torch.testing.assert_close(image(Image.fromarray(COLOURS)), image(path))


def test_an_image_knows_where_it_came_from(tmp_path):
    path = saved(tmp_path, "a.png", COLOURS)
    assert image(path).source == str(path)
    assert image(str(path)).source == str(path)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    values = np.array([[0, 1, 256], [32768, 65534, 65535]], dtype=np.uint16)
    result = image(saved(tmp_path, "a.png", values))
    torch.testing.assert_close(result, torch.tensor(values[None] / 65535, dtype=torch.float32))
    assert len(result.unique()) == 6


def test_a_palette_becomes_its_colours(tmp_path):
    picture = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    picture = picture.convert("P")
    picture.putpalette([value for i in range(256) for value in (i * 40 % 256, 255 - i, 7)])
    result = image(saved(tmp_path, "a.png", picture))
    expected = [[(i * 40 % 256) / 255, (255 - i) / 255, 7 / 255] for i in range(6)]
    torch.testing.assert_close(result.permute(1, 2, 0).reshape(6, 3), torch.tensor(expected))


def test_transparency_is_flattened_on_white(tmp_path):
    pixels = np.array([[[200, 100, 0, 0], [200, 100, 0, 255], [200, 100, 0, 51]]], dtype=np.uint8)
    result = image(saved(tmp_path, "a.png", pixels))[:, 0].T
    seen = [1.0, 1.0, 1.0], [200 / 255, 100 / 255, 0], [0.8 + 40 / 255, 0.8 + 20 / 255, 0.8]
    torch.testing.assert_close(result, torch.tensor(seen))


def test_a_transparent_grey_image_stays_grey(tmp_path):
    pixels = np.array([[[0, 0], [0, 255]]], dtype=np.uint8)
    result = image(saved(tmp_path, "a.png", Image.fromarray(pixels, "LA")))
    assert result.tolist() == [[[1.0, 0.0]]]


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "I;16"])
def test_one_transparent_colour_is_white(tmp_path, mode):
    picture = Image.new(mode, (2, 1), 0)
    picture.putpixel((1, 0), (9, 9, 9) if mode == "RGB" else 9)
    clear = (0, 0, 0) if mode == "RGB" else 0
    result = image(saved(tmp_path, "a.png", picture, transparency=clear))
    assert result[:, 0, 0].unique().tolist() == [1.0]
    assert result[:, 0, 1].max() < 0.1


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize(
    ("orientation", "corner"),
    [
        *[(1, (0, 0)), (2, (0, -1)), (3, (-1, -1)), (4, (-1, 0))],
        *[(5, (0, 0)), (6, (0, -1)), (7, (-1, -1)), (8, (-1, 0))],
    ],
)
def test_an_image_stands_upright(tmp_path, suffix, orientation, corner):
    """EXIF says where the stored first pixel belongs: its row and its column in what one sees."""
    pixels = np.full((16, 24), 255, dtype=np.uint8)
    pixels[:8, :8] = 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = image(saved(tmp_path, f"a.{suffix}", pixels, exif=exif))
    assert tuple(result.shape[1:]) == ((16, 24) if orientation < 5 else (24, 16))
    assert result[0][corner] < 0.1
    others = {(0, 0), (0, -1), (-1, 0), (-1, -1)} - {corner}
    assert all(result[0][other] > 0.9 for other in others)


def test_a_grey_image_has_one_channel_unless_three_are_asked_for(tmp_path):
    path = saved(tmp_path, "a.png", GREY)
    assert image(path).shape == (1, 6, 9)
    torch.testing.assert_close(image(path, channels=3), as_planes(GREY).repeat(3, 1, 1))


def test_equal_channels_collapse_when_one_is_asked_for(tmp_path):
    path = saved(tmp_path, "a.png", np.repeat(GREY[..., None], 3, axis=2))
    assert image(path).shape[0] == 3
    torch.testing.assert_close(image(path, channels=1), as_planes(GREY))


def test_cmyk_becomes_rgb(tmp_path):
    path = saved(tmp_path, "a.tiff", Image.new("CMYK", (3, 2), (255, 0, 0, 0)))
    assert image(path)[:, 0, 0].tolist() == [0, 1, 1]


def test_a_black_and_white_image_is_zeros_and_ones(tmp_path):
    path = saved(tmp_path, "a.png", Image.fromarray(GREY).convert("1"))
    assert set(image(path).unique().tolist()) == {0.0, 1.0}


def request_of(tmp_path: Path, case: str):
    (tmp_path / "words.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    whole = saved(tmp_path, "whole.png", COLOURS).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bomb.png").write_bytes(png_header(30_000, 30_000))
    (tmp_path / "large.png").write_bytes(png_header(10_001, 10_000))
    (tmp_path / "nothing.png").write_bytes(png_header(0, 5))
    saved(tmp_path, "float.tiff", np.float32([[0, 7]]))
    return {
        "missing": tmp_path / "absent.png",
        "folder": tmp_path,
        "colour": Image.fromarray(COLOURS),
        "channels": Image.fromarray(COLOURS),
        "zero": Image.new("L", (0, 4)),
        "list": [[0, 1]],
        "bytes": b"GIF89a",
        "nul": "a\0b.png",
    }.get(case, tmp_path / case)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing", "there is no file"),
        ("folder", "is a folder"),
        ("words.png", "is no image"),
        ("empty.png", "is no image"),
        ("half.png", "ends too early"),
        ("bomb.png", "more than 100 million pixels"),
        ("large.png", "more than 100 million pixels"),
        ("nothing.png", ""),
        ("float.tiff", "no known range"),
        ("zero", "has no pixels"),
        ("colour", "is in colour"),
        ("list", "not a list"),
        ("bytes", "these 6 bytes"),
        ("nul", "cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(tmp_path, case, words):
    source = request_of(tmp_path, case)
    with pytest.raises(RequestError) as error:
        image(source, channels=1)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_only_one_or_three_channels_can_be_asked_for():
    with pytest.raises(RequestError, match="1 or 3 channels, not 2"):
        image(Image.fromarray(COLOURS), channels=2)


def test_the_limits_of_pillow_are_left_as_they_were(tmp_path):
    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with pytest.raises(RequestError):
        image(request_of(tmp_path, "bomb.png"))
    assert before == Image.MAX_IMAGE_PIXELS
    assert filters == warnings.filters


def test_an_image_just_under_the_limit_is_read_without_a_warning():
    picture = Image.new("1", (9_500, 10_000))  # 95 million: Pillow alone would warn
    file = io.BytesIO()
    picture.save(file, "PNG")
    from optogram.pictures import files

    with files._recognized(io.BytesIO(file.getvalue()), "it") as opened:
        files._check_size(opened, "it")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
@given(share=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_refused_or_whole(suffix, share):
    """What Pillow calls truncated is refused; only a cut of mere padding may still be read."""
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, {"jpg": "jpeg"}.get(suffix, suffix))
    whole = file.getvalue()
    try:
        part = image(whole[: int(len(whole) * share)])
    except RequestError:
        return
    torch.testing.assert_close(part, image(whole))


@given(noise=st.binary(max_size=200))
def test_noise_is_never_an_image(noise):
    for head in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"RIFF"):
        with pytest.raises(RequestError):
            image(head + noise)


def test_a_users_pillow_image_is_left_as_it_was():
    picture = Image.new("RGBA", (3, 2), (1, 2, 3, 4))
    image(picture)
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGBA", (3, 2), (1, 2, 3, 4))


def test_bytes_and_functions_are_written(tmp_path):
    write_atomically(tmp_path / "a", b"whole")
    write_atomically(tmp_path / "b", lambda file: file.write(b"by hand"))
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert (tmp_path / "b").read_bytes() == b"by hand"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_who_reads_the_old_file_meanwhile_reads_it_to_its_end(tmp_path):
    (tmp_path / "a").write_bytes(b"old, and longer")
    with (tmp_path / "a").open("rb") as reader:
        write_atomically(tmp_path / "a", b"new")
        assert reader.read() == b"old, and longer"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, interruption):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def broken(file):
        file.write(b"half of the new")
        raise interruption

    with pytest.raises(interruption):
        write_atomically(path, broken)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import sys, time
from optogram.pictures.files import write_atomically
def slowly(file):
    for place in range(1_000_000):
        file.write(b"new " * 1000)
        if place == 20:
            file.flush()
            print("writing", flush=True)
            sys.stdin.readline()
write_atomically(sys.argv[1], slowly)
"""


def test_a_killed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", KILLED, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stdin=pipe) as child:
        assert child.stdout.readline() == b"writing\n"
        child.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


LOOP = """
import sys
from optogram.pictures.files import write_atomically
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        write_atomically(sys.argv[1], letter * 300_000)
        print("written", flush=True)
"""


@pytest.mark.parametrize("written", [1, 2, 5])
def test_a_writer_killed_at_any_moment_leaves_one_whole_file(tmp_path, written):
    path = tmp_path / "a"
    with subprocess.Popen([sys.executable, "-c", LOOP, str(path)], stdout=subprocess.PIPE) as child:
        for _ in range(1 + written):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    content = path.read_bytes()
    assert content in (b"a" * 300_000, b"b" * 300_000)


def test_a_new_file_has_the_rights_that_the_user_set(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    write_atomically(tmp_path / ("n" * 255), b"x")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"there is no folder .*nowhere"):
        write_atomically(tmp_path / "nowhere" / "a.png", b"x")
    with pytest.raises(RequestError, match="is a folder"):
        write_atomically(tmp_path, b"x")
