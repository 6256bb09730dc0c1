"""Localisation: from a saliency map to the object, by colours and a minimum cut."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from optogram.core.chance import Streams
from optogram.core.maps import BATCH, Image, asked, gradients, largest
from optogram.core.network import Network
from optogram.core.technique import technique
from optogram.core.unit import Targetlike
from optogram.pictures import Attribution, Sheet
from optogram.pictures.errors import RequestError

Mask = Bool[np.ndarray, "height width"]
Field = Float[np.ndarray, "height width"]
Pixels = Float[np.ndarray, "height width channel"]
STEPS = 100  # capacities are whole numbers: hundredths of a nat
MOST = 10_000


@technique
def localize(
    network: Network,
    image: Image,
    unit: Targetlike | Sequence[Targetlike],
    *,
    above: float = 0.95,
    below: float = 0.30,
    components: int = 5,
    smoothness: float = 50.0,
    batch: int = BATCH,
    seed: int = 0,
) -> Attribution | Sheet:
    """Cut the object out of the image, starting from saliency (Simonyan et al., 2013, sec. 3.2).

    Saliency finds the most telling parts, not the object. So the colours of pixels above its 95 %
    quantile, and of those below its 30 % quantile, are learned as mixtures of Gaussians, and a
    minimum cut finds the foreground: each pixel by its colours' log likelihood ratio, neighbours
    of like colour together (Boykov & Jolly, 2001). The largest connected piece is the object. An
    object whose colours the background shares is not found this way.

    Args:
        network: who is asked.
        image: (channel, height, width) in [0, 1], or a batch of images.
        unit: an address, or several; with a batch and several, image i goes with unit i.
        above, below: quantiles of the saliency map that start foreground and background.
        components: Gaussians in each mixture.
        smoothness: what it costs, in nats, to part two neighbours of the same colour.
        batch: how many images are computed together.
        seed: with the unit's address it decides where the mixtures start.

    Returns:
        An Attribution, or a Sheet where there are several images or units. `values` is 1 on the
        object and 0 elsewhere, `raw` the saliency map (1, height, width), `checks["box"]` the
        object's (top, left, bottom, right) in pixels, ends excluded.

    Raises RequestError for quantiles that leave too few pixels, and as `saliency` does.
    """
    if not 0 < below < above < 1 or components < 1 or smoothness < 0:
        raise RequestError(
            f"above={above}, below={below}, components={components}, smoothness={smoothness}: "
            f"quantiles 0 < below < above < 1, at least 1 Gaussian, no negative smoothness"
        )
    request = asked(network, image, unit)
    values, slopes = gradients(request, batch=batch)
    maps = []
    for i, target in enumerate(request.targets):
        shown, found = request.images[i].float().cpu(), largest(slopes[i].float().cpu())
        start = int(Streams(seed, (str(target),)).integers("mixtures", 0, 2**31 - 1, 1))
        object_ = _object(shown, found, (below, above), components, smoothness, start)
        maps.append(
            Attribution(
                values=torch.from_numpy(object_).float(),
                raw=found[None],
                image=shown,
                target=str(target),
                score=float(values[i]),
                signed=False,
                checks=_box(object_),
                unit_of_values="foreground",
            )
        )
    return request.result(maps, "localisation")


def minimum_cut(ratio: Field, pixels: Pixels, smoothness: float) -> Mask:
    """The foreground of least energy: sum of -ratio over it, plus what parted neighbours cost.

    `ratio` is each pixel's log likelihood ratio, foreground over background, in nats. Neighbours
    (8 of them) cost smoothness * exp(-d^2 / (2 mean d^2)) / distance, with d their colours'
    difference. Capacities are rounded to a hundredth of a nat. SciPy's maximum flow finds the cut.
    """
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    count = ratio.size
    source, sink = count, count + 1
    here, there, cost = _neighbours(pixels, smoothness)
    whole = np.rint(np.clip(ratio.ravel() * STEPS, -MOST, MOST)).astype(np.int32)
    cost = np.rint(np.minimum(cost * STEPS, MOST)).astype(np.int32)
    every = np.arange(count)
    rows = np.concatenate([here, there, np.full(count, source), every])
    columns = np.concatenate([there, here, every, np.full(count, sink)])
    capacity = np.concatenate([cost, cost, whole.clip(min=0), (-whole).clip(min=0)])
    graph = csr_array(coo_array((capacity, (rows, columns)), shape=(count + 2, count + 2)))
    left = graph - maximum_flow(graph, source, sink).flow
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    foreground = np.zeros(count + 2, dtype=bool)
    foreground[reached] = True
    return foreground[:count].reshape(ratio.shape)


def _object(
    image: Tensor,
    saliency: Tensor,
    quantiles: tuple[float, float],
    components: int,
    smoothness: float,
    start: int,
) -> Mask:
    from scipy.ndimage import label

    pixels = image.permute(1, 2, 0).double().numpy()
    sizes = saliency.double().numpy()
    low, high = np.quantile(sizes, quantiles)
    chosen = [pixels[sizes >= high], pixels[sizes <= low]]
    if high <= low or min(map(len, chosen)) < components:
        raise RequestError(
            f"the saliency map leaves {len(chosen[0])} pixels for the foreground and "
            f"{len(chosen[1])} for the background: too few, or the same, for {components} Gaussians"
        )
    fore, back = (_log_likelihood(some, pixels, components, start) for some in chosen)
    pieces, count = label(minimum_cut(fore - back, pixels, smoothness))
    if count == 0:
        return np.zeros(sizes.shape, dtype=bool)
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()


def _log_likelihood(some: np.ndarray, pixels: Pixels, components: int, start: int) -> Field:
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        components, reg_covar=1e-3, random_state=start, init_params="k-means++"
    )
    mixture.fit(some)
    return mixture.score_samples(pixels.reshape(-1, pixels.shape[2])).reshape(pixels.shape[:2])


def _neighbours(pixels: Pixels, smoothness: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two ends of every pair of neighbours, and what it costs to part them."""
    height, width = pixels.shape[:2]
    number = np.arange(height * width).reshape(height, width)
    pairs = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        rows, left = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        below, beside = slice(down, height), slice(max(0, right), width + min(0, right))
        apart = ((pixels[rows, left] - pixels[below, beside]) ** 2).sum(-1)
        far = np.full(apart.shape, float(np.hypot(down, right)))
        pairs.append([a.ravel() for a in (number[rows, left], number[below, beside], apart, far)])
    here, there, apart, far = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    usual = 2 * apart.mean() if apart.any() else 1.0
    return here, there, smoothness * np.exp(-apart / usual) / far


def _box(mask: Mask) -> dict[str, tuple[int, ...] | str]:
    if not mask.any():
        return {"found": "nothing"}
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return {"box": box, "found": "rows {0}-{2}, columns {1}-{3}".format(*box)}
