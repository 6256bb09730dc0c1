"""How a network of the zoo is trained: a recipe, a loop that yields, an account of what came out.

`train` writes three files: the weights, a JSON that says how they were made and how good they are,
and the records of how strongly the training images excited each unit. Between epochs it writes a
fourth, `FILE.checkpoint`, from which a killed run goes on, and removes it at the end.
"""

import copy
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from safetensors.torch import load, save
from torch import Tensor, nn

from optogram.core.chance import generator
from optogram.pictures.errors import RequestError
from optogram.pictures.files import write_atomically
from optogram.survey.datasets import Images, ImageSet, Shape
from optogram.version import __version__

from .records import records

EMA = 0.9999
MOST_BYTES_HELD = 2**28
WATCHED = 10_000
BATCH_TO_MEASURE = 500
RECIPES = {
    "mnist-mlp": "mnist_mlp",
    "mnist-dbn": "dbn",
    "mnist-sdae": "sdae",
    "mnist-dbn-tuned": "tuned:DBN",
    "mnist-sdae-tuned": "tuned:SDAE",
    "patches-dbn": "patches:DBN",
    "patches-sdae": "patches:SDAE",
    "tiny-alexnet": "photos_taught:TINY_ALEXNET",
    "tiny-zfnet": "photos_taught:TINY_ZFNET",
    "alexnet": "photos_taught:ALEXNET",
    "zfnet": "photos_taught:ZFNET",
}
"""Where the recipe of each network is: a module of the zoo, and its name there, else RECIPE."""


@dataclass(frozen=True)
class Phase:
    """Some epochs at one learning rate.

    `lr` multiplies the mean gradient of a batch. `nominal` is the rate that the source states,
    where that is another (a source that divides its gradients by something, or sums them).
    """

    epochs: int
    lr: float
    nominal: float


@dataclass(frozen=True)
class Recipe:
    """All that decides how a network is trained, but for the seed and the thread count.

    `build(seed)` gives the untrained module; torch's own first weights follow from the seed as
    well. `hidden` are the layers whose outputs pass through a ReLU and so can be dead; `output`
    gives the logits. Images come from the data set called `data`, fitted to `shape`, and the
    module sees (image - mean) / std. `augment(images, generator)` changes a training batch;
    with `bfloat16` its steps multiply with 8 bits of precision, while weights stay float32.
    `momentum` is SGD's; AdamW has torch's betas, and its `weight_decay` is apart from the gradient.
    `after_step(module)` may rein in the weights, `finish(module)` gives a copy as it is shipped,
    where that is another form. `schedule(epochs)` gives other phases than `phases` for those who
    want another number of epochs. With `seen` (height, width) the module sees the middle of the
    images that no `augment` has cut. Where `classes` is a number, the data may have another number
    of them, and `build(classes, seed)` is asked for that. After the epochs in `keep` the weights
    of the layers `kept`, by default of all, are put aside. Dead units are looked for
    among the first `watched` training images.
    """

    name: str
    build: Callable[[int], nn.Module]
    data: str
    shape: Shape
    hidden: tuple[str, ...]
    output: str
    phases: tuple[Phase, ...]
    batch: int = 32
    optimizer: Literal["SGD", "AdamW"] = "SGD"
    momentum: float = 0.0
    weight_decay: float = 0.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    augment: Callable[[Images, torch.Generator], Images] | None = None
    bfloat16: bool = False
    after_step: Callable[[nn.Module], None] | None = None
    schedule: Callable[[int], tuple[Phase, ...]] | None = None
    finish: Callable[[nn.Module], nn.Module] | None = None
    label_smoothing: float = 0.0
    classes: int | None = None
    seen: tuple[int, int] | None = None
    keep: tuple[int, ...] = ()
    kept: tuple[str, ...] = ()
    watched: int = WATCHED
    notes: str = ""

    @property
    def epochs(self) -> int:
        """How many times every training image is shown."""
        return sum(phase.epochs for phase in self.phases)

    def phase(self, epoch: int) -> Phase:
        """The phase that an epoch, counted from 0, belongs to."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase
            epoch -= phase.epochs
        raise IndexError(f"the recipe {self.name} has {self.epochs} epochs")


@dataclass(frozen=True)
class Progress:
    """Where a training is: `step` of `steps` in `epoch` (from 1) of `epochs`.

    `loss` is the mean of this epoch's batches so far, `ema` the running mean of all batches with
    weight 0.9999, which starts at the first one and long remembers it. `accuracy` on the test
    images and the `dead` units of each hidden layer are known only at an epoch's end. `lesson` is
    what is being learnt, where one thing is learnt after the other.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    ema: float
    lr: float
    accuracy: float | None = None
    dead: dict[str, int] | None = None
    lesson: str = ""


