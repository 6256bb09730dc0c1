"""What is measured about one network: filters, optima, their surroundings, and the techniques."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from optogram.core.boltzmann import BeliefNetwork
from optogram.core.chance import generator
from optogram.core.unit import Unit
from optogram.studies.drawing import GREY, Line, Tile, chart, grid, stacked
from optogram.studies.found import Claim, Figure, Found, Verdict
from optogram.survey.datasets import Images
from optogram.techniques import combine_filters, sample
from optogram.zoo.dbn import dream

from .subject import LAYERS, Subject, numbers

SHOWN = 6
ANGLES = torch.linspace(0, 90, 19)
DIRECTIONS = 20
BAND = 22.5


def first_layer(subject: Subject) -> Found:
    """The weights of the first layer, how local they are, and how much they have one direction."""
    layer = subject.network.module.get_submodule("h1")
    weights = layer.get_parameter("weight").detach().cpu().view(-1, *subject.network.shape)
    strong = weights.flatten(1).norm(dim=1).argsort(descending=True)[:: len(weights) // 64][:64]
    tiles = [Tile(_grey(weights[i])) for i in sorted(strong.tolist())]
    rows = [tiles[i : i + 16] for i in range(0, len(tiles), 16)]
    share, own = share_in_band(weights[:, 0]), participation(weights)
    chance = share_in_band(torch.randn(weights[:, 0].shape, generator=generator("band")))
    found = {
        "share_in_band": float(share.median()),
        "share_in_band_of_noise": float(chance.median()),
        "pixels": float(own.median()),
    }
    pixels = weights[0].numel()
    local = found["share_in_band"] > 1.25 * found["share_in_band_of_noise"]
    local &= found["pixels"] < pixels / 3
    photos = "patches" in subject.network.name
    claim = Claim(
        "The first layer has Gabor-like filters on patches of photographs."
        if photos
        else "The first layer has strokes on digits.",
        f"{found['share_in_band']:.0%} of a filter's power within {BAND} degrees of its strongest "
        f"direction (noise: {found['share_in_band_of_noise']:.0%}), spread over "
        f"{found['pixels']:.0f} of {pixels} pixels, in the median",
        "confirmed" if local else "not confirmed",
        "filters",
    )
    caption = "Weights of 64 first-layer units, grey where they are 0, each to its largest."
    return Found(found, (claim,), (_figure(subject, "filters", caption, grid(rows, side=56)),))


def optima(subject: Subject) -> Found:
    """What maximisation finds on the sphere, against theory, the data and other starts."""
    found: dict[str, Any] = {}
    weights = subject.network.module.get_submodule("h1").get_parameter("weight").detach().cpu()
    for layer in LAYERS:
        best = subject.best(layer)
        images = numbers(list(best.values()))
        there = subject.heard(layer, subject.images).amax(0)
        lengths = (images - subject.centre).flatten(1).norm(dim=1)
        agreed = torch.tensor([_agreement(subject, each) for each in subject.optima[layer]])
        above = [picture.score >= float(there[unit]) for unit, picture in best.items()]
        found[layer] = {
            "units": len(best),
            "norm_error": float((lengths / subject.rho - 1).abs().max()),
            "above_data": sum(above) / len(above),
            "starts_agree": float((agreed >= 0.9).double().mean()),
            "pairwise_cosine": [float(q) for q in agreed.quantile(torch.tensor([0, 0.25, 0.5, 1]))],
        }
        if layer == "h1":
            theirs = torch.nn.functional.normalize(weights[list(best)], dim=1)
            found["cosine_with_weights"] = float((subject.away(images) * theirs).sum(1).min())
    return Found(found, _optimum_claims(found, len(subject.images)))


def around(subject: Subject) -> Found:
    """How a unit's activation falls along random directions on the sphere, from its optimum."""
    found: dict[str, Any] = {"angles": ANGLES.tolist()}
    lines = {}
    for layer in LAYERS:
        curves = torch.stack(
            [
                along(subject, Unit(layer, unit), numbers([picture])[0])
                for unit, picture in subject.best(layer).items()
            ]
        )
        share = curves / curves[..., :1]
        falls = (share.diff(dim=-1) <= 0.01).all(-1).double().mean()
        found[layer] = {
            "mean": share.mean((0, 1)).tolist(),
            "spread": share.std((0, 1)).tolist(),
            "fall_all_the_way": float(falls),
        }
        lines[layer] = ANGLES.tolist(), share.mean((0, 1)).clamp(min=0).tolist()
    least = min(found[layer]["fall_all_the_way"] for layer in LAYERS)
    claim = Claim(
        "Around its optimum a unit has one smooth hill.",
        "of the paths from an optimum along random directions, the share on which the activation "
        "falls all the way to 90 degrees: "
        + ", ".join(f"{layer} {found[layer]['fall_all_the_way']:.0%}" for layer in LAYERS),
        "confirmed" if least >= 0.9 else "not confirmed",
        "around",
    )
    drawn = chart(lines, across="degrees from the optimum", up="activation over the optimum's")
    caption = (
        f"Activation on {DIRECTIONS} random great circles through the optimum of each unit, the "
        "mean over units and circles."
    )
    figures = () if drawn is None else (_figure(subject, "around", caption, drawn),)
    return Found(found, (claim,), figures)


