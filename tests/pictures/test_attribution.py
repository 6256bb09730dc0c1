"""Maps: their values are kept, spread as by hand, and never drawn stronger than they are."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from safetensors import safe_open

from optogram.pictures import Attribution, Overlay, RequestError
from optogram.pictures.attribution import spread
from optogram.pictures.colour import BELOW_FLOOR, signed


def attribution(values=None, **others) -> Attribution:
    values = torch.randn(8, 9) if values is None else values
    return Attribution(values, torch.rand(3, 8, 9), "output:cat", 2.5, **others)


def boxes_of(rows: int, columns: int, patch: int, stride: int) -> torch.Tensor:
    return torch.tensor(
        [
            [
                [r * stride, c * stride, r * stride + patch, c * stride + patch]
                for c in range(columns)
            ]
            for r in range(rows)
        ]
    )


def spread_by_hand(values, boxes, height, width):
    result = np.full((height, width), np.nan)
    for y in range(height):
        for x in range(width):
            covering = [
                float(value)
                for value, (top, left, bottom, right) in zip(
                    values.flatten(), boxes.reshape(-1, 4).tolist(), strict=True
                )
                if top <= y < bottom and left <= x < right
            ]
            if covering:
                result[y, x] = np.mean(covering)
    return result


@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    corners=st.lists(st.integers(-3, 9), min_size=36, max_size=36),
    seed=st.integers(0, 99),
)
def test_a_grid_is_spread_as_by_hand(rows, columns, corners, seed):
    """Boxes of any size, also empty ones and such as stick out of the image."""
    starts = torch.tensor(corners[: rows * columns * 2]).reshape(rows, columns, 2)
    sizes = torch.tensor(corners[18 : 18 + rows * columns * 2]).reshape(rows, columns, 2).abs()
    boxes = torch.cat([starts, starts + sizes], dim=2)
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(
        spread(values, boxes, 6, 7).numpy(), spread_by_hand(values, boxes, 6, 7), rtol=1e-5
    )


def test_boxes_that_do_not_overlap_tile_the_image():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    expected = values.repeat_interleave(3, 0).repeat_interleave(3, 1)
    assert torch.equal(spread(values, boxes_of(2, 2, 3, 3), 6, 6), expected)


def test_a_map_of_pixels_is_its_own_spread():
    made = attribution()
    assert torch.equal(made.spread(), made.values)


def test_tensors_are_copied_and_detached():
    values = torch.randn(8, 9, requires_grad=True)
    made = attribution(values)
    kept = made.values.clone()
    with torch.no_grad():
        values.zero_()
    assert torch.equal(made.values, kept)
    assert not made.values.requires_grad


def test_a_map_prints_as_a_line():
    made = attribution(torch.tensor([[-0.5, 2.0]]), unit_of_values="probability")
    assert repr(made) == "Attribution(output:cat, 1x2, -0.5 to 2 probability, score 2.5)"


def test_the_heatmap_is_the_colour_map_up_to_the_given_limit():
    made = attribution()
    assert (made.heatmap(limit=3.0) == signed(made.values, 3.0)).all()
    assert (made.heatmap() == signed(made.values, float(made.values.abs().max()))).all()


def test_a_magnitude_is_not_drawn_in_red_and_blue():
    values = torch.rand(8, 9)
    one, other = attribution(values), attribution(values, signed=False)
    assert (one.heatmap() != other.heatmap()).any()


def test_the_noise_floor_of_the_checks_is_drawn_as_nothing():
    made = attribution(torch.full((8, 9), 1e-6), checks={"floor": 1e-3})
    assert (made.heatmap() == np.array(BELOW_FLOOR)).all()
    assert (made.heatmap(floor=0) != np.array(BELOW_FLOOR)).any()


def test_a_weak_map_under_a_shared_limit_leaves_the_image_as_it_is():
    """The overlay of a map that says nothing is the grey photograph, whatever its own scale."""
    from optogram.pictures.drawing import as_pil, laid_over

    made = attribution(torch.randn(8, 9) * 1e-9)
    drawn = np.asarray(laid_over(made, as_pil(made.image), limit=1.0), dtype=int)
    assert np.ptp(drawn, axis=2).max() <= 1
    photo = np.asarray(as_pil(made.image).convert("L"), dtype=float)
    assert np.corrcoef(photo.ravel(), drawn[..., 0].ravel())[0, 1] > 0.999
    assert np.ptp(drawn) > 0.6 * np.ptp(photo)
    alone = np.asarray(laid_over(made, as_pil(made.image)), dtype=int)
    assert np.ptp(alone, axis=2).max() > 50


def test_the_overlay_shows_the_strongest_place_in_the_strongest_colour():
    values = torch.zeros(8, 9)
    values[2, 3] = 1.0
    made = attribution(values)
    from optogram.pictures.drawing import as_pil, laid_over

    drawn = np.asarray(laid_over(made, as_pil(made.image)), dtype=int)
    redness = drawn[..., 0] - drawn[..., 2]
    assert np.unravel_index(redness.argmax(), redness.shape) == (2, 3)
    redness[2, 3] = 0
    assert (redness == 0).all()  # everything else is grey


def test_an_overlay_takes_an_image_a_path_or_nothing(tmp_path):
    made = attribution()
    path = tmp_path / "photo.png"
    made.over().save(path)
    assert isinstance(made.over(torch.rand(1, 8, 9)), Overlay)
    with pytest.raises(RequestError, match=r"of \(8, 9\) pixels; this one has"):
        made.over(path)
    assert made.over(torch.rand(3, 8, 9)).pil(5).width == made.over().pil(5).width


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "html"])
def test_a_map_and_its_overlay_are_saved(tmp_path, suffix):
    made = attribution(recipe={"technique": "saliency"})
    assert made.save(tmp_path / f"a.{suffix}").stat().st_size > 0
    assert made.over().save(tmp_path / f"b.{suffix}").stat().st_size > 0


def test_safetensors_hold_the_exact_values_and_boxes(tmp_path):
    boxes = boxes_of(8, 9, 2, 1)
    made = attribution(boxes=boxes, raw=torch.randn(3, 8, 9), unit_of_values="logit")
    with safe_open(made.save(tmp_path / "a.safetensors"), "pt") as file:
        assert torch.equal(file.get_tensor("values"), made.values)
        assert torch.equal(file.get_tensor("boxes"), boxes)
        assert torch.equal(file.get_tensor("raw"), made.raw)
        assert json.loads(file.metadata()["facts"])["unit_of_values"] == "logit"


def test_the_caption_tells_the_checks():
    checks = {"randomisation": "pass", "deletion_score": 0.3123, "floor": 0.1, "curve": [1, 2]}
    made = attribution(checks=checks, recipe={"technique": "smooth_grad"})
    lines = ("smooth grad", "output:cat", "score 2.5", "randomisation pass", "deletion score 0.31")
    assert made.caption() == lines


@pytest.mark.parametrize("shape", [(3, 4, 4), (0, 4), (5,)])
def test_a_map_has_rows_and_columns(shape):
    with pytest.raises((RequestError, TypeCheckError), match="rows"):
        attribution(torch.zeros(shape))


def test_every_place_of_a_grid_needs_its_box():
    with pytest.raises((RequestError, TypeCheckError), match="boxes"):
        attribution(boxes=torch.zeros(2, 2, 4, dtype=torch.int64))
