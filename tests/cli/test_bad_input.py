"""Each way to ask for what cannot be done: one sentence, exit code 2, and nothing written."""

import struct
import zlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *more: bytes, pixels: bytes = b"") -> bytes:
    """A PNG of one bit a pixel, written by hand."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def all_black(width: int, height: int) -> bytes:
    """A whole file: every row is a filter byte and zeros, and zeros pack a thousandfold."""
    packer = zlib.compressobj()
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(height))
    return png(width, height, pixels=rows + packer.flush())


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path):
    """Whatever is refused leaves no file, nor a part of one."""
    yield
    left = [path.name for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".webp", ".html")]
    assert left == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mnist-mpl", "mnist-mlp"),
        ("torchvision:resnet19", "resnet18"),
        ("nowhere.py:build", "nowhere.py"),
        ("", "mnist-mlp"),
    ],
)
def test_an_unknown_network(refused, name, hint):
    said = refused("maximize", name, "output:0", "-o", "x.webp")
    assert repr(name.partition(":")[2] or name) in said or name.partition(":")[0] in said
    assert hint in said


def test_a_function_that_the_file_has_not(refused, file):
    assert "grey" in refused("layers", f"{file}:gray")


@pytest.mark.parametrize(
    ("unit", "hint"),
    [
        ("11:0", "'11'"),
        ("0:4", "0 to 3"),
        ("0:0-4", "0 to 3"),
        ("0:0@6,0", "6 x 6"),
        ("0:0@strong", "strongest"),
        ("output:dgo", "dog"),
        ("output:3", "0 to 2"),
        ("0:cat", "0 to 3"),
        ("conv*:*", "conv"),
        ("", "''"),
    ],
)
def test_an_unknown_layer_unit_place_or_label(refused, grey, unit, hint):
    assert hint in refused("maximize", grey, unit, "-o", "x.webp")


def test_a_target_on_a_layer_that_is_not_there(refused, grey, image):
    assert "'11'" in refused("saliency", grey, image, "11:0", "-o", "x.webp")


def test_a_layer_that_is_not_there(refused, grey):
    assert "'11'" in refused("filters", grey, "11", "-o", "x.webp")


def test_an_image_file_that_is_not_there(refused, grey):
    assert "there is no file 'gone.png'" in refused("saliency", grey, "gone.png", "0:0", "--json")


def test_a_file_that_is_no_image(refused, grey, file):
    assert "no image" in refused("saliency", grey, file, "0:0", "-o", "x.webp")


def test_an_image_that_ends_too_early(refused, grey, image):
    image.write_bytes(image.read_bytes()[:-40])
    assert "broken" in refused("saliency", grey, image, "0:0", "-o", "x.webp")


def test_a_folder_for_an_image(refused, grey, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "'empty' is a folder" in refused("saliency", grey, "empty", "0:0", "-o", "x.webp")


def test_a_colour_image_for_a_grey_network(refused, grey, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    assert "colour" in refused("saliency", grey, "red.png", "0:0", "-o", "x.webp")


def test_a_zip_bomb(refused, grey, tmp_path):
    bomb = all_black(20_000, 20_000)
    assert len(bomb) < 100_000
    (tmp_path / "bomb.png").write_bytes(bomb)
    assert "million pixels" in refused("saliency", grey, "bomb.png", "0:0", "-o", "x.webp")


def test_a_bomb_in_the_text_of_an_image(refused, grey, tmp_path):
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))
    small = all_black(8, 8)
    (tmp_path / "bomb.png").write_bytes(small[:33] + text + small[33:])
    assert "broken" in refused("saliency", grey, "bomb.png", "0:0", "-o", "x.webp")


def test_an_image_of_a_billion_pixels(refused, grey, tmp_path):
    (tmp_path / "large.png").write_bytes(png(1_000_000, 1_000, pixels=zlib.compress(b"")))
    assert "million pixels" in refused("saliency", grey, "large.png", "0:0", "-o", "x.webp")


@pytest.mark.parametrize("source", ["digits:1797", "digits:99999999999999999999", "digit:3"])
def test_an_image_that_a_data_set_has_not(refused, grey, source):
    assert source.partition(":")[0] in refused("saliency", grey, source, "0:0", "-o", "x.webp")


def test_weights_that_are_no_numbers(refused, colour, tmp_path):
    weights = {"0.weight": torch.zeros(4, 3, 3, 3), "0.bias": torch.zeros(4)}
    weights["0.bias"][3] = float("nan")
    save_file(weights, tmp_path / "nan.safetensors")
    said = refused("layers", colour, "--weights", "nan.safetensors")
    assert "0.bias" in said
    assert "NaN" in said


def test_weights_of_another_network(refused, grey, tmp_path):
    save_file({"0.weight": torch.zeros(4, 1, 3, 3)}, tmp_path / "other.safetensors")
    assert "another network" in refused("layers", grey, "--weights", "other.safetensors")


def test_weights_that_are_not_there(refused, grey):
    assert "gone.pt" in refused("layers", grey, "--weights", "gone.pt")


def test_weights_that_would_run_code(refused, grey, tmp_path):
    torch.save({"0.weight": Innocent()}, tmp_path / "code.pt")
    assert "run code" in refused("layers", grey, "--weights", "code.pt")


class Innocent:
    """A class of our own, which a plain state dict does not hold."""


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--steps", "many"], "many"),
        (["--steps", "1.5"], "1.5"),
        (["--lr", "nan"], "not a valid float"),
        (["--activation", "middle"], "'pre', 'post'"),
        (["--schedule", "exponential"], "cosine"),
        (["--optimizer", "Adamm"], "Adam"),
        (["--regularizer", "total_variatoin()"], "total_variation"),
        (["--regularizer", "__import__('os')"], "__import__"),
        (["--transforms", "jitter("], "jitter("),
        (["--param", "norm(1)"], "norm(1)"),
        (["--stepz", "5"], "--steps"),
        (["--seed", "one"], "one"),
        (["--device", "cuda:99"], "cpu"),
        (["--device", "toaster"], "cpu"),
    ],
)
def test_an_option_that_means_nothing(refused, grey, options, hint):
    assert hint in refused("maximize", grey, "0:0", "-o", "x.webp", *options)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("x.gif", ".png"),
        ("x", ".png"),
        ("x.npy", ".png"),
        ("nowhere/x.webp", "no folder"),
        ("folder.png", "is a folder"),
        ("/proc/x.webp", "takes no files"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    refused, file, tmp_path, path, hint
):
    (tmp_path / "folder.png").mkdir()
    assert hint in refused("maximize", f"{file}:failing", "output:0", "-o", path)


def test_an_output_is_looked_at_before_the_network_is_fetched(refused):
    assert "x.gif" in refused("maximize", "nowhere.py:build", "0:0", "-o", "x.gif")


def test_no_output_at_all(refused, grey):
    assert "-o FILE" in refused("maximize", grey, "0:0")


@pytest.mark.parametrize(("words", "missing"), [((), "NET"), (("net.py:f",), "UNIT")])
def test_arguments_that_are_missing(refused, words, missing):
    said = refused("maximize", *words, "-o", "x.webp")
    assert f"'{missing}" in said
    assert "optogram maximize --help" in said


def test_a_file_without_a_recipe(refused, image):
    image.write_bytes(all_black(8, 8))
    assert "no recipe" in refused("replay", image)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=12).filter(lambda text: not text.startswith("-")))
def test_any_text_for_a_unit_is_understood_or_refused_in_a_sentence(optogram, grey, text):
    result = optogram("maximize", grey, text, "--steps", "0", "--json")
    assert result.exit_code in (0, 2), result.output
    assert len(result.stderr.splitlines()) == (result.exit_code == 2)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=12).filter(lambda text: not text.startswith("-")))
def test_any_text_for_an_image_is_refused_in_a_sentence(refused, grey, text):
    refused("saliency", grey, text, "0:0", "--json")