@dataclass(frozen=True)
class Trained:
    """A training that is done: its three files, and the account that is in the JSON one."""

    weights: Path
    account: Path
    records: Path
    report: dict[str, Any]


def train(
    spec: "str | Recipe | Teaching" = "mnist-mlp",
    *,
    data: tuple[ImageSet, ImageSet] | None = None,
    root: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str],
    seed: int = 0,
    device: str = "cpu",
    every: int = 125,
    epochs: int | None = None,
    checkpoints: bool = True,
    tried: tuple[dict[str, Any], ...] = (),
) -> Iterator[Progress | Trained]:
    """Train a network and write it to `out`, telling how it goes; at last comes Trained.

    The weights follow from the recipe, the data and the seed alone, given the machine and its
    number of threads: no global generator is used, and a run that was stopped ends with the same
    bytes as one that was not. If `out` is `a.safetensors`, then `a.json` and
    `a.records.safetensors` are written beside it.

    Args:
        spec: the name of a recipe, or one, or what else can teach itself.
        data: the training and the test images; None fetches the recipe's own.
        root: where to look for them, see `optogram.zoo.data`.
        out: the file for the weights; matrices are rounded to float16, vectors stay float32.
        seed: decides the first weights, the order of the images and all else that is drawn.
        device: where to compute.
        every: how many steps pass between two Progress.
        epochs: how many times every image is shown, where the recipe leaves that open.
        checkpoints: False keeps no weights of epochs before the last, where a recipe would.
        tried: what was trained before and not kept, for the account.

    Raises:
        RequestError: there is no such recipe, data or folder, or a checkpoint of another training.
        FloatingPointError: the loss is no longer finite.
    """
    recipe = recipe_named(spec) if isinstance(spec, str) else spec
    if epochs is not None:
        recipe = _as_long_as(recipe, epochs)
    if isinstance(recipe, Recipe) and not checkpoints:
        recipe = replace(recipe, keep=())
    training, test = data if data is not None else _own_data(recipe, root)
    if not isinstance(recipe, Recipe):
        both = (training, test)
        yield from recipe.train(both, out, seed=seed, device=device, every=every, tried=tried)
        return
    run = _Run(_for(recipe, training), _held(training), test, Path(out), seed, torch.device(device))
    recipe = run.recipe
    state = _state(run)
    while len(state.curves) < recipe.epochs:
        yield from _epoch(run, state, every)
        _save_checkpoint(run, state)
    trained = _written(run, state, tried)
    run.checkpoint.unlink(missing_ok=True)
    yield trained


@runtime_checkable
class Teaching(Protocol):
    """What is trained in a way of its own, as the layers of a stack are one after the other."""

    @property
    def data(self) -> str:
        """The name of the data set it is trained on."""
        ...

    @property
    def shape(self) -> Shape:
        """What its images are fitted to, (channels, height, width)."""
        ...

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
        """Do what `train` does, with its other arguments."""
        ...


def recipe_named(name: str) -> "Recipe | Teaching":
    """The recipe of a network of the zoo.

    Raises:
        RequestError: there is none of this name.
    """
    if name not in RECIPES:
        raise RequestError(f"no network called {name!r} to train; there is {', '.join(RECIPES)}")
    place, _, which = RECIPES[name].partition(":")
    recipe: Recipe | Teaching = getattr(import_module(f".{place}", __package__), which or "RECIPE")
    return recipe


