"""What becomes of a stack that learnt without labels when labels then teach all of it.

Each starts from the weights that are shipped. Pixels and units are left out at random on the way
up (Srivastava et al., 2014), without which 60,000 images are learnt by heart in a few epochs.
"""

from collections.abc import Callable

from .dbn import mnist_dbn
from .greedy import Curriculum, Lesson, classified
from .networks import read_weights, shipped
from .sdae import mnist_sdae
from .stack import Stack


def whole(epochs: int, lr: float, dropped: tuple[float, float]) -> Lesson:
    """Labels teach all layers; shares of `dropped` of pixels and hidden units are left out."""
    told = {"lr": lr, "momentum": 0.9, "falls_to": 0.0, "dropped": dropped, "layers": "all"}
    learn = classified(lr=lr, whole=True, dropped=dropped)
    return Lesson("whole", epochs, learn, judged=True, settings=told)


NOTES = (
    "Supervised fine-tuning of the shipped {name}, all layers at once, no image deformed. The rate "
    "falls to 0 and what the last step left is kept: no epoch was chosen by its error. Rate and "
    "shares were tried on the first {tried:,} training images and judged on the {judge} 10,000."
)


def _from_shipped(name: str, build: Callable[[int], Stack]) -> Callable[[int], Stack]:
    def started(seed: int) -> Stack:
        stack = build(seed)
        stack.load_state_dict(read_weights(shipped(f"{name}.safetensors")))
        return stack

    return started


def _tuned(name: str, build: Callable[[int], Stack], lesson: Lesson, tried: int) -> Curriculum:
    return Curriculum(
        name=f"{name}-tuned",
        build=_from_shipped(name, build),
        data="mnist",
        shape=(1, 28, 28),
        lessons=(lesson,),
        notes=NOTES.format(name=name, tried=tried, judge="other" if tried == 50_000 else "last"),
    )


DBN = _tuned("mnist-dbn", mnist_dbn, whole(40, 1.0, (0.2, 0.3)), 50_000)
SDAE = _tuned("mnist-sdae", mnist_sdae, whole(30, 0.3, (0.2, 0.2)), 10_000)
