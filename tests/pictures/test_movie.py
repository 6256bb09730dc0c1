"""Films: every frame at the size of the last, never too many, the recipe beside."""

import pytest
import torch
from PIL import Image

from optogram.pictures import movie, read_recipe
from optogram.pictures.errors import RequestError
from optogram.pictures.movie import MOST_FRAMES, Film, checked_movie

RECIPE = {"technique": "none"}


def test_frames_of_any_size_make_one_film_with_its_recipe_beside(tmp_path):
    film = Film()
    for size in (8, 12, 16):
        film(torch.full((1, 3, size, size), size / 16))
    path = film.save(tmp_path / "film.webp", RECIPE)
    with Image.open(path) as shown:
        assert (shown.n_frames, shown.size) == (3, (16, 16))
    assert read_recipe(path) == RECIPE


def test_a_long_film_keeps_fewer_frames_and_its_first():
    film = Film()
    for step in range(4 * MOST_FRAMES):
        film(torch.full((1, 1, 2, 2), (step % 256) / 255))
    assert MOST_FRAMES / 2 <= len(film.frames) <= MOST_FRAMES
    assert film.frames[0].max() == 0


def test_several_images_stand_side_by_side():
    film = Film()
    film(torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 4, 5) / 2)
    assert film.frames[0].shape == (8, 10, 3)
    assert film.frames[0][0, [0, 5], 0].tolist() == [0, 128]
    assert film.frames[0][4, [0, 5], 0].tolist() == [255, 0]


def test_what_is_no_film_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"is no film: choose one of \.webp, \.mp4"):
        checked_movie(tmp_path / "film.avi")
    with pytest.raises(RequestError, match="nothing to film"):
        Film().save(tmp_path / "film.webp", RECIPE)
    with pytest.raises(RequestError, match="there is no folder"):
        checked_movie(tmp_path / "nowhere" / "film.webp")


def test_an_mp4_needs_pyav(tmp_path, monkeypatch):
    monkeypatch.setattr(movie, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"needs PyAV.*optogram\[video\].*choose \.webp"):
        checked_movie(tmp_path / "film.mp4")


@pytest.mark.parametrize("size", [(16, 16), (17, 19), (1, 3)])
def test_an_mp4_shows_every_frame_and_is_the_same_when_made_again(tmp_path, size):
    av = pytest.importorskip("av")
    film = Film()
    for value in (0.0, 0.5, 1.0):
        film(torch.full((1, 3, *size), value))
    path = film.save(tmp_path / "film.mp4", RECIPE)
    with av.open(str(path)) as opened:
        shown = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    assert [frame.shape for frame in shown] == [
        (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    ] * 3
    for frame, value in zip(shown, (0, 128, 255), strict=True):
        assert abs(float(frame.mean()) - value) < 8
    assert read_recipe(path) == RECIPE
    assert film.save(tmp_path / "again.mp4", RECIPE).read_bytes() == path.read_bytes()