def half_matrices(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are shipped: float16 where they have two axes or more, else float32."""
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return {
        name: value.to(torch.float16 if value.ndim > 1 else torch.float32)
        if value.is_floating_point()
        else value
        for name, value in kept.items()
    }


@dataclass(frozen=True)
class _Run:
    """What is fixed for a whole training."""

    recipe: Recipe
    training: ImageSet
    test: ImageSet
    out: Path
    seed: int
    device: torch.device

    @property
    def checkpoint(self) -> Path:
        return self.out.with_name(f"{self.out.name}.checkpoint")

    def fingerprint(self) -> str:
        """What must be equal for two runs to end alike; other threads would round otherwise."""
        recipe = asdict(self.recipe)
        named = {key: _called(v) if callable(v) else v for key, v in recipe.items()}
        return json.dumps(
            {
                "recipe": named,
                "seed": self.seed,
                "training": self.training.digest,
                "test": self.test.digest,
                "threads": torch.get_num_threads(),
                "device": self.device.type,
            }
        )

    def look(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the module wants them."""
        if self.recipe.seen is not None and images.shape[-2:] != self.recipe.seen:
            (height, width), (rows, columns) = self.recipe.seen, images.shape[-2:]
            top, left = (rows - height) // 2, (columns - width) // 2
            images = images[..., top : top + height, left : left + width]
        mean = torch.tensor(self.recipe.mean, device=images.device)[:, None, None]
        std = torch.tensor(self.recipe.std, device=images.device)[:, None, None]
        return (images - mean) / std


@dataclass(eq=False)
class _State:
    """What changes while training; `curves` has an entry for every finished epoch."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    ema: float = math.nan
    seconds: float = 0.0
    curves: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)

    def shown(self, recipe: Recipe) -> nn.Module:
        """The module in eval mode, in the form in which it is measured and shipped."""
        return self.module.eval() if recipe.finish is None else recipe.finish(self.module)


def _called(function: Callable[..., Any]) -> Any:
    """The name of a function; of a partial one, with what it is given."""
    if not isinstance(function, partial):
        return getattr(function, "__qualname__", function)
    given = [*function.args, *function.keywords.values()]
    return [_called(function.func), *(_called(v) if callable(v) else v for v in given)]


def _own_data(
    recipe: "Recipe | Teaching", root: str | os.PathLike[str] | None
) -> tuple[ImageSet, ImageSet]:
    """The recipe's own data; of one that takes any classes, `root` may itself be the data."""
    from .data import data

    name: str | os.PathLike[str] = recipe.data
    if root is not None and isinstance(recipe, Recipe) and recipe.classes is not None:
        own = Path(root).expanduser()
        name = own if own.suffix == ".npz" or (own / "train").is_dir() else name
    return (
        data(name, root=root, split="train", shape=recipe.shape),
        data(name, root=root, split="test", shape=recipe.shape),
    )


def _as_long_as(recipe: "Recipe | Teaching", epochs: int) -> Recipe:
    """The recipe for another number of epochs."""
    if not isinstance(recipe, Recipe) or recipe.schedule is None:
        raise RequestError("this recipe has its own number of epochs: leave epochs out")
    if epochs < 2:
        raise RequestError(f"epochs={epochs}: at least 2 are needed to let the rate rise and fall")
    return replace(recipe, phases=recipe.schedule(epochs))


def _held(images: ImageSet) -> ImageSet:
    """The same set, decoded only once where that fits into memory, since it is shown many times."""
    if images.shape is None or len(images) * math.prod(images.shape) > MOST_BYTES_HELD:
        return images
    if isinstance(images.read([0]), Tensor):
        return images
    held: dict[int, Tensor] = {}

    def read(numbers: Sequence[int]) -> list[Tensor]:
        for number in numbers:
            if number not in held:
                image = images.take(torch.tensor([number]))[0][0]
                stored = (image * 255).round().to(torch.uint8)
                held[number] = stored if torch.equal(stored.float() / 255, image) else image
        found = [held[number] for number in numbers]
        return [x.float() / 255 if x.dtype == torch.uint8 else x for x in found]

    return replace(images, read=read)


def _for(recipe: Recipe, training: ImageSet) -> Recipe:
    """The recipe with as many outputs as the data have classes, where it takes any number."""
    if recipe.classes is None:
        return recipe
    classes = len(training.classes)
    if classes < 2:
        raise RequestError(
            f"{training.name} has no classes to tell apart; give a folder that has a folder "
            "'train' "
            "and one 'val', each with a folder of images for every class"
        )
    return replace(recipe, classes=classes, build=partial(recipe.build, classes))


def _state(run: _Run) -> _State:
    """The beginning, or the end of the last epoch that a stopped run has finished."""
    check_folder(run.out)
    recipe = run.recipe
    with _own_chance(run.device) as reseed:
        reseed(generator(run.seed, recipe.name, "build").initial_seed())
        module = recipe.build(run.seed).to(run.device)
    state = _State(module, _optimizer(recipe, module))
    if run.checkpoint.exists():
        _resume(run, state)
    return state


def _optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    lr, decay = recipe.phases[0].lr, recipe.weight_decay
    if recipe.optimizer == "AdamW":
        return torch.optim.AdamW(module.parameters(), lr, weight_decay=decay)
    return torch.optim.SGD(module.parameters(), lr, recipe.momentum, weight_decay=decay)


def check_folder(out: Path) -> None:
    """Refuse a file that cannot be written: before an hour of work, not after it."""
    if not out.parent.is_dir():
        raise RequestError(
            f"there is no folder '{out.parent}' to write '{out}' into; make it first"
        )
    if out.is_dir():
        raise RequestError(f"'{out}' is a folder; give the name of a file in it")


def _resume(run: _Run, state: _State) -> None:
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
    state.module.load_state_dict(saved["module"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.ema, state.seconds, state.curves = saved["ema"], saved["seconds"], saved["curves"]
    state.kept = saved["kept"]


def _save_checkpoint(run: _Run, state: _State) -> None:
    saved = {
        "fingerprint": run.fingerprint(),
        "module": state.module.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "ema": state.ema,
        "seconds": state.seconds,
        "curves": state.curves,
        "kept": state.kept,
    }
    content = BytesIO()
    torch.save(saved, content)
    write_atomically(run.checkpoint, content.getvalue())


def _epoch(run: _Run, state: _State, every: int) -> Iterator[Progress]:
    """Show every training image once; the last Progress knows the accuracy and the dead units."""
    recipe, epoch = run.recipe, len(state.curves)
    lr = recipe.phase(epoch).lr
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    chance = generator(run.seed, recipe.name, "order", epoch)
    batches = torch.randperm(len(run.training), generator=chance).split(recipe.batch)
    losses: list[float] = []
    for first in range(0, len(batches), every):
        begun = time.monotonic()
        losses += _stretch(run, state, epoch, first, batches[first : first + every])
        state.seconds += time.monotonic() - begun
        mean = math.fsum(losses) / len(losses)
        place = (epoch + 1, recipe.epochs, len(losses), len(batches), mean, state.ema, lr)
        if len(losses) < len(batches):
            yield Progress(*place)
    shown = state.shown(recipe)
    accuracy, dead = _accuracy_and_loss(run, shown, run.test)[0], _dead(run, shown)
    if epoch + 1 in recipe.keep:
        weights = half_matrices(shown.state_dict())
        state.kept |= {
            f"{epoch + 1}/{name}": value
            for name, value in weights.items()
            if not recipe.kept or name.rpartition(".")[0] in recipe.kept
        }
    state.curves.append(
        {
            "epoch": epoch + 1,
            "lr": lr,
            "loss": mean,
            "ema": state.ema,
            "test_accuracy": accuracy,
            "dead": dead,
        }
    )
    yield Progress(*place, accuracy, dead)


def _stretch(
    run: _Run, state: _State, epoch: int, first: int, batches: tuple[Tensor, ...]
) -> list[float]:
    """A number of steps between two yields, so that no caller ever sees our random numbers."""
    recipe, losses = run.recipe, []
    state.module.train()
    with _own_chance(run.device) as reseed:
        for step, indices in enumerate(batches, start=first):
            chance = generator(run.seed, recipe.name, "step", epoch, step)
            reseed(chance.initial_seed())
            images, labels = run.training.take(indices)
            if recipe.augment is not None:
                images = recipe.augment(images, chance)
            loss = _step(run, state, images.to(run.device), labels.to(run.device))
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss of {recipe.name} is {loss} in epoch {epoch + 1}, step {step + 1}"
                )
            state.ema = loss if math.isnan(state.ema) else EMA * state.ema + (1 - EMA) * loss
            losses.append(loss)
    return losses


def _step(
    run: _Run,
    state: _State,
    images: Float[Tensor, "batch channel height width"],
    labels: Int64[Tensor, " batch"],
) -> float:
    state.optimizer.zero_grad()
    smoothing = run.recipe.label_smoothing
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.recipe.bfloat16):
        logits = state.module(run.look(images))
    loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
    loss.backward()
    state.optimizer.step()
    if run.recipe.after_step is not None:
        run.recipe.after_step(state.module)
    return loss.item()


@contextmanager
def _own_chance(device: torch.device) -> Iterator[Callable[[int], None]]:
    """For layers that know only the global generators: ours inside, the caller's outside."""
    cuda = [device] if device.type == "cuda" else []

    def reseed(seed: int) -> None:
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)

    with torch.random.fork_rng(devices=cuda):
        yield reseed


