"""A trained network that one can ask about its layers, left exactly as it was found."""

import copy
import difflib
import fnmatch
import hashlib
import itertools
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optogram.core.activations import Activations, Plan
from optogram.core.field import PIXEL, WHOLE, FieldMode, ReceptiveField, attach, field_of
from optogram.core.listen import called, evaluating, first_tensor, hooks, listen
from optogram.core.pooling import averaged, maximums_left
from optogram.core.rules import (
    ActivationMode,
    Before,
    Rule,
    fed,
    plain,
    redirected,
    remembered_of,
    version,
)
from optogram.core.unit import OUTPUT, Direction, Target, Targetlike, Unit, unit
from optogram.pictures.errors import RequestError

Images = Float[Tensor, "batch channel height width"]


@dataclass(frozen=True)
class Layer:
    """One call of one named sub-module: what it is and what its answer looks like.

    `shape` is the answer's without the batch; `axis` is where the units are, counted with the batch
    as 0; `field` is what one place sees of the image; `rectified` says that a ReLU (or several,
    joined) made the answer, so that it has a pre-activation; `switchable` that a ReLU is what comes
    next, so that a unit at 0 or below is off; `same_as` is an earlier layer whose answer this is;
    `relus` are the numbers of the ReLUs that made the answer among all of a pass, from 1.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    axis: int
    field: ReceptiveField
    rectified: bool = False
    switchable: bool = False
    same_as: str | None = None
    relus: tuple[int, ...] = ()

    @property
    def units(self) -> int:
        """How many channels or neurons."""
        return self.shape[self.axis - 1] if self.shape else 1

    @property
    def places(self) -> tuple[int, ...]:
        """The shape of one unit's map: (rows, columns), (tokens,) or () for a neuron."""
        return self.shape[: self.axis - 1] + self.shape[self.axis :]


