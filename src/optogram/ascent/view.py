"""Looking at images from elsewhere: shifts, turns, zooms and cuts, composed into one resampling.

A view says, for each image, which point of the canvas every pixel of what is shown looks at. Views
compose by arithmetic on six numbers, so any chain of them costs a single bilinear lookup.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]
Beyond = float | Literal["mirror"]


@dataclass(frozen=True, eq=False)
class View:
    """Pixel at offset o from the middle of what is shown looks at `turn @ o + move`.

    `turn` (batch, 2, 2) and `move` (batch, 2) are float64, in pixels (down, right) from the middle
    of the images looked at. `grow` is what is added to the size of what is shown; `beyond` what is
    seen past the edges.
    """

    turn: Float[Tensor, "batch 2 2"]
    move: Float[Tensor, "batch 2"]
    grow: tuple[int, int] = (0, 0)
    beyond: Beyond = "mirror"

    def then(self, later: "View") -> "View":
        """What is seen by looking at this view through a later one."""
        move = (self.turn @ later.move[:, :, None])[:, :, 0] + self.move
        grow = (self.grow[0] + later.grow[0], self.grow[1] + later.grow[1])
        beyond = self.beyond if later.beyond == "mirror" else later.beyond
        return View(self.turn @ later.turn, move, grow, beyond)

    def __call__(self, images: Images) -> Float[Tensor, "batch channel shown_height shown_width"]:
        """The images as seen from here, by bilinear interpolation."""
        batch, channels, height, width = images.shape
        shown = (batch, channels, height + self.grow[0], width + self.grow[1])
        # grid_sample counts (right, down), from -1 at one edge to 1 at the other.
        half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
        far = torch.tensor([shown[3] / 2, shown[2] / 2], dtype=torch.float64)
        turn = self.turn.flip(1, 2) * far / half[:, None]
        affine = torch.cat([turn, (self.move.flip(1) / half)[:, :, None]], 2)
        grid = F.affine_grid(affine, list(shown), align_corners=False).to(images)
        if self.beyond == "mirror":
            return F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
        seen = F.grid_sample(images - self.beyond, grid, "bilinear", "zeros", align_corners=False)
        return seen + self.beyond


def still(count: int) -> View:
    """The view of `count` images in which nothing has moved."""
    return View(
        torch.eye(2, dtype=torch.float64).expand(count, 2, 2), torch.zeros(count, 2).double()
    )


def shift(shifts: Float[Tensor, "batch 2"]) -> View:
    """Images moved (down, right) by so many pixels."""
    return View(still(len(shifts)).turn, -shifts.double())


def zoom(factors: Float[Tensor, " batch"]) -> View:
    """Images enlarged about their middle; below 1, what lies beyond comes into sight."""
    eye = torch.eye(2, dtype=torch.float64)
    return View(eye / factors.double()[:, None, None], torch.zeros(len(factors), 2).double())


def turned(degrees: Float[Tensor, " batch"]) -> View:
    """Images turned anticlockwise about their middle."""
    angle = degrees.double().deg2rad()
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    # Rows count downwards, so the point that is seen lies clockwise of where it is shown.
    return View(turn.transpose(1, 2), torch.zeros(len(degrees), 2).double())


def cut(
    centres: Float[Tensor, "batch 2"], sizes: Float[Tensor, " batch"], shape: tuple[int, int]
) -> View:
    """Boxes of images, shown at the size of the whole: `sizes` and `centres` are shares of it."""
    whole = torch.tensor(shape, dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)
    return View(eye * sizes.double()[:, None, None], (centres.double() - 0.5) * whole)


def frame(count: int, pixels: int, beyond: Beyond) -> View:
    """Images with `pixels` more on each side, where `beyond` is seen."""
    return View(still(count).turn, still(count).move, (2 * pixels, 2 * pixels), beyond)