def _accuracy_and_loss(run: _Run, module: nn.Module, images: ImageSet) -> tuple[float, float]:
    right, loss, count = 0, 0.0, 0
    with torch.no_grad():
        for _, shown, labels in images.batches(BATCH_TO_MEASURE):
            logits = module(run.look(shown.to(run.device))).cpu()
            right += int((logits.argmax(1) == labels).sum())
            loss += float(nn.functional.cross_entropy(logits.double(), labels, reduction="sum"))
            count += len(labels)
    return right / count, loss / count


def _dead(run: _Run, module: nn.Module) -> dict[str, int]:
    """How many units of each hidden layer are never above 0 on the first training images."""
    found = records(module, run.recipe.hidden, run.training, stop=run.recipe.watched, look=run.look)
    return {name: int((found[f"{name}.maximum"] <= 0).sum()) for name in run.recipe.hidden}


def _written(run: _Run, state: _State, tried: tuple[dict[str, Any], ...]) -> Trained:
    """Write the weights, then measure what was written, not what it was rounded from."""
    stem = run.out.with_suffix("") if run.out.suffix == ".safetensors" else run.out
    account = stem.with_name(f"{stem.name}.json")
    kept = stem.with_name(f"{stem.name}.records.safetensors")
    shipped = copy.deepcopy(state.shown(run.recipe))
    weights = save(half_matrices(shipped.state_dict()))
    shipped.load_state_dict({name: _wide(value) for name, value in load(weights).items()})
    layers = (*run.recipe.hidden, run.recipe.output)
    seen = save(records(shipped, layers, run.training, look=run.look))
    report = _report(run, state, shipped)
    report["sha256"] = {run.out.name: _hash(weights), kept.name: _hash(seen)}
    if state.kept:
        epochs = stem.with_name(f"{stem.name}.epochs.safetensors")
        content = save(state.kept)
        report["sha256"][epochs.name] = _hash(content)
        write_atomically(epochs, content)
    report["tried"] = list(tried)
    write_atomically(run.out, weights)
    write_atomically(kept, seen)
    write_atomically(account, (json.dumps(report, indent=1) + "\n").encode())
    return Trained(run.out, account, kept, report)


