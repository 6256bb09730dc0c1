"""What every technique keeps: it leaves no trace, repeats itself, and says how it was made.

A new technique needs a case in the table, else the first test fails. Its case is the arguments for
a small network, and where that does not suit it, another network.
"""

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import optogram as og
from optogram.core import Network, techniques
from optogram.core.listen import _MODES
from optogram.core.technique import call
from optogram.pictures import Attribution, Picture, Sheet, digest
from optogram.pictures.errors import RequestError
from optogram.survey import from_arrays
from optogram.zoo.stack import DeepBelief
from tests.core.nets import images, left_as_found, named, octets

SHAPE, GREY = (3, 12, 12), (1, 15, 13)
IMAGE = images(1, SHAPE, seed=5)[0]


class Breaks(nn.Module):
    """Passes what it is given, and fails at the call it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.left = [0]

    def forward(self, x: Tensor) -> Tensor:
        self.left[0] -= 1
        if self.left[0] == 0:
            raise ZeroDivisionError("in the middle of a pass")
        return x


def seeing(shape: tuple[int, int, int] = SHAPE) -> nn.Module:
    """A small network as one finds them: in training, half frozen, with gradients and hooks."""
    seen = 5 * (shape[1] // 2) * (shape[2] // 2)
    module = named(
        conv=nn.Conv2d(shape[0], 6, 3, padding=1), relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(2), breaks=Breaks(), late=nn.Conv2d(6, 5, 3, padding=1), act=nn.ReLU(),
        flat=nn.Flatten(), drop=nn.Dropout(0.4), fc=nn.Linear(seen, 4),
    )  # fmt: skip
    module.train()
    module.late.eval()
    module.conv.weight.requires_grad_(False)
    module.fc.weight.grad = torch.ones_like(module.fc.weight)
    module.late.register_forward_hook(lambda *_: None)
    return module


def linear(shape: tuple[int, int, int] = SHAPE) -> nn.Module:
    """Linear layers alone, with nothing between them that could break."""
    first = nn.Linear(math.prod(shape), 9)
    return named(flat=nn.Flatten(), a=first, act=nn.Sigmoid(), b=nn.Linear(9, 4))


def believing(shape: tuple[int, int, int] = SHAPE) -> nn.Module:
    """A deep belief network."""
    module = DeepBelief((math.prod(shape), 8, 5))
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=chance))
    return module.train()


@dataclass(frozen=True)
class Case:
    """How a technique is called here; `fails` says that the network has a part that can break."""

    arguments: dict[str, Any] = field(default_factory=dict)
    module: Callable[..., nn.Module] = seeing
    fails: bool = True


def explained(**options: Any) -> Case:
    return Case({"image": IMAGE, "unit": "output:1", **options})


def several(**options: Any) -> Case:
    return explained(unit=["output:1", "output:3"], **options)


NOISE = from_arrays((images(6, SHAPE, seed=9) * 255).round().to(torch.uint8).numpy(), name="noise")
MANY = from_arrays((images(48, SHAPE, seed=9) * 255).round().to(torch.uint8).numpy(), name="many")
CASES = {
    "accentuate": Case({"image": IMAGE, "layer": "late", "steps": 3, "transforms": "[jitter(1)]"}),
    "combine_filters": Case({"unit": "b:1", "strongest": 3}, module=linear, fails=False),
    "deconvnet": several(),
    "dream": Case(
        {"image": images(1, (3, 14, 13), seed=5)[0], "layer": ["late", "conv:2"], "steps": 2,
         "octaves": 2, "frames": 2}
    ),
    "evolve": Case({"unit": ["output:1", "output:3"], "generations": 3, "population": 6}),
    "explain": explained(methods=["saliency", "occlusion"], checks=True, draws=2),
    "filters": Case({"layer": "conv"}),
    "fool": Case({"unit": ["output:1", "output:3"], "start": IMAGE, "steps": 4}),
    "grad_cam": several(),
    "grad_cam_plus_plus": several(),
    "guided_backprop": several(),
    "guided_grad_cam": several(),
    "input_x_gradient": several(),
    "integrated_gradients": several(steps=4),
    "invert": Case({"image": IMAGE, "layer": ["late", "fc"], "steps": 3, "starts": 2}),
    "layer_cam": several(),
    "localize": explained(),
    "lrp": several(),
    "maximize": Case(
        {"unit": ["late:2", "output:1", "conv:0"], "steps": 3, "param": 'pixels(start="uniform")',
         "transforms": "jitter(1)"}
    ),
    "occlusion": explained(patch=4, stride=4),
    "occlusion_panels": explained(patch=4, stride=4),
    "rise": several(samples=8),
    "saliency": several(signed=True),
    "sample": Case(
        {"unit": "h1:1", "chains": 3, "sweeps": 4, "every": 2, "burn_in": 1},
        module=believing,
        fails=False,
    ),
    "score_cam": several(channels=4),
    "smoothgrad": several(samples=3),
    "stylize": Case(
        {"image": IMAGE, "style": images(1, (3, 14, 11), seed=6)[0], "layers": ["conv", "late"],
         "content": ["late"], "steps": 3}
    ),
    "top_patches": Case(
        {"dataset": NOISE, "unit": ["late:2", "conv:1"], "k": 2, "project": "guided"}
    ),
    "triage": Case({"image": IMAGE, "dataset": MANY, "layer": "late", "samples": 10}),
    "vargrad": several(samples=3),
}  # fmt: skip


def made(name: str) -> tuple[Case, Network]:
    case = CASES[name]
    return case, Network(case.module(), SHAPE, name="contract", labels=["a", "b", "c", "d"])


def run(name: str, network: Network) -> Picture | Attribution | Sheet:
    return call(name, network=network, **CASES[name].arguments)


def several_units(case: Case) -> bool:
    return isinstance(case.arguments.get("unit"), list)


def address(item: Picture | Attribution) -> str:
    return item.unit if isinstance(item, Picture) else item.target


def known() -> list[str]:
    return [name for name in techniques() if name in CASES]


def test_every_technique_has_a_case_here():
    assert set(techniques()) <= set(CASES), "a technique is known that keeps no contract yet"


@pytest.mark.parametrize("name", known())
def test_it_leaves_the_module_and_the_world_as_it_found_them(name):
    case, network = made(name)
    given = {k: octets(v) for k, v in case.arguments.items() if isinstance(v, Tensor)}
    world = surroundings()
    with left_as_found(network.module):
        run(name, network)
    assert surroundings() == world
    assert {k: octets(v) for k, v in case.arguments.items() if isinstance(v, Tensor)} == given
    assert _MODES == {}
    with left_as_found(network.module):
        run(name, network)


@pytest.mark.parametrize("name", [n for n in known() if CASES[n].fails])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_it_leaves_them_so_when_the_module_fails_in_the_middle(name, at):
    _, network = made(name)
    network.layers  # noqa: B018 - worked out while all is well
    world = surroundings()
    network.module.breaks.left[0] = at
    with left_as_found(network.module):
        try:
            run(name, network)
        except ZeroDivisionError:
            failed = True
        else:
            failed = network.module.breaks.left[0] <= 0
            assert not failed, "it swallowed a failure of the module"
    if at == 1 and name != "filters":
        assert failed
    assert surroundings() == world
    assert _MODES == {}
    network.module.breaks.left[0] = 0
    expected = run(name, made(name)[1])
    assert run(name, network).recipe["result"] == expected.recipe["result"]


@pytest.mark.parametrize("name", known())
def test_the_same_call_gives_the_same_bytes(name, tmp_path):
    one, other = (run(name, made(name)[1]) for _ in range(2))
    assert one.recipe == other.recipe
    assert numbers(one) == numbers(other)
    files = [
        result.save(tmp_path / f"{i}.png").read_bytes() for i, result in enumerate((one, other))
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("name", known())
def test_nothing_depends_on_the_global_generators(name):
    _, network = made(name)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    one = run(name, network)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert numbers(run(name, network)) == numbers(one)


@pytest.mark.parametrize("name", known())
def test_its_recipe_is_json_and_names_every_argument(name):
    case, network = made(name)
    result = run(name, network)
    recipe = result.recipe
    assert json.loads(json.dumps(recipe, allow_nan=False)) == recipe
    assert recipe["technique"] == name
    signature = inspect.signature(techniques()[name].function)
    assert set(recipe["arguments"]) == set(signature.parameters)
    assert recipe["arguments"]["network"] == network.recipe()
    for argument, parameter in signature.parameters.items():
        # A default of None or of "auto" may be written as what it came to mean.
        if argument not in case.arguments and isinstance(parameter.default, bool | int):
            assert recipe["arguments"][argument] == parameter.default
    assert recipe["result"].startswith("sha256:")
    for item in result if isinstance(result, Sheet) else []:
        assert item.recipe["result"] == digest(shown(item))
        json.dumps(item.recipe, allow_nan=False)


@pytest.mark.parametrize("name", known())
def test_what_it_hands_back_is_float32_on_the_cpu_without_gradients(name):
    _, network = made(name)
    result = run(name, network)
    for item in result if isinstance(result, Sheet) else [result]:
        for value in vars(item).values():
            if isinstance(value, Tensor) and value.is_floating_point():
                assert value.dtype == torch.float32
                assert value.device.type == "cpu"
                assert not value.requires_grad
                assert torch.isfinite(value).all()
        assert 0 <= float(item.image.min()) <= float(item.image.max()) <= 1


@pytest.mark.parametrize("name", known())
def test_an_unknown_target_is_refused_in_one_sentence(name):
    case, network = made(name)
    named = [name for name in ("layer", "layers") if name in case.arguments]
    asked = named[0] if named else "unit"
    nowhere = {"unit": "nowhere:1", "layer": "nowhere", "layers": ["nowhere"]}
    with pytest.raises(RequestError, match="nowhere") as refusal:
        call(
            name,
            network=network,
            **{**case.arguments, asked: nowhere[asked]},
        )
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", known())
def test_its_signature_is_network_then_what_it_is_about_then_options(name):
    parameters = list(inspect.signature(techniques()[name].function).parameters.values())
    assert parameters[0].name == "network"
    kinds = [p.kind for p in parameters]
    assert kinds == sorted(kinds)
    assert all(p.default is inspect.Parameter.empty for p in parameters if p.kind != p.KEYWORD_ONLY)
    assert techniques()[name].summary.endswith(".")


@pytest.mark.parametrize("name", known())
def test_it_takes_grey_images_of_odd_sizes_and_is_made_again_from_its_file(name, tmp_path):
    case, model = CASES[name], tmp_path / "model.py"
    model.write_text(
        f"from tests.test_contract import CASES, GREY\n\n\ndef build():\n"
        f"    module = CASES[{name!r}].module(GREY)\n    module.shape = GREY\n    return module\n"
    )
    network = og.load(f"{model}:build")
    digits = og.data("digits", split="test", shape=GREY)
    stand_ins = {
        "image": og.zoo.image_for(network, "digits:3"),
        "style": og.zoo.image_for(network, "digits:5"),
        "start": og.zoo.image_for(network, "digits:3"),
        "dataset": digits,
    }
    arguments = {key: stand_ins.get(key, value) for key, value in case.arguments.items()}
    result = call(name, network=network, **arguments)
    again = og.replay(result.save(tmp_path / "made.png"))
    assert again.identical
    assert numbers(again.result) == numbers(result)


@pytest.mark.parametrize("name", known())
def test_it_works_in_bfloat16_and_hands_back_float32(name):
    case, exact = made(name)
    result = run(name, Network(case.module().bfloat16(), SHAPE, name="coarse", labels=list("abcd")))
    precise = run(name, exact)
    pairs = zip(*(r if isinstance(r, Sheet) else [r] for r in (result, precise)), strict=True)
    for coarse, fine in pairs:
        assert shown(coarse).dtype == torch.float32
        assert shown(coarse).shape == shown(fine).shape
        assert torch.isfinite(shown(coarse)).all()
        assert (shown(coarse).std() > 0) == (shown(fine).std() > 0), "lost in the rounding"


@pytest.mark.gpu
@pytest.mark.parametrize("name", known())
def test_it_runs_on_a_gpu_and_leaves_it_as_it_was(name):
    case, here = made(name)
    there = Network(case.module().cuda(), SHAPE, name="contract", labels=list("abcd"))
    there.module.load_state_dict(here.module.state_dict())
    with left_as_found(there.module):
        result = run(name, there)
    for item in result if isinstance(result, Sheet) else [result]:
        assert shown(item).device.type == "cpu"
        assert torch.isfinite(shown(item)).all()


@pytest.mark.parametrize("name", [n for n in known() if several_units(CASES[n])])
def test_a_result_does_not_depend_on_its_company(name):
    _, network = made(name)
    together = run(name, network)
    assert isinstance(together, Sheet)
    for target in CASES[name].arguments["unit"]:
        alone = call(name, network=network, **{**CASES[name].arguments, "unit": target})
        same = [item for item in together if address(item) == str(network.resolve(target))]
        for one, other in zip(alone if isinstance(alone, Sheet) else [alone], same, strict=True):
            torch.testing.assert_close(shown(one), shown(other), rtol=0, atol=2e-6)


def surroundings() -> dict[str, object]:
    """What a technique could change outside of the module; Python's own generator is not among it.

    (The type checks of these tests draw from that one.)
    """
    state = np.random.get_state()  # noqa: NPY002
    return {
        "torch": octets(torch.get_rng_state()),
        "numpy": (state[1].tobytes(), state[2:]),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def shown(item: Picture | Attribution) -> Tensor:
    if isinstance(item, Attribution):
        return item.values
    return item.image if item.raw is None else item.raw


def numbers(result: Picture | Attribution | Sheet) -> list[object]:
    return [octets(shown(i)) for i in (result if isinstance(result, Sheet) else [result])]