def techniques(subject: Subject) -> Found:
    """The same units by every technique, and the training image closest to each optimum."""
    found: dict[str, Any] = {}
    drawings, seen = [], subject.away(subject.images)
    for layer in LAYERS:
        best = list(subject.best(layer).items())
        step = max(1, len(best) // SHOWN)
        some = best[::step][:SHOWN]
        units = [Unit(layer, unit) for unit, _ in some]
        ways = {"maximised": numbers([picture for _, picture in some])}
        combined = numbers([combine_filters(subject.network, u) for u in units])
        ways["combined"] = subject.on_sphere(subject.centre + combined)
        if subject.belief:
            sweeps = 50 if subject.quick else 200
            drawn = [sample(subject.network, u, sweeps=sweeps, seed=subject.seed) for u in units]
            ways["sampled"] = numbers(drawn)
        alike = subject.away(ways["maximised"]) @ seen.T
        ways["closest image"] = subject.images[alike.argmax(1)]
        found[layer] = {
            "units": [str(unit) for unit in units],
            **{name: _facts(subject, units, images, seen) for name, images in ways.items()},
        }
        rows = [_row(subject, name, images, found[layer][name]) for name, images in ways.items()]
        drawings.append(grid(rows, heads=[str(u) for u in units], sides=list(ways), side=96))
    caption = (
        "The same units by each technique. Under each what goes into the unit where the picture is "
        "brought to the data's norm. The last row is the training image closest to the maximised "
        "one, of those that the study looks at."
    )
    titles = ["first layer", "second layer", "third layer"]
    figure = _figure(subject, "techniques", caption, stacked(drawings, titles))
    return Found(found, _technique_claims(subject, found), (figure,))


def dreams(subject: Subject) -> Found:
    """Images that a belief network draws of itself."""
    count, sweeps = 32, (100 if subject.quick else 500)
    values = dream(subject.network.module, chains=count, sweeps=sweeps, seed=subject.seed)  # type: ignore[arg-type]
    white, black = subject.network.normalized(
        torch.stack([torch.ones(subject.network.shape), torch.zeros(subject.network.shape)])
    ).cpu()
    drawn = (values.view(-1, *subject.network.shape) - black) / (white - black)
    like = subject.away(drawn) @ subject.away(subject.images).T
    found = {"cosine_with_closest": float(like.amax(1).median())}
    photos = "patches" in subject.network.name
    tiles = [Tile(_grey(x - subject.centre) if photos else x.clamp(0, 1)) for x in drawn]
    rows = [tiles[i : i + 16] for i in range(0, count, 16)]
    caption = f"Drawn from the whole network, {sweeps} sweeps of its top machine, no unit held."
    return Found(found, (), (_figure(subject, "drawn", caption, grid(rows, side=56)),))


def parts_of(subject: Subject) -> dict[str, Any]:
    """The parts that make sense for a network, by name."""
    every = {"first-layer": first_layer, "optima": optima, "around": around}
    every["techniques"] = techniques
    if isinstance(subject.network.module, BeliefNetwork):
        every["drawn"] = dreams
    return every


def along(
    subject: Subject, unit: Unit, optimum: Float[Tensor, "channel height width"]
) -> Float[Tensor, "direction angle"]:
    """What goes into a unit on great circles through an optimum, in random directions."""
    top = (optimum - subject.centre).flatten()
    top = top / top.norm()
    chance = generator(subject.seed, "directions", str(unit))
    free = torch.randn(DIRECTIONS, len(top), generator=chance)
    free = torch.nn.functional.normalize(free - (free @ top)[:, None] * top, dim=1)
    angles = torch.deg2rad(ANGLES)
    path = angles.cos()[:, None] * top + angles.sin()[:, None] * free[:, None]
    images = subject.centre + subject.rho * path.view(-1, *subject.network.shape)
    return subject.ask(unit, images).view(DIRECTIONS, len(ANGLES))


def share_in_band(
    filters: Float[Tensor, "filter height width"],
) -> Float[Tensor, " filter"]:
    """The share of a filter's power within 22.5 degrees of the direction that has most of it."""
    power = torch.fft.fft2(filters, s=(32, 32)).abs().square()
    power[:, 0, 0] = 0
    frequency = torch.fft.fftfreq(32)
    angle = torch.rad2deg(torch.atan2(frequency[:, None], frequency[None])) % 180
    apart = (angle[None] - torch.arange(0, 180, 7.5)[:, None, None]).abs()
    near = torch.minimum(apart, 180 - apart) <= BAND
    shares = torch.einsum("fhw,ahw->fa", power, near.float()) / power.sum((1, 2))[:, None]
    return shares.amax(1)


def participation(filters: Images) -> Float[Tensor, " filter"]:
    """Over how many pixels a filter's power is spread: (sum w^2)^2 / sum w^4."""
    power = filters.flatten(1).square()
    return power.sum(1).square() / power.square().sum(1)


def _agreement(subject: Subject, starts: list[Any]) -> float:
    """The median cosine between any two optima of a unit."""
    rows = subject.away(numbers(starts))
    among = torch.triu_indices(len(rows), len(rows), 1)
    return float((rows @ rows.T)[among[0], among[1]].median())


def _facts(
    subject: Subject, units: list[Unit], images: Images, seen: Float[Tensor, "image number"]
) -> dict[str, Any]:
    placed = subject.on_sphere(images)
    values = subject.heard(units[0].layer, placed)
    own = [float(values[i, int(str(unit.index))]) for i, unit in enumerate(units)]
    closest = (subject.away(placed) @ seen.T).amax(1)
    return {"values": own, "cosine_with_closest": float(closest.mean())}


def _row(subject: Subject, name: str, images: Images, facts: dict[str, Any]) -> list[Tile]:
    photos = "patches" in subject.network.name
    real = name in ("sampled", "closest image")
    tiles = []
    for image, value in zip(images, facts["values"], strict=True):
        shown = image / image.max().clamp(min=1e-12) if real and not photos else None
        tile = _grey(image - subject.centre) if shown is None else shown.clamp(0, 1)
        tiles.append(Tile(tile, (Line(f"{value:.1f}", GREY),)))
    return tiles


def _grey(image: Float[Tensor, "channel height width"]) -> Float[Tensor, "channel height width"]:
    return 0.5 + 0.5 * image / image.abs().max().clamp(min=1e-30)


def _figure(subject: Subject, name: str, caption: str, drawing: Any) -> Figure:
    return Figure(f"{subject.network.name}-{name}", caption, drawing)


def _verdict(holds: bool) -> Verdict:
    return "confirmed" if holds else "not confirmed"


def _optimum_claims(found: dict[str, Any], compared: int) -> tuple[Claim, ...]:
    above = [found[layer]["above_data"] for layer in LAYERS]
    agree = [found[layer]["starts_agree"] for layer in LAYERS]
    error = max(found[layer]["norm_error"] for layer in LAYERS)
    cosine = found["cosine_with_weights"]
    medians = ", ".join(f"{found[layer]['pairwise_cosine'][2]:.3f}" for layer in LAYERS)
    return (
        Claim(
            "A first-layer unit's optimum is its weights, at the norm of the data.",
            f"least cosine {cosine:.5f}; norms differ by {error:.1e} at most",
            _verdict(cosine >= 0.999 and error <= 1e-5),
        ),
        Claim(
            "No image of the data excites a unit as much as its optimum.",
            f"share of {found['h1']['units']} units a layer whose optimum is above the best of "
            f"{compared:,} training images at that norm, layers 1 to 3: "
            + ", ".join(f"{share:.0%}" for share in above),
            _verdict(min(above[:2]) >= 0.95),
        ),
        Claim(
            "Wherever it starts, maximisation ends at the same picture.",
            "share of units whose nine optima have a median pairwise cosine of 0.9 or more, layers "
            "1 to 3: " + ", ".join(f"{share:.0%}" for share in agree) + f"; median {medians}",
            _verdict(min(agree[:2]) >= 0.7),
        ),
    )


def _technique_claims(subject: Subject, found: dict[str, Any]) -> tuple[Claim, ...]:
    more, closer = [], []
    for layer in LAYERS:
        each = found[layer]
        pairs = zip(each["maximised"]["values"], each["combined"]["values"], strict=True)
        more += [a >= b - 1e-3 * abs(b) for a, b in pairs]
        if subject.belief:
            ways = ("sampled", "maximised")
            closer.append([each[way]["cosine_with_closest"] for way in ways])
    claims = [
        Claim(
            "Maximisation finds at least as much as the combination of filters.",
            f"in {sum(more)} of {len(more)} units, at the same norm",
            _verdict(all(more)),
            "techniques",
        )
    ]
    if subject.belief:
        told = ", ".join(f"{a:.2f} against {b:.2f}" for a, b in closer)
        claims.append(
            Claim(
                "Samples look like the data, optima like features.",
                f"cosine with the closest training image, sampled and maximised, layers 1 to 3: "
                f"{told}",
                _verdict(all(a > b for a, b in closer)),
                "techniques",
            )
        )
    return tuple(claims)
