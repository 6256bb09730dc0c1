"""Explain: techniques by name on one sheet, and what each sheet says about what to believe."""

import copy

import pytest
import torch
from torch import nn

import optogram as og
from optogram.core.technique import _REGISTRY, _WRAPPED
from optogram.core.technique import technique as mark
from tests.techniques.explained import counted


def trained_to_tell(seed: int = 0) -> og.Network:
    """Four classes, each a bright quarter of the image, learned by a small CNN in a second."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)]
    module = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(60):
        labels = torch.randint(0, 4, (64,), generator=generator)
        loss = nn.functional.cross_entropy(module(quarters(labels, generator)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    labels = ["north west", "north east", "south west", "south east"]
    return og.Network(module.eval(), (1, 12, 12), labels=labels, name="quarters")


def quarters(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    images = 0.3 * torch.rand(len(labels), 1, 12, 12, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 6 * (label // 2), 6 * (label % 2)
        image[:, top : top + 6, left : left + 6] += 0.6
    return images


NETWORK = trained_to_tell()
IMAGE = quarters(torch.tensor([1]), torch.Generator().manual_seed(9))[0]
UNIT = "output:north east"


def test_methods_stand_side_by_side_as_they_stand_alone():
    methods = ["saliency", "guided-backprop", "integrated_gradients(steps=5)", "grad_cam"]
    sheet = og.explain(NETWORK, IMAGE, UNIT, methods=methods)
    names = ["saliency", "guided_backprop", "integrated_gradients", "grad_cam"]
    assert [item.recipe["technique"] for item in sheet] == names
    assert (sheet[0].values == og.saliency(NETWORK, IMAGE, UNIT).values).all()
    alone = og.integrated_gradients(NETWORK, IMAGE, UNIT, steps=5)
    assert (sheet[2].values == alone.values).all()
    assert sheet[2].recipe["arguments"]["steps"] == 5
    assert sheet.recipe["technique"] == "explain"
    assert sheet[3].unit_of_values == "logit at 4"
    assert sheet.title.startswith("quarters: output:1 north east, logit ")
    assert all("randomised" not in (item.checks or {}) for item in sheet)


def test_occlusion_is_one_of_them():
    sheet = og.explain(
        NETWORK, IMAGE, UNIT, methods=["saliency", "occlusion"], checks=True, draws=2
    )
    item = sheet[1]
    assert item.recipe["technique"] == "occlusion"
    assert item.boxes is not None
    assert {"randomised", "deletion", "insertion", "floor"} <= item.checks.keys()


def test_checks_say_what_is_to_be_believed():
    methods = ["saliency", "guided_backprop", "integrated_gradients(steps=8)"]
    sheet = og.explain(NETWORK, IMAGE, UNIT, methods=methods, checks=True)
    for item in sheet:
        assert item.checks["randomisation"]["badge"] in ("pass", "weak", "fail")
        assert item.checks["floor"] == item.floor > 0
        assert {"deletion", "insertion", "other class", "infidelity", "max sensitivity"} <= set(
            item.checks
        )
    assert "completeness_residual" in sheet[2].checks
    assert sheet[0].checks["randomisation"]["badge"] == "pass"


def test_checks_take_the_passes_that_they_are_said_to_take():
    """16 more maps a method (here one fewer: there are 3 other classes); curves and costs once."""
    network = NETWORK.with_module(copy.deepcopy(NETWORK.module))
    methods = ["saliency", "guided_backprop", "integrated_gradients"]
    shown = counted(network)
    og.explain(network, IMAGE, UNIT, methods=methods)
    of_integral = 50 + 2  # points, the image and the baseline
    assert sum(shown) == 1 + 1 + of_integral
    shown.clear()
    og.explain(network, IMAGE, UNIT, methods=methods, checks=True)
    gradients = 2 * (1 + 4 + 2 * 2 + 3 + 4)
    integrals = of_integral + (4 + 2 * 2 + 3 + 1 + 4) * (16 + 2)
    curves = (len(methods) + 2) * 2 * 15 + 3
    assert sum(shown) == gradients + integrals + curves + 33


def test_integrals_at_fewer_points_are_as_good_as_those_that_are_shown():
    both = og.explain(
        NETWORK, IMAGE, UNIT, methods=["integrated_gradients", "integrated_gradients(steps=16)"],
        checks=True,
    )  # fmt: skip
    fine, coarse = (item.checks["randomisation"] for item in both)
    assert fine["top"] == pytest.approx(coarse["top"], abs=0.02)
    assert fine["other_units"] == pytest.approx(coarse["other_units"], abs=0.02)


def test_a_map_of_next_to_nothing_is_drawn_as_below_the_floor():
    sheet = og.explain(NETWORK, IMAGE, UNIT, methods=["saliency"], checks=True, draws=2)
    item = sheet[0]
    faint = og.Attribution(item.values * 1e-6, item.image, item.target, 0.0, checks=item.checks)
    colours = faint.heatmap()
    assert (colours == colours[0, 0]).all()
    assert not (item.heatmap() == item.heatmap()[0, 0]).all()


def test_a_sheet_says_in_words_which_map_fails():
    """A technique that paints the image whatever the network knows, added as third parties do."""

    def paints(network: og.Network, image: torch.Tensor, unit: og.Unit) -> og.Attribution:
        """Show the image itself."""
        return og.Attribution(image[0], image, str(unit), 0.0, unit_of_values="brightness")

    mark(paints)
    try:
        sheet = og.explain(NETWORK, IMAGE, UNIT, methods=["saliency", "paints"], checks=True)
    finally:
        del _REGISTRY["paints"], _WRAPPED["paints"]
    assert sheet[1].checks["randomised"] == "fail, r 1.00, |r| 1.00"
    assert sheet[1].checks["so"] == "about the image, not the class"
    assert "paints: the map stays much the same when the top layer is random; it" in sheet.title
    assert "saliency" not in sheet.title


def test_a_technique_that_takes_the_unit_as_a_string_gets_a_string():
    """As docs/extending.md shows it: the address is handed on as the map's target."""

    def strangers_way(network: og.Network, image: torch.Tensor, unit: str) -> og.Attribution:
        """Paint the image."""
        return og.Attribution(values=image.sum(0), image=image, target=unit, score=1.0)

    mark(strangers_way)
    try:
        sheet = og.explain(NETWORK, IMAGE, UNIT, methods=["strangers_way"], checks=True, draws=1)
    finally:
        del _REGISTRY["strangers_way"], _WRAPPED["strangers_way"]
    assert NETWORK.resolve(sheet[0].target) == NETWORK.resolve(UNIT)


