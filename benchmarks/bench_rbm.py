"""How fast a restricted Boltzmann machine learns, beside scikit-learn's and its bare products."""

from collections.abc import Callable

import torch
from sklearn.neural_network import BernoulliRBM
from torch import Tensor

from benchmarks.paired import paired
from optogram.core.boltzmann import Boltzmann
from optogram.zoo.rbm import Rates, learn, machine, pseudo_likelihood

IMAGES = {10: 1_500, 100: 5_000, 500: 10_000}
"""How many images are shown, by batch; 10 is scikit-learn's default."""
CHECKED, SIZES = 100, (784, 500)
LR = 0.05


def run() -> list[dict[str, object]]:
    """Persistent chains, one sweep a step, as scikit-learn has no other; one epoch.

    What a float64 array is given, scikit-learn computes in float64, else in float32. "The products
    alone" is what no way to learn can do without at ours' precision: where scikit-learn takes less
    than three times as long as those in float32, ours cannot be three times as fast in float32.
    """
    check(strokes(10_000))
    rows = []
    for batch, count in IMAGES.items():
        images = strokes(count)
        double = images.double()
        single, half = ours(images, batch), ours(images, batch, half=True)
        floors = [products(images, batch, kind) for kind in (torch.float32, torch.bfloat16)]
        pairs = {
            "scikit-learn in float32 / ours": (theirs(images, batch), single),
            "scikit-learn in float64 / ours": (theirs(double, batch), single),
            "scikit-learn in float32 / ours in bfloat16": (theirs(images, batch), half),
            "scikit-learn in float64 / ours in bfloat16": (theirs(double, batch), half),
            "scikit-learn in float32 / the products alone": (theirs(images, batch), floors[0]),
            "ours / the products alone": (single, floors[0]),
            "ours in bfloat16 / the products alone": (half, floors[1]),
        }
        for what, pair in pairs.items():
            row: dict[str, object] = {
                "what": f"RBM, batch {batch}: {what}",
                "network": f"{SIZES[0]}-{SIZES[1]}, {torch.get_num_threads()} threads",
            }
            rows.append(row | paired(*pair, repeats=5).row())
    return rows


def strokes(count: int) -> Tensor:
    """28 x 28 images of 0 and 1 with three bars each, a seventh of the pixels on."""
    chance = torch.Generator().manual_seed(0)
    images = torch.zeros(count, 28, 28)
    rows = torch.randint(28, (count, 2), generator=chance)
    columns = torch.randint(28, (count, 2), generator=chance)
    every = torch.arange(count)
    for n in range(2):
        images[every, rows[:, n]] = 1
        images[every, :, columns[:, n]] = 1
    return images.flatten(1)


def ours(
    images: Tensor, batch: int, epochs: int = 1, *, half: bool = False
) -> Callable[[], Boltzmann]:
    def call() -> Boltzmann:
        rbm, rates = machine(*SIZES), Rates(lr=LR, persistent=True, momentum=0.0, half=half)
        memory: dict[str, Tensor] = {}
        chance = torch.Generator().manual_seed(0)
        for _ in range(epochs):
            for chosen in torch.randperm(len(images), generator=chance).split(batch):
                learn(rbm, images[chosen], rates, memory, chance)
        return rbm

    return call


def theirs(images: Tensor, batch: int, epochs: int = 1) -> Callable[[], BernoulliRBM]:
    def call() -> BernoulliRBM:
        settings = {"learning_rate": LR, "batch_size": batch, "n_iter": epochs, "random_state": 0}
        return BernoulliRBM(SIZES[1], **settings).fit(images.numpy())

    return call


def products(images: Tensor, batch: int, kind: torch.dtype) -> Callable[[], None]:
    """A step's products, as few as can be: down, up for data and chains, one for the weights."""
    weight = torch.randn(SIZES[1], SIZES[0]).to(kind)
    hidden, both = torch.rand(batch, SIZES[1]).to(kind), torch.rand(2 * batch, SIZES[1]).to(kind)
    visible = images[torch.arange(2 * batch) % len(images)].to(kind)

    def call() -> None:
        for _ in range(len(images) // batch):
            hidden @ weight
            visible @ weight.T
            both.T @ visible

    return call


def check(images: Tensor) -> None:
    """Both must have learnt as much: by pseudo-likelihood, within a tenth of what was gained."""
    twin, fresh = machine(*SIZES), machine(*SIZES)
    known = theirs(images, CHECKED, 2)()
    twin.weight.copy_(torch.from_numpy(known.components_))
    twin.visible.copy_(torch.from_numpy(known.intercept_visible_))
    twin.hidden.copy_(torch.from_numpy(known.intercept_hidden_))
    before, wanted = (_likelihood(rbm, images) for rbm in (fresh, twin))
    for half in (False, True):
        found = _likelihood(ours(images, CHECKED, 2, half=half)(), images)
        if found - before < 0.9 * (wanted - before):
            raise AssertionError(f"ours: from {before} to {found}, scikit-learn's to {wanted}")


def _likelihood(rbm: Boltzmann, images: Tensor) -> float:
    chance = torch.Generator().manual_seed(1)
    return float(pseudo_likelihood(rbm, images, chance).mean())
