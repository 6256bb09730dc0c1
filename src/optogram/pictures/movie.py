"""A film of a picture being made: an animated WebP, or an MP4 where PyAV is installed."""

import math
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RequestError
from .files import write_atomically
from .recipe import beside, beside_bytes

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from torch import Tensor

MOVIES = (".webp", ".mp4")
MOST_FRAMES, MOST_IN_A_FRAME = 240, 16
PER_SECOND = 20


class Film:
    """Collects frames, and keeps every second one of them whenever there are too many.

    Call it with a batch of images in [0, 1], (batch, channel, height, width), of any size; up to 16
    of them stand side by side in a frame. `save` writes them all at the size of the last.
    """

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self.every, self.seen = 1, 0

    def __call__(self, images: 'Float[Tensor, "batch channel height width"]') -> None:
        """Keep a frame, or not."""
        if self.seen % self.every == 0:
            self.frames.append(_frame(images))
            if len(self.frames) > MOST_FRAMES:
                self.frames = self.frames[::2]
                self.every *= 2
        self.seen += 1

    def save(self, path: str | os.PathLike[str], recipe: Mapping[str, Any]) -> Path:
        """Write the film, and its recipe beside it.

        Raises RequestError for another suffix than .webp or .mp4, for an .mp4 without PyAV, and
        where nothing was filmed.
        """
        path = checked_movie(path)
        if not self.frames:
            raise RequestError("there is nothing to film: this technique made no steps")
        frames = [_fitted(frame, self.frames[-1].shape) for frame in self.frames]
        content = _webp(frames) if path.suffix.lower() == ".webp" else _mp4(frames)
        write_atomically(beside(path), beside_bytes(recipe, content))
        write_atomically(path, content)
        return path


def checked_movie(path: str | os.PathLike[str]) -> Path:
    """The path, if a film can be written there. Raises RequestError, as `Film.save` does."""
    path = Path(path)
    if path.suffix.lower() not in MOVIES:
        raise RequestError(f"'{path}' is no film: choose one of {', '.join(MOVIES)}")
    if path.suffix.lower() == ".mp4" and find_spec("av") is None:
        raise RequestError(
            f"'{path}' needs PyAV, which is not installed: pip install 'optogram[video]', or "
            "choose .webp"
        )
    if not path.absolute().parent.is_dir():
        raise RequestError(f"there is no folder '{path.parent}' to write '{path}' into; make it")
    return path


def _frame(images: "Tensor") -> "np.ndarray":
    """One picture (height, width, 3) of 8 bits: the images in rows, as nearly square as fits."""
    import torch

    shown = images[:MOST_IN_A_FRAME].detach().float().cpu().clamp(0, 1)
    count, channels, height, width = shown.shape
    shown = shown.expand(-1, 3, -1, -1) if channels == 1 else shown[:, :3]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = torch.zeros(rows * columns, 3, height, width)
    sheet[:count, : shown.shape[1]] = shown
    grid = sheet.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    found: np.ndarray = (255 * grid).round().byte().reshape(rows * height, -1, 3).numpy()
    return found


def _fitted(frame: "np.ndarray", shape: Sequence[int]) -> "np.ndarray":
    if frame.shape == tuple(shape):
        return frame
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(frame).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _webp(frames: "list[np.ndarray]") -> bytes:
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    file = BytesIO()
    first.save(
        file,
        "WEBP",
        save_all=True,
        append_images=rest,
        duration=round(1000 / PER_SECOND),
        loop=0,
        quality=80,
    )
    return file.getvalue()


def _mp4(frames: "list[np.ndarray]") -> bytes:
    """H.264 by the encoder that PyAV brings along, on one thread: the same bytes everywhere."""
    import av
    import numpy as np

    height, width = frames[0].shape[:2]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    file = BytesIO()
    with av.open(file, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=PER_SECOND, options={"threads": "1", "crf": "18"})
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            shown = av.VideoFrame.from_ndarray(np.pad(frame, even, "edge"), "rgb24")
            film.mux(stream.encode(shown))
        film.mux(stream.encode())
    return file.getvalue()
