"""How a stack is taught: lesson by lesson, most of them about one layer with those below at rest.

A lesson is some epochs of one way to learn. Between epochs the training is stored, so that a killed
one goes on and ends with the same bytes; what comes out is written as every network of the zoo is.
"""

import copy
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors.torch import load, save
from torch import Tensor, nn

from optogram.core.boltzmann import flip
from optogram.core.chance import generator
from optogram.pictures.errors import RequestError
from optogram.pictures.files import write_atomically
from optogram.survey.datasets import ImageSet, Shape
from optogram.version import __version__

from .records import records
from .stack import Flat, Stack
from .training import Progress, Trained, check_folder, half_matrices

AT_ONCE = 1000


@dataclass(frozen=True)
class Batch:
    """What one step of a lesson is given; its random numbers come from `chance` alone.

    `done` is the share of the lesson that lies behind, and `memory` what earlier steps of the same
    lesson left, tensors by name.
    """

    inputs: Flat
    labels: Int64[Tensor, " batch"]
    chance: torch.Generator
    memory: dict[str, Tensor]
    done: float


@dataclass(frozen=True)
class Lesson:
    """Some epochs of one way to learn: `learn(stack, batch)` takes a step and returns its loss.

    Its inputs are what hidden layer `below` says of the training images (0: the images); they are
    worked out once, so the lesson must leave the layers up to it alone. `settings` are what the
    account tells. `judged` measures the accuracy after each epoch.
    """

    name: str
    epochs: int
    learn: Callable[[Any, Batch], float]
    below: int = 0
    batch: int = 100
    judged: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Curriculum:
    """All that decides how a stack is trained, but for the seed and the thread count.

    The stack is shown (image - mean) / std. `measure(stack, test images)` adds what is special
    about it to the account; its images are as the stack is shown them.
    """

    name: str
    build: Callable[[int], Stack]
    data: str
    shape: Shape
    lessons: tuple[Lesson, ...]
    measure: Callable[[Any, Flat], dict[str, Any]] | None = None
    mean: float = 0.0
    std: float = 1.0
    notes: str = ""

    @property
    def epochs(self) -> int:
        """The epochs of all lessons together."""
        return sum(lesson.epochs for lesson in self.lessons)

    def train(
        self,
        data: tuple[ImageSet, ImageSet],
        out: str | os.PathLike[str],
        *,
        seed: int = 0,
        device: str = "cpu",
        every: int = 125,
        tried: tuple[dict[str, Any], ...] = (),
    ) -> Iterator[Progress | Trained]:
        """Teach a new stack and write it, as `optogram.zoo.training.train` describes."""
        run = _Run(self, *data, Path(out), seed, torch.device(device))
        check_folder(run.out)
        stack = self.build(seed).to(run.device)
        state = _resumed(run, stack)
        before = 0
        for lesson in self.lessons:
            if len(state.curves) < before + lesson.epochs:
                yield from _taught(run, state, lesson, before, every)
            before += lesson.epochs
        trained = _written(run, state, tried)
        run.checkpoint.unlink(missing_ok=True)
        yield trained


def descend(
    stack: Stack,
    names: list[str],
    loss: Float[Tensor, ""],
    memory: dict[str, Tensor],
    *,
    lr: float,
    momentum: float,
    decay: float = 0.0,
) -> None:
    """One step of gradient descent with momentum on the parameters of those names."""
    parameters = [stack.get_parameter(name) for name in names]
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
            if decay and parameter.ndim > 1:
                gradient = gradient + decay * parameter
            before = memory.get(name)
            memory[name] = gradient if before is None else before.mul_(momentum).add_(gradient)
            parameter.sub_(lr * memory[name])


def classified(
    *,
    lr: float,
    momentum: float = 0.9,
    decay: float = 0.0,
    whole: bool = False,
    dropped: tuple[float, float] = (0.0, 0.0),
) -> Callable[[Stack, Batch], float]:
    """Learn to say the class: by `digit` alone from the top layer, or by the `whole` way up.

    The latter is supervised fine-tuning of the unrolled stack, to be given images (`below=0`). The
    rate falls evenly to 0 over the lesson. On the whole way up shares of `dropped` of the pixels
    and of the hidden units are set to 0 at each step, and the others raised (Srivastava et al.,
    2014).
    """

    def learn(stack: Stack, batch: Batch) -> float:
        names = [f"h{n}" for n in range(1, stack.depth + 1)] if whole else []
        names = [f"{name}.{part}" for name in [*names, "digit"] for part in ("weight", "bias")]
        top = _thinned(stack, batch, dropped) if whole else batch.inputs
        loss = nn.functional.cross_entropy(stack.get_submodule("digit")(top), batch.labels)
        rate = lr * (1 - batch.done)
        descend(stack, names, loss, batch.memory, lr=rate, momentum=momentum, decay=decay)
        return loss.item()

    return learn


