"""Explain: several techniques side by side on one sheet, each with what is known against it."""

import ast
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from optogram.core.cam import deepest_maps
from optogram.core.curves import curves
from optogram.core.faithful import costs, infidelity, max_sensitivity, squares
from optogram.core.maps import Asked, Image, Images, Score, asked
from optogram.core.network import Network
from optogram.core.technique import call, technique, techniques
from optogram.core.trust import DRAWS, one_by_one, trusts
from optogram.core.unit import OUTPUT, Target, Targetlike, Unit
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError
from optogram.pictures.lettering import brief

METHODS = ("saliency", "guided_backprop", "deconvnet", "grad_cam", "integrated_gradients")
AGAIN = {"integrated_gradients": {"steps": 16}}
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
    draws: int = DRAWS,
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
        checks: whether to find out what is to be believed. It takes 16 more maps by each method:
            `draws` with another top layer, 2 of networks half and 2 of networks wholly random,
            `draws` for other classes and 4 of images nearby (integrals of these 16 points).
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
    shown = [_as_given(image, one) for one in request.images.float().cpu()]
    found = [
        [way(network, one, target) for one, target in zip(shown, request.targets, strict=True)]
        for way in ways
    ]
    if checks:
        found = _checked(network, ways, found, request.targets, draws, seed)
    maps = [of_image for image_maps in zip(*found, strict=True) for of_image in image_maps]
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
        result = self._asked(network, image, _address(target))
        if isinstance(result, Sheet):
            result = result[0]
        if not isinstance(result, Attribution):
            raise RequestError(f"{self.name} makes no map of an image: leave it out of `methods`")
        return result

    def maps(
        self, network: Network, images: Images, targets: Sequence[Target]
    ) -> Sequence[Attribution | None]:
        """A map for each image and its unit; together where the technique takes several."""
        if techniques()[self.name].signature.parameters["image"].annotation != Image:
            return one_by_one(self)(network, images, targets)
        return list(self._asked(network, images, [_address(target) for target in targets]))

    def lighter(self) -> "_Way":
        """How maps are made again for the checks: integrals are taken at fewer points."""
        fewer = {n: min(self.options.get(n, m), m) for n, m in AGAIN.get(self.name, {}).items()}
        return replace(self, options=self.options | fewer)

    def _asked(self, network: Network, image: Tensor, unit: Any) -> Any:
        return call(self.name, network=network, image=image, unit=unit, **self.options)


def _checked(
    network: Network,
    ways: Sequence[_Way],
    found: list[list[Attribution]],
    targets: Sequence[Target],
    draws: int,
    seed: int,
) -> list[list[Attribution]]:
    """The maps, for each way one an image, with what is known for and against them."""
    light = [way.lighter() for way in ways]
    trusted = trusts([way.maps for way in light], network, found, targets, draws=draws, seed=seed)
    checked: list[list[Attribution]] = [[] for _ in ways]
    for i, target in enumerate(targets):
        maps = [made[i] for made in found]
        shown = maps[0].image
        shifts = squares(
            network, shown.to(network.device, network.image_dtype), str(target), 32, seed
        )
        cost = costs(network, shown, target, shifts)
        followed = curves(network, maps, target, seed=seed)
        for w, (way, again) in enumerate(zip(ways, light, strict=True)):
            here = maps[w] if again == way else again(network, shown, target)
            numbers = {
                "infidelity": infidelity(network, maps[w], target, shifts, cost),
                "max sensitivity": max_sensitivity(
                    _nearby(again, network, target), here, seed=seed
                ),
            }
            facts = trusted[w][i].facts() | followed[w].facts()
            facts |= {name: value for name, value in numbers.items() if value is not None}
            if trusted[w][i].badge == "fail":
                facts["so"] = "about the image, not the class"
            checked[w].append(replace(maps[w], checks=(maps[w].checks or {}) | facts))
    return checked


def _nearby(way: _Way, network: Network, target: Target) -> Callable[[Images], list[Attribution]]:
    def explain_all(images: Images) -> list[Attribution]:
        asked_of = images.to(network.device, network.image_dtype)
        maps = way.maps(network, asked_of, (target,) * len(images))
        return [made for made in maps if made is not None]

    return explain_all


def _address(target: Target) -> Target | str:
    """A unit as text: a stranger's technique may say `unit: str` and hand it on as its target."""
    return str(target) if isinstance(target, Unit) else target


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