class Network:
    """A module with named layers, an input shape, a normalisation, labels and a device.

    Outside it every image is float32 (batch, channel, height, width) in [0, 1]; `mean` and `std`
    (one number a channel) are applied inside and nowhere else. It asks in eval mode and leaves the
    module as it found it, also after an error: mode, hooks, gradients, weights. Only `device`,
    where it is given, moves the module.

    Args:
        module: any `nn.Module` that takes (batch, channel, height, width).
        shape: (channel, height, width) of the images it was trained on.
        mean, std: normalisation a channel; none by default.
        labels: a name per output unit.
        device: where to run; by default where the module's weights are.
        name: how it is called in recipes, best a name that `optogram.load` takes.
        channel_axis: for layers whose units are not where one would expect (1 for maps, last for
            tokens), the axis counted with the batch as 0.
        records: what a data set reached, `"<layer>.maximum"` (units,) and others (see zoo).

    Raises RequestError for a shape that the module does not take and for weights that are NaN or
    infinite.
    """

    def __init__(
        self,
        module: nn.Module,
        shape: Sequence[int],
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        labels: Sequence[str] | None = None,
        device: str | torch.device | None = None,
        name: str | None = None,
        channel_axis: Mapping[str, int] | None = None,
        records: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.shape = _image_shape(shape)
        self.module = module if device is None else module.to(device)
        # A compiled module cannot be stopped early nor heard inside; what it was made from can.
        self._root: nn.Module = getattr(module, "_orig_mod", module)
        self.name = name or type(module).__name__
        self.weights_file: str | None = None
        self.pooling: Literal["average"] | None = None
        self.labels = tuple(labels or ())
        self.records = dict(records or {})
        self._channel_axis = dict(channel_axis or {})
        self._overwritten: set[str] = set()
        self._resolved: set[Unit] = set()
        self._plans: dict[tuple[Target, ...], Plan] = {}
        self._fingerprint: tuple[Any, str] | None = None
        weight = next((t for t in _state(module) if t.is_floating_point()), torch.zeros(()))
        self.device, self.dtype = weight.device, weight.dtype
        self._mean, self._std = (self._per_channel(v, n) for v, n in ((mean, "mean"), (std, "std")))
        self.check_weights()

    @property
    def image_dtype(self) -> torch.dtype:
        """What images are painted in: the network's dtype, but no coarser than float32."""
        return torch.promote_types(self.dtype, torch.float32)

    def __call__(self, images: Images) -> Tensor:
        """The network's answer to images in [0, 1], usually (batch, classes) before the softmax."""
        return self.read(images, OUTPUT).layers[OUTPUT]

    def read(
        self, images: Images, *layers: str, rule: Rule = plain, watch: bool = False
    ) -> Activations:
        """What the named layers answer to a batch; the pass stops at the deepest of them.

        Args:
            images: (batch, channel, height, width) in [0, 1]; gradients flow where it wants them.
            layers: names as `print(network)` shows them; `output` is the whole network's answer.
            rule: how gradients will pass ReLUs on the way back. They are for the images: with
                `deconvnet` and `guided` the weights of batch norms get none.
            watch: remember what each ReLU was given, for `Activations.before`.

        Raises RequestError for an unknown layer, images of the wrong shape, or a rule that this
        network gives nothing to act on.
        """
        names = tuple(dict.fromkeys(self.layer(name).name for name in layers or (OUTPUT,)))
        self._accept(images)
        watched = {call for name in names for call in self.layer(name).relus if watch}
        mode = self._mode(rule, frozenset(watched))
        inner = tuple(name for name in names if name != OUTPUT)
        answer: list[Any] = []

        def run() -> None:
            with mode:
                answer[:] = [self._try(self.normalized(images))]

        grad = images.requires_grad and torch.is_grad_enabled()
        to_the_end = OUTPUT in names
        with evaluating(self._root), torch.set_grad_enabled(grad):
            heard = listen(self._root, inner, run, self._overwritten, to_the_end=to_the_end)
            if any(self.layer(n).rectified and not remembered_of(heard[n]) for n in inner if watch):
                # The pass took another way than at first: numbers of calls mean nothing here.
                mode.remembers = True
                heard = listen(self._root, inner, run, self._overwritten, to_the_end=to_the_end)
        if OUTPUT in names:
            heard[OUTPUT] = first_tensor(answer[0], OUTPUT)
        if isinstance(mode, ActivationMode) and rule not in (plain, redirected):
            mode.check(f"{self.name} as far as {names[-1]!r}")
        return Activations(self, images, heard)

    def check_weights(self) -> None:
        """Raises RequestError where a weight is NaN or infinite, as after diverging."""
        parameters = self.module.named_parameters()
        if bad := [n for n, t in parameters if not bool(torch.isfinite(t).all())]:
            raise RequestError(
                f"the weights {bad[0]!r} of {self.name} hold NaN or infinity: load others"
            )

    def normalized(self, images: Images) -> Tensor:
        """The images as the module wants them: on its device, in its dtype, normalised; a copy."""
        images = images.to(self.device, self.image_dtype)
        if self._mean is None and self._std is None:
            # A copy: the module may write into what it is given.
            return images.clone() if self.dtype == images.dtype else images.to(self.dtype)
        made = (images - (0 if self._mean is None else self._mean)) / (
            1 if self._std is None else self._std
        )
        return made.to(self.dtype)

    @property
    def mean(self) -> Tensor | None:
        """What is subtracted from each channel, (1, channel, 1, 1); None where nothing is."""
        return self._mean

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every named layer in the order in which it answers; a repeated call is `name#2`."""
        found: dict[str, Layer] = {}
        answers: dict[str, _Answer] = {}
        calls: dict[str, int] = {}
        modules = {name: part for name, part in self._root.named_modules() if name}
        thread = threading.get_ident()

        def record(name: str) -> Any:
            def speak(_: nn.Module, __: Any, answer: Any) -> None:
                if threading.get_ident() != thread:  # another thread's pass through the module
                    return
                calls[name] = calls.get(name, 0) + 1
                call = called(name, calls[name])
                try:
                    tensor = first_tensor(answer, call)
                except RequestError:
                    return
                found[call] = self._describe(call, modules[name], tensor)
                answers[call] = _Answer(tensor, version(tensor), remembered_of(tensor))

            return speak

        if OUTPUT in modules:
            raise RequestError(
                f"{self.name} has a module called 'output', which is what the whole network's "
                f"answer is called here: rename it"
            )
        names = dict.fromkeys(name for name, part in modules.items() if _hookable(part))
        with (
            evaluating(self._root),
            hooks(self._root, names, record),
            torch.no_grad(),
            ActivationMode(),
            FieldMode(),
        ):
            image = attach(
                torch.full((1, *self.shape), 0.5, device=self.device, dtype=self.dtype), PIXEL
            )
            answer = self._try(image)
        last = first_tensor(answer, OUTPUT)
        found[OUTPUT] = self._describe(OUTPUT, self._root, last)
        answers[OUTPUT] = _Answer(last, version(last), remembered_of(last))
        return tuple(_related(found, answers))

    def layer(self, name: str) -> Layer:
        """The layer of that name. Raises RequestError with the nearest names."""
        layer = self._by_name.get(name)
        if layer is None:
            near = difflib.get_close_matches(name, self._by_name, n=5, cutoff=0.5)
            some = [n for n in self._by_name if n not in near][: 5 - len(near)]
            shown = ", ".join(f"{n} {_shape_text(self._by_name[n])}" for n in [*near, *some])
            raise RequestError(
                f"no layer called {name!r} in {self.name}; {'nearest' if near else 'it has'}: "
                f"{shown} ('optogram layers' lists all {len(self._by_name)})"
            )
        return layer

    def resolve(self, target: Targetlike) -> Target:
        """The unit with its label turned into a number, checked to exist.

        Raises RequestError for an unknown layer, unit, label or place.
        """
        target = unit(target)
        if target in self._resolved:
            return target
        layer = self.layer(target.layer)
        if isinstance(target, Direction):
            if len(target.vector) != layer.units:
                raise RequestError(
                    f"the direction {target.name!r} has {len(target.vector)} numbers; "
                    f"{layer.name!r} has {layer.units} units"
                )
        elif isinstance(target.index, str):
            target = replace(target, index=self._label(layer, target.index))
        elif target.index is not None and target.index >= layer.units:
            raise RequestError(
                f"no unit {target} in {self.name}: {layer.name!r} has units 0 to {layer.units - 1}"
            )
        _check_place(target, layer)
        if isinstance(target, Unit):
            self._resolved.add(target)
        return target

    def units(self, pattern: str) -> tuple[Unit, ...]:
        """The units that a pattern names, in order.

        A layer (`fc3`) means all its units; `fc3:0-9` a range; `*` and `?` match layer names
        (`fc*:0`, `*conv*`); a plain address is itself. Raises RequestError where nothing matches.
        """
        names, colon, which = pattern.partition(":")
        if colon and not which:
            unit(pattern)  # says what is missing
        if names in self._by_name and which and not re.fullmatch(r"\*|\d+-\d+", which):
            target = self.resolve(pattern)
            assert isinstance(target, Unit)
            return (target,)
        matched = [n for n in self._by_name if fnmatch.fnmatchcase(n, names)] or [
            self.layer(names).name
        ]
        found: list[Unit] = []
        for name in matched:
            layer = self._by_name[name]
            low, high = 0, layer.units - 1
            if span := re.fullmatch(r"(\d+)(?:-(\d+))?", which):
                low, high = (
                    int(span[1]),
                    min(int(span[2] or span[1]), high if len(matched) > 1 else 1 << 62),
                )
            elif which not in ("", "*"):
                raise RequestError(
                    f"the units {which!r} of {pattern!r} are neither '*', a number nor '0-9'"
                )
            if high >= layer.units or (len(matched) == 1 and low > high):
                raise RequestError(
                    f"{pattern!r}: {name!r} of {self.name} has units 0 to {layer.units - 1}"
                )
            found += [Unit(name, index) for index in range(low, high + 1)]
        if not found:
            raise RequestError(f"{pattern!r} matches no unit of {self.name}")
        return tuple(found)

    def best_in_data(self, unit: Unit) -> float | None:
        """The unit's strongest pre-activation in the data of `records`; None where not known."""
        layer = self.layer(unit.layer)
        maxima = self.records.get(f"{layer.same_as or layer.name}.maximum")
        target = self.resolve(unit)
        known = maxima is not None and isinstance(target.index, int)
        return float(maxima[target.index]) if known and maxima is not None else None  # type: ignore[index]

    def plan(self, targets: Sequence[Targetlike]) -> "Plan":
        """Which image asks which unit, by layer and place; remembered, since a loop repeats it."""
        key = tuple(unit(target) for target in targets)
        if key not in self._plans:
            if len(self._plans) > 64:
                self._plans.clear()
            self._plans[key] = Plan.of([self.resolve(target) for target in key], self.device)
        return self._plans[key]

    def label(self, index: int) -> str:
        """The name of an output unit, its number where there are no labels."""
        return self.labels[index] if index < len(self.labels) else str(index)

    def recipe(self) -> dict[str, Any]:
        """What a recipe says about the network: its name and a hash of its weights."""
        file = {} if self.weights_file is None else {"file": self.weights_file}
        pooling = {} if self.pooling is None else {"pooling": self.pooling}
        return {"name": self.name, "weights": self.fingerprint, **file, **pooling}

    def to(self, device: str | torch.device) -> "Network":
        """The network on another device; the module itself moves."""
        self.module.to(device)
        weight = next(iter(_state(self.module)), torch.empty((), device=device))
        self.device = weight.device
        self._mean, self._std = (
            None if t is None else t.to(self.device) for t in (self._mean, self._std)
        )
        self._plans.clear()
        return self

    def with_pooling(self, kind: Literal["average", "max"]) -> "Network":
        """A copy that takes means where this one takes maxima over windows; the same weights.

        For `deconvnet` there are no switches then: what comes back is spread evenly. The network
        was not trained so, and is worse at its task. "max" gives an unchanged copy.

        Raises RequestError where there is no maximum pooling, or one that is no `MaxPool2d` module.
        """
        if kind not in ("average", "max"):
            raise RequestError(f"pooling {kind!r}: there is 'average' and 'max'")
        if kind == "max":
            return self.with_module(copy.deepcopy(self._root))
        module, found = averaged(self._root)
        image = torch.zeros(1, *self.shape, device=self.device, dtype=self.dtype)
        left = maximums_left(module, image)
        if left or not found:
            what = f"{left} that are no modules" if left else "none"
            raise RequestError(
                f"{self.name} cannot have average pooling: of maximum poolings it has {what}; only "
                "nn.MaxPool2d modules can be exchanged"
            )
        twin = self.with_module(module)
        for known in ("layers", "_by_name"):
            twin.__dict__.pop(known, None)
        twin._resolved, twin.records, twin.pooling = set(), {}, "average"
        return twin

    def with_module(self, module: nn.Module) -> "Network":
        """The same network around another module of the same layers, as one with other weights."""
        twin = copy.copy(self)
        twin.module, twin._root = module, getattr(module, "_orig_mod", module)
        twin._overwritten, twin._plans, twin._fingerprint = set(self._overwritten), {}, None
        return twin

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names, shapes and bytes of all weights and buffers."""
        versions = tuple((id(t), t._version) for t in _state(self.module))
        if self._fingerprint is None or self._fingerprint[0] != versions:
            digest = hashlib.sha256()
            for name, tensor in sorted(self.module.state_dict().items()):
                digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
                # As a view: a copy of one large layer may be most of what a call takes in memory.
                weights = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
                digest.update(weights.numpy())
            self._fingerprint = versions, "sha256:" + digest.hexdigest()
        return self._fingerprint[1]

    def __repr__(self) -> str:
        return f"<Network {self.name} {'x'.join(map(str, self.shape))} on {self.device}>"

    def __str__(self) -> str:
        """The layers as a table: name, kind, output shape, units, receptive field."""
        head = ("layer", "kind", "output", "units", "field")
        rows = [(x.name, x.kind, _shape_text(x), str(x.units), str(x.field)) for x in self.layers]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip()
            for r in (head, *rows)
        ]
        return "\n".join([repr(self), *lines])

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    def _mode(self, rule: Rule, watched: frozenset[int]) -> Any:
        if rule is plain and not watched:
            return nullcontext()
        if rule is not plain and (kind := _opaque(self.module)):
            if rule is redirected:  # without a ReLU to reach it is the derivative
                return nullcontext()
            raise RequestError(
                f"{self.name} is {kind}, inside which no rule can reach a ReLU: give the plain "
                f"module instead"
            )
        return ActivationMode(rule, remembers=watched or False)

    def _try(self, image: Tensor) -> Any:
        """The module's answer, or a sentence where images of that size are too much for it."""
        try:
            return self._root(image)
        except (RequestError, torch.OutOfMemoryError):
            raise
        except (
            RuntimeError,
            ValueError,
            IndexError,
            AssertionError,
            NotImplementedError,
        ) as problem:
            size = tuple(image.shape[1:])
            if size == self.shape and "layers" in self.__dict__:
                raise  # it took that size before: this is no matter of size
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            made_for = "" if size == self.shape else f", made for {self.shape},"
            raise RequestError(
                f"{self.name}{made_for} does not take images of shape {size}: {reason}"
            ) from problem

    def _accept(self, images: Tensor) -> None:
        if images.dim() != 4 or images.shape[1] != self.shape[0]:
            want = f"(batch, {', '.join(map(str, self.shape))})"
            raise RequestError(
                f"{self.name} takes images {want} with {self.shape[0]} channel(s); these are "
                f"{tuple(images.shape)}"
            )

    def _per_channel(self, values: Sequence[float] | None, what: str) -> Tensor | None:
        if values is None:
            return None
        if len(values) != self.shape[0] or (what == "std" and min(values) <= 0):
            raise RequestError(
                f"{what}={tuple(values)} should be {self.shape[0]} number(s), one a channel"
            )
        wide = self.image_dtype
        return torch.tensor(tuple(values), device=self.device, dtype=wide).view(1, -1, 1, 1)

    def _describe(self, name: str, module: nn.Module, answer: Tensor) -> Layer:
        shape = tuple(answer.shape[1:])
        axis = self._channel_axis.get(name)
        seen = field_of(answer) or WHOLE
        if axis is None and len(shape) == 3 and not seen.whole:
            axis = 1  # the last two are known to be rows and columns
        if axis is None:
            axis = _guess_axis(module, shape, square=self.shape[1] == self.shape[2])
        if len(shape) != 3 or axis != 1:
            seen = WHOLE
        axis %= len(shape) + 1
        made = remembered_of(answer)
        relus = () if made is None else made.calls
        kind = type(module).__name__
        return Layer(name, kind, shape, axis, seen, made is not None, relus=relus)

    def _label(self, layer: Layer, label: str) -> int:
        if layer.name != OUTPUT or not self.labels:
            what = (
                "has no labels" if layer.name == OUTPUT else "is no output: its units have numbers"
            )
            raise RequestError(
                f"{layer.name}:{label}: {layer.name!r} of {self.name} {what}, 0 to "
                f"{layer.units - 1}"
            )
        for same in (lambda a: a == label, lambda a: a.casefold() == label.casefold()):
            at = [index for index, name in enumerate(self.labels) if same(name)]
            if len(at) == 1:
                return at[0]
            if at:
                raise RequestError(
                    f"{label!r} is the label of units {at} of {self.name}: give the number"
                )
        near = difflib.get_close_matches(label, self.labels, n=5, cutoff=0.4) or list(
            self.labels[:5]
        )
        raise RequestError(f"no label {label!r} in {self.name}; nearest: {', '.join(near)}")


@dataclass(frozen=True, eq=False)
class _Answer:
    """A layer's answer in the state in which it was heard; in-place operations may follow."""

    tensor: Tensor
    state: int
    before: Before | None

    @property
    def key(self) -> tuple[int, int]:
        """What tells this answer apart from others, and from itself once it is overwritten."""
        return id(self.tensor), self.state


def _related(found: dict[str, Layer], answers: dict[str, _Answer]) -> list[Layer]:
    """The layers with what one is to another: the same answer, or the input of a ReLU."""
    first = {answer.key: name for name, answer in reversed(answers.items())}
    related = []
    for name, layer in found.items():
        answer = answers[name]
        origin = first.get(answer.before.origin) if answer.before and answer.before.origin else None
        same = first[answer.key]
        switchable = layer.rectified or fed(answer.tensor, answer.state)
        same_as = origin or (same if same != name else None)
        related.append(replace(layer, switchable=switchable, same_as=same_as))
    return related


def _guess_axis(module: nn.Module, shape: tuple[int, ...], *, square: bool) -> int:
    """Units are on axis 1 of maps and the last axis of tokens, but for what the wild has shown."""
    if len(shape) == 2:
        one_dimensional = isinstance(
            module, nn.Conv1d | nn.BatchNorm1d | nn.MaxPool1d | nn.AvgPool1d
        )
        return 1 if one_dimensional else 2
    if len(shape) == 3:
        # Swin and ConvNeXt keep channels last inside; on a square image their first two axes agree.
        last = (
            isinstance(module, nn.Linear)
            or (isinstance(module, nn.LayerNorm) and _normalises_last(module, shape))
            or (square and shape[0] == shape[1] and shape[1] != shape[2])
        )
        return 3 if last else 1
    return 1 if shape else 0


def _normalises_last(module: nn.LayerNorm, shape: tuple[int, ...]) -> bool:
    """Whether a layer norm is over the last axis; a LayerNorm2d derived from it is not."""
    own, first = type(module) is nn.LayerNorm, (shape[0],) == module.normalized_shape
    return (shape[-1],) == module.normalized_shape and (own or not first)


def _check_place(target: Target, layer: Layer) -> None:
    place = target.place
    if isinstance(place, tuple):
        inside = len(place) == len(layer.places) and all(
            p < n for p, n in zip(place, layer.places, strict=False)
        )
        if not inside:
            maps = " x ".join(map(str, layer.places)) or "a single number"
            raise RequestError(
                f"no place {','.join(map(str, place))} in {target}: a unit of {layer.name!r} has "
                f"{maps}"
            )


def _image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise RequestError(
            f"shape={tuple(shape)} should be (channel, height, width), as in (3, 224, 224)"
        )
    return shape[0], shape[1], shape[2]


def _state(module: nn.Module) -> list[Tensor]:
    return list(itertools.chain(module.parameters(), module.buffers()))


def _hookable(part: nn.Module) -> bool:
    return not isinstance(part, nn.ModuleList | nn.ModuleDict | nn.ParameterList)


def _opaque(module: nn.Module) -> str | None:
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            return "a TorchScript module"
        if hasattr(part, "_orig_mod"):
            return "a compiled module"
    return None


def _shape_text(layer: Layer) -> str:
    return "x".join(map(str, layer.shape)) or "1"