def _wide(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _report(run: _Run, state: _State, shipped: nn.Module) -> dict[str, Any]:
    recipe = run.recipe
    accuracy, test_loss = _accuracy_and_loss(run, shipped, run.test)
    training_accuracy, training_loss = _accuracy_and_loss(run, shipped, run.training)
    usual = recipe_named(recipe.name) if recipe.name in RECIPES else recipe
    other = isinstance(usual, Recipe) and usual.phases != recipe.phases
    epochs = f" --epochs {recipe.epochs}" if other else ""
    if isinstance(usual, Recipe) and usual.keep and not recipe.keep:
        epochs += " --no-checkpoints"
    return {
        "network": recipe.name,
        "command": f"optogram train {recipe.name}{epochs} --seed {run.seed} -o {run.out.name}",
        "seed": run.seed,
        "recipe": {
            "optimizer": recipe.optimizer,
            "loss": "softmax cross-entropy, mean over the batch",
            "batch": recipe.batch,
            "momentum": recipe.momentum,
            "weight_decay": recipe.weight_decay,
            "phases": [
                {"epochs": p.epochs, "effective_lr": p.lr, "nominal_lr": p.nominal}
                for p in recipe.phases
            ],
            "mean": recipe.mean,
            "std": recipe.std,
            "label_smoothing": recipe.label_smoothing,
            "kept_epochs": recipe.keep,
            "precision": "bfloat16, weights float32" if recipe.bfloat16 else "float32",
            "notes": recipe.notes,
        },
        "data": {
            "training": {
                "name": run.training.name,
                "images": len(run.training),
                "digest": run.training.digest,
                "classes": run.training.classes,
            },
            "test": {"name": run.test.name, "images": len(run.test), "digest": run.test.digest},
        },
        "shipped": {
            "test_accuracy": accuracy,
            "test_loss": test_loss,
            "training_accuracy": training_accuracy,
            "training_loss": training_loss,
            "dead": _dead(run, shipped),
        },
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
