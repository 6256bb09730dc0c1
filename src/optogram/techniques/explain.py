"""Explain: several techniques side by side on one sheet, each with what is known against it."""

import ast
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from optogram.core.cam import deepest_maps
from optogram.core.curves import Curves, curves
from optogram.core.faithful import infidelity, max_sensitivity, squares
from optogram.core.maps import Asked, Image, Score, asked
from optogram.core.network import Network
from optogram.core.technique import call, technique, techniques
from optogram.core.trust import trust
from optogram.core.unit import OUTPUT, Target, Targetlike, Unit
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError
from optogram.pictures.lettering import brief

METHODS = ("saliency", "guided_backprop", "deconvnet", "grad_cam", "integrated_gradients")
INSENSITIVE = ("guided_backprop", "deconvnet", "guided_grad_cam")


@technique
def explain(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    methods: Sequence[str] = METHODS,
    checks: bool = False,
    score: Score = "activation",
    scale: Literal["shared", "each"] = "shared",
    draws: int = 6,
    seed: int = 0,
) -> Sheet:
    """Explain one answer by several techniques, side by side, and say which of them to believe.

    With `checks`, every map is made again on networks whose top layer is random, then whose layers
    are random from the top down, and for other classes: what stays the same cannot be about what
    the network knows of this class (Adebayo et al., 2018). Pixels are deleted and inserted in the
    map's order, against a random order and a blob in the middle. What the wholly random network
    draws is the noise floor, under which the map is grey. All of it is in `checks` of each map.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        methods: names of techniques that explain an image, third parties' too, with options if need
            be: "occlusion(patch=45)".
        checks: whether to find out what is to be believed; takes about 20 times as long.
        score: "activation" before the ReLU, for classes the logit; or a class's "probability".
        scale: "shared": one colour scale for all maps measured in the same unit; or "each".
        draws: how often the top layer is made random, and how many other classes are asked about.
        seed: decides what is random.

    Returns:
        A Sheet with an Attribution for each method, image by image.

    Raises RequestError for a technique that is not there or explains no image, and for whatever the
    techniques themselves refuse.
    """
    request = asked(network, image, unit, score)
    if not methods:
        raise RequestError("no method was asked for: give at least one, as in methods=['saliency']")
    ways = [_Way.read(text, request, seed) for text in methods]
    maps: list[Attribution] = []
    for shown, target in zip(request.images.float().cpu(), request.targets, strict=True):
        rivals: Curves | None = None
        for way in ways:
            found = way(network, _as_given(image, shown), target)
            if checks:
                rivals = curves(network, found, target, rivals=rivals, seed=seed)
                found = _checked(way, network, found, target, draws, seed, rivals)
            maps.append(found)
    columns = len(ways) if len(request) > 1 else None
    return Sheet(tuple(maps), title=_title(request, maps), scale=scale, columns=columns)


@dataclass(frozen=True)
class _Way:
    """A technique and its options, ready to be asked of any network."""

    name: str
    options: dict[str, Any]

    @classmethod
    def read(cls, text: str, request: Asked, seed: int) -> "_Way":
        """A technique from text such as `occlusion(patch=45)`, with what all of them share."""
        name, given = _parsed(text)
        known = techniques()
        if name not in known or not _explains(known[name].signature):
            fit = [n for n, t in known.items() if _explains(t.signature) and n != "explain"]
            raise RequestError(f"{name!r} explains no image; these do: {', '.join(fit)}")
        takes = known[name].options
        if wrong := [option for option in given if option not in takes]:
            raise RequestError(f"{name} has no option {wrong[0]!r}; it has {', '.join(takes)}")
        shared: dict[str, Any] = {"score": request.score, "seed": seed}
        if "layer" in takes and given.get("layer") is None:
            shared["layer"] = deepest_maps(request)
        return cls(name, {n: v for n, v in shared.items() if n in takes} | given)

    def __call__(self, network: Network, image: Tensor, target: Target) -> Attribution:
        """The technique's map for one image and one unit."""
        # A stranger's technique may say `unit: str`, and hand it on as its map's target.
        asked_of = str(target) if isinstance(target, Unit) else target
        result = call(self.name, network=network, image=image, unit=asked_of, **self.options)
        if isinstance(result, Sheet):
            result = result[0]
        if not isinstance(result, Attribution):
            raise RequestError(f"{self.name} makes no map of an image: leave it out of `methods`")
        return result


def _checked(
    way: _Way,
    network: Network,
    found: Attribution,
    target: Target,
    draws: int,
    seed: int,
    followed: Curves,
) -> Attribution:
    trusted = trust(way, network, found, target, draws=draws, seed=seed)
    facts = trusted.facts() | followed.facts()
    image = found.image.to(network.device, network.image_dtype)
    shifts = squares(network, image, str(target), 32, seed)
    numbers = {
        "infidelity": infidelity(network, found, target, shifts),
        "max sensitivity": max_sensitivity(
            lambda moved: way(network, moved, target), found, seed=seed
        ),
    }
    facts |= {name: value for name, value in numbers.items() if value is not None}
    if trusted.badge == "fail":
        facts["so"] = "about the image, not the class"
    return replace(found, checks=(found.checks or {}) | facts)


def _title(request: Asked, maps: Sequence[Attribution]) -> str:
    """The network, what was asked and its score; then, in words, which maps not to believe."""
    named = dict.fromkeys(_spoken(request.network, target) for target in request.targets)
    head = f"{request.network.name}: {', '.join(named)}"
    if len(request) == 1:
        head += f", {request.unit_of(request.targets[0])} {brief(maps[0].score)}"
    failed = dict.fromkeys(_name(item) for item in maps if "so" in (item.checks or {}))
    expected = [name for name in failed if name in INSENSITIVE]
    others = [name for name in failed if name not in INSENSITIVE]
    notes = []
    for names, remark in ((expected, ", as is known of such rules"), (others, "")):
        if names:
            listed = " and ".join(name.replace("_", " ") for name in names)
            notes.append(
                f"{listed}: the map stays much the same when the top layer is random{remark}; it "
                f"shows what is in the image, not why the answer is this one."
            )
    return " ".join([f"{head}." if notes else head, *notes])


def _spoken(network: Network, target: Target) -> str:
    if target.layer != OUTPUT or not isinstance(target.index, int):
        return str(target)
    label = network.label(target.index)
    return str(target) if label == str(target.index) else f"{target} {label}"


def _name(item: Attribution) -> str:
    return str(item.recipe.get("technique") or "a map")


def _as_given(given: Tensor, image: Tensor) -> Tensor:
    """The image; where it is the one that was given, with the file it came from, for the recipe."""
    source = getattr(given, "source", None)
    if source is not None and given.dim() == 3:
        image.source = source  # type: ignore[attr-defined]
    return image


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    name, bracket, _ = text.strip().partition("(")
    name = name.strip().replace("-", "_")
    if not bracket:
        return name, {}
    try:
        tree = ast.parse(name + text.strip()[len(name) :], mode="eval").body
        assert isinstance(tree, ast.Call)
        assert not tree.args
        return name, {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords}
    except (SyntaxError, ValueError, AssertionError) as problem:
        raise RequestError(
            f"cannot read the method {text!r}: write it as in 'occlusion(patch=45)'"
        ) from problem


def _explains(signature: inspect.Signature) -> bool:
    return list(signature.parameters)[:3] == ["network", "image", "unit"]