def _thinned(stack: Stack, batch: Batch, dropped: tuple[float, float]) -> Flat:
    """What the top layer says of a batch while pixels and hidden units are left out."""
    values = _left(batch.inputs, dropped[0], batch.chance)
    for number in range(stack.depth):
        values = _left(stack.up(values, number, number + 1), dropped[1], batch.chance)
    return values


def _left(values: Flat, share: float, chance: torch.Generator) -> Flat:
    if not share:
        return values
    return values * flip(torch.full_like(values, 1 - share), chance) / (1 - share)


@dataclass(frozen=True)
class _Run:
    """What is fixed for a whole training."""

    curriculum: Curriculum
    training: ImageSet
    test: ImageSet
    out: Path
    seed: int
    device: torch.device

    @property
    def checkpoint(self) -> Path:
        return self.out.with_name(f"{self.out.name}.checkpoint")

    def look(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the stack wants them."""
        return (images - self.curriculum.mean) / self.curriculum.std

    def fingerprint(self) -> str:
        """What must be equal for two runs to end alike."""
        return json.dumps(
            {
                "curriculum": _told(self.curriculum),
                "seed": self.seed,
                "training": self.training.digest,
                "test": self.test.digest,
                "threads": torch.get_num_threads(),
                "device": self.device.type,
            }
        )


@dataclass(eq=False)
class _State:
    """What changes while training; `curves` has an entry for every finished epoch."""

    stack: Stack
    memory: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    curves: list[dict[str, Any]] = field(default_factory=list)


def _told(curriculum: Curriculum) -> list[dict[str, Any]]:
    return [
        {
            "lesson": lesson.name,
            "epochs": lesson.epochs,
            "batch": lesson.batch,
            "below": lesson.below,
            **lesson.settings,
        }
        for lesson in curriculum.lessons
    ]


def _resumed(run: _Run, stack: Stack) -> _State:
    state = _State(stack)
    if not run.checkpoint.exists():
        return state
    try:
        saved = torch.load(BytesIO(run.checkpoint.read_bytes()), weights_only=True)
        fingerprint = saved["fingerprint"]
    except Exception as error:  # torch, zipfile and pickle fail in ways of their own
        raise RequestError(f"the checkpoint '{run.checkpoint}' is broken; delete it") from error
    if fingerprint != run.fingerprint():
        raise RequestError(
            f"'{run.checkpoint}' is of a training with other settings, data or threads; delete it "
            "to begin anew, or write to another file"
        )
    stack.load_state_dict(saved["stack"])
    memory = {name: value.to(run.device) for name, value in saved["memory"].items()}
    return _State(stack, memory, saved["seconds"], saved["curves"])


def _save_checkpoint(run: _Run, state: _State) -> None:
    saved = {
        "fingerprint": run.fingerprint(),
        "stack": state.stack.state_dict(),
        "memory": state.memory,
        "seconds": state.seconds,
        "curves": state.curves,
    }
    content = BytesIO()
    torch.save(saved, content)
    write_atomically(run.checkpoint, content.getvalue())


def _taught(
    run: _Run, state: _State, lesson: Lesson, before: int, every: int
) -> Iterator[Progress]:
    """The epochs of a lesson that are not done yet; `before` epochs belong to earlier ones."""
    inputs, labels = _inputs(run, state.stack, lesson.below)
    for epoch in range(len(state.curves) - before, lesson.epochs):
        if epoch == 0:
            state.memory = {}
        chance = generator(run.seed, run.curriculum.name, lesson.name, "order", epoch)
        batches = torch.randperm(len(inputs), generator=chance).split(lesson.batch)
        losses: list[float] = []
        place = (before + epoch + 1, run.curriculum.epochs)
        for first in range(0, len(batches), every):
            begun = time.monotonic()
            for step, chosen in enumerate(batches[first : first + every], start=first):
                chance = generator(run.seed, run.curriculum.name, lesson.name, "step", epoch, step)
                done = (epoch + step / len(batches)) / lesson.epochs
                there = chosen.to(run.device)
                batch = Batch(inputs[there], labels[there], chance, state.memory, done)
                losses.append(lesson.learn(state.stack, batch))
            state.seconds += time.monotonic() - begun
            mean = math.fsum(losses) / len(losses)
            if not math.isfinite(mean):
                raise FloatingPointError(f"the loss of {lesson.name} is {mean}")
            if len(losses) < len(batches):
                where = (*place, len(losses), len(batches))
                yield Progress(*where, mean, mean, math.nan, lesson=lesson.name)
        accuracy = _accuracy(run, state.stack, run.test) if lesson.judged else None
        judged = {} if accuracy is None else {"test_accuracy": accuracy}
        curve = {"lesson": lesson.name, "epoch": epoch + 1, "loss": mean, **judged}
        state.curves.append(curve)
        _save_checkpoint(run, state)
        where = (*place, len(losses), len(batches))
        yield Progress(*where, mean, mean, math.nan, accuracy, lesson=lesson.name)


@torch.no_grad()
def _inputs(run: _Run, stack: Stack, below: int) -> tuple[Flat, Int64[Tensor, " image"]]:
    shown, labels = [], []
    for _, images, said in run.training.batches(AT_ONCE):
        shown.append(stack.up(run.look(images.flatten(1)).to(run.device), 0, below))
        labels.append(said.to(run.device))
    return torch.cat(shown), torch.cat(labels)


@torch.no_grad()
def _accuracy(run: _Run, stack: Stack, images: ImageSet) -> float:
    right = sum(
        int((stack(run.look(shown).to(run.device)).argmax(1).cpu() == labels).sum())
        for _, shown, labels in images.batches(AT_ONCE)
    )
    return right / len(images)


def _written(run: _Run, state: _State, tried: tuple[dict[str, Any], ...]) -> Trained:
    """Write the weights, then measure what was written, not what it was rounded from."""
    stem = run.out.with_suffix("") if run.out.suffix == ".safetensors" else run.out
    account = stem.with_name(f"{stem.name}.json")
    kept = stem.with_name(f"{stem.name}.records.safetensors")
    weights = save(half_matrices(state.stack.state_dict()))
    shipped = copy.deepcopy(state.stack).eval()
    shipped.load_state_dict({name: value.float() for name, value in load(weights).items()})
    layers = [f"h{number}" for number in range(1, shipped.depth + 1)]
    layers += ["digit"] if shipped.classes else []
    centre = run.curriculum.mean
    seen = save(records(shipped, layers, run.training, look=run.look, centre=centre))
    report = _report(run, state, shipped)
    report["sha256"] = {run.out.name: _hash(weights), kept.name: _hash(seen)}
    report["tried"] = list(tried)
    write_atomically(run.out, weights)
    write_atomically(kept, seen)
    write_atomically(account, (json.dumps(report, indent=1) + "\n").encode())
    return Trained(run.out, account, kept, report)


def _report(run: _Run, state: _State, shipped: Stack) -> dict[str, Any]:
    curriculum = run.curriculum
    sets = {"training": run.training, "test": run.test}
    return {
        "network": curriculum.name,
        "command": f"optogram train {curriculum.name} --seed {run.seed} -o {run.out.name}",
        "seed": run.seed,
        "recipe": {"lessons": _told(curriculum), "notes": curriculum.notes},
        "data": {
            key: {"name": images.name, "images": len(images), "digest": images.digest}
            for key, images in sets.items()
        },
        "shipped": {**_right(run, shipped), **_measured(run, shipped)},
        "curves": state.curves,
        "seconds": round(state.seconds, 1),
        "made_with": {
            "optogram": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": run.device.type,
            "threads": torch.get_num_threads(),
        },
    }


def _right(run: _Run, shipped: Stack) -> dict[str, float]:
    if not shipped.classes:
        return {}
    return {
        "test_accuracy": _accuracy(run, shipped, run.test),
        "training_accuracy": _accuracy(run, shipped, run.training),
    }


def _measured(run: _Run, shipped: Stack) -> dict[str, Any]:
    if run.curriculum.measure is None:
        return {}
    images = torch.cat([shown.flatten(1) for _, shown, _ in run.test.batches(AT_ONCE)])
    return run.curriculum.measure(shipped, run.look(images).to(run.device))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
