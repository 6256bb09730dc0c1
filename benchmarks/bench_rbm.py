"""How fast a restricted Boltzmann machine learns, beside scikit-learn's and its bare products."""

from collections.abc import Callable

import torch
from sklearn.neural_network import BernoulliRBM
from torch import Tensor

from benchmarks.paired import paired
from optogram.core.boltzmann import Boltzmann
from optogram.zoo.rbm import Rates, learn, machine, pseudo_likelihood

IMAGES, BATCH, EPOCHS, SIZES = 10_000, 100, 2, (784, 500)
LR = 0.05


def run() -> list[dict[str, object]]:
    """Persistent chains, one sweep a step, as scikit-learn has no other."""
    images = strokes(IMAGES)
    check(images)
    rows = []
    ways = {"scikit-learn": theirs(images), "the products alone": products(images)}
    for half in (False, True):
        for way, call in ways.items():
            kind = "ours in bfloat16" if half else "ours"
            row: dict[str, object] = {
                "what": f"RBM, {IMAGES} images, batch {BATCH}, {EPOCHS} epochs, {way} / {kind}",
                "network": f"{SIZES[0]}-{SIZES[1]}, {torch.get_num_threads()} threads",
            }
            rows.append(row | paired(call, ours(images, half), repeats=5).row())
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


def ours(images: Tensor, half: bool = False) -> Callable[[], Boltzmann]:
    def call() -> Boltzmann:
        rbm, rates = machine(*SIZES), Rates(lr=LR, persistent=True, momentum=0.0, half=half)
        memory: dict[str, Tensor] = {}
        chance = torch.Generator().manual_seed(0)
        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(images), generator=chance).split(BATCH):
                learn(rbm, images[chosen], rates, memory, chance)
        return rbm

    return call


def theirs(images: Tensor) -> Callable[[], BernoulliRBM]:
    def call() -> BernoulliRBM:
        settings = {"learning_rate": LR, "batch_size": BATCH, "n_iter": EPOCHS, "random_state": 0}
        return BernoulliRBM(SIZES[1], **settings).fit(images.numpy())

    return call


def products(images: Tensor) -> Callable[[], None]:
    """The matrix products that a step cannot do without: up, down, up, and two for the weights."""
    weight, hidden = torch.randn(SIZES[1], SIZES[0]), torch.rand(BATCH, SIZES[1])

    def call() -> None:
        for _ in range(EPOCHS):
            for batch in images.split(BATCH):
                batch @ weight.T
                below = hidden @ weight
                below @ weight.T
                hidden.T @ batch
                hidden.T @ below

    return call


def check(images: Tensor) -> None:
    """Both must have learnt as much: by pseudo-likelihood, within a tenth of what was gained."""
    twin, fresh = machine(*SIZES), machine(*SIZES)
    known = theirs(images)()
    twin.weight.copy_(torch.from_numpy(known.components_))
    twin.visible.copy_(torch.from_numpy(known.intercept_visible_))
    twin.hidden.copy_(torch.from_numpy(known.intercept_hidden_))
    before, wanted = (_likelihood(rbm, images) for rbm in (fresh, twin))
    for half in (False, True):
        found = _likelihood(ours(images, half)(), images)
        if found - before < 0.9 * (wanted - before):
            raise AssertionError(f"ours: from {before} to {found}, scikit-learn's to {wanted}")


def _likelihood(rbm: Boltzmann, images: Tensor) -> float:
    chance = torch.Generator().manual_seed(1)
    return float(pseudo_likelihood(rbm, images, chance).mean())
