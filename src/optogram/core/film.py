"""How work below shows the doors the pictures on its way, without knowing who films."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from jaxtyping import Float
from torch import Tensor

Frames = Float[Tensor, "batch channel height width"]
Camera = Callable[[Frames], None]
_CAMERA: ContextVar[Camera | None] = ContextVar("optogram_camera", default=None)


def filmed() -> bool:
    """Whether anyone films, so that a frame is worth making."""
    return _CAMERA.get() is not None


def show(images: Frames) -> None:
    """Show the camera a batch of images in [0, 1], which make up one frame."""
    camera = _CAMERA.get()
    if camera is not None:
        camera(images)


@contextmanager
def filming(camera: Camera | None) -> Iterator[None]:
    """Have `camera(images)` called with every frame for the length of a `with`; None: nobody."""
    token = _CAMERA.set(camera)
    try:
        yield
    finally:
        _CAMERA.reset(token)


@contextmanager
def only(wanted: bool) -> Iterator[None]:
    """Let frames be filmed for the length of a `with` only if they are wanted."""
    with filming(_CAMERA.get() if wanted else None):
        yield