def test_several_images_fill_rows():
    images = torch.stack([IMAGE, IMAGE.flip(2)])
    sheet = og.explain(NETWORK, images, [UNIT, "output:0"], methods=["saliency", "deconvnet"])
    assert sheet.units == ("output:1", "output:1", "output:0", "output:0")
    assert sheet.columns == 2
    again = og.explain(NETWORK, images[1], "output:0", methods=["saliency", "deconvnet"])
    assert torch.allclose(again[1].values, sheet[3].values, atol=1e-6)


def test_the_same_call_gives_the_same_checks():
    first, second = (
        og.explain(NETWORK, IMAGE, UNIT, methods=["smoothgrad(samples=3)"], checks=True, draws=2)
        for _ in range(2)
    )
    assert first[0].checks == second[0].checks
    assert first.recipe == second.recipe


def test_it_can_be_saved_and_drawn(tmp_path):
    sheet = og.explain(NETWORK, IMAGE, UNIT, methods=["saliency", "grad_cam"], checks=True, draws=2)
    for name in ("sheet.png", "sheet.html", "sheet.json", "sheet.safetensors"):
        assert sheet.save(tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        (["salience"], "'salience' explains no image; these do: .*saliency"),
        (["maximize"], "'maximize' explains no image"),
        (["saliency(steps=3)"], "saliency has no option 'steps'; it has .*signed"),
        (["occlusion(patch"], "cannot read the method"),
        (["occlusion(3)"], "cannot read the method"),
        ([], "no method was asked for"),
    ],
)
def test_wrong_methods_are_refused_in_a_sentence(methods, problem):
    with pytest.raises(og.RequestError, match=problem):
        og.explain(NETWORK, IMAGE, UNIT, methods=methods)
