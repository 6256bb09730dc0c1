"""Hearing the layers of a pass one after the other, while each answer is warm in the cache."""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optogram.core.listen import called, evaluating, first_tensor, hooks, split_call
from optogram.core.network import Network
from optogram.core.onward import Onward
from optogram.core.rules import ActivationMode, before
from optogram.core.unit import OUTPUT
from optogram.pictures.errors import RequestError

Hear = Callable[[str, Tensor], None]


class _Enough(Exception):
    """Every layer that was asked for has spoken."""


def visit(
    network: Network,
    images: Float[Tensor, "batch channel height width"],
    layers: Sequence[str],
    hear: Hear,
    onward: Onward | None = None,
) -> None:
    """Show a batch once and call `hear(layer, pre_activation)` as each named layer answers.

    What `Network.read(...).before` would return is handed over layer by layer and not kept, so that
    memory holds one layer at a time and a later in-place operation cannot overwrite what was heard.
    `hear` must not keep the tensor without copying it. No gradient flows.

    With `onward` a large answer may be heard a little later, before anything but a batch norm has
    read it, and layers in another order; `hear` should call `onward.reach` as it reads.

    Raises RequestError for an unknown layer, and for one that the pass never reaches.
    """
    wanted = {network.layer(name).name for name in layers}
    heard: set[str] = set()
    mode: Any = onward or nullcontext()
    if any(network.layer(name).rectified for name in wanted):
        mode, onward = ActivationMode(), None
    root = getattr(network.module, "_orig_mod", network.module)

    def tell(name: str, answer: Tensor) -> None:
        heard.add(name)
        if onward is not None:
            onward.hear(answer, partial(hear, name))
            return
        with torch._C.DisableTorchFunction():  # what is done with it is none of the mode's business
            hear(name, before(answer))

    answer = None
    inner = wanted - {OUTPUT}
    shown = network.normalized(images)
    with evaluating(root), torch.no_grad(), _telling(root, inner, tell, OUTPUT in wanted), mode:
        with suppress(_Enough):
            answer = root(shown)
        if OUTPUT in wanted:
            tell(OUTPUT, first_tensor(answer, OUTPUT))
        if onward is not None:
            onward.finish()
    if missing := wanted - heard:
        raise RequestError(
            f"the pass never reached {', '.join(sorted(missing))}: was it traced or skipped?"
        )


def _telling(root: nn.Module, wanted: set[str], tell: Hear, to_the_end: bool) -> Any:
    """Hooks that tell what the wanted calls answer, to this thread alone."""
    calls: dict[str, int] = {}
    left = set(wanted)
    thread = threading.get_ident()

    def hook(name: str) -> Callable[..., None]:
        def speak(_: nn.Module, __: Any, answer: Any) -> None:
            if threading.get_ident() != thread:
                return
            calls[name] = calls.get(name, 0) + 1
            call = called(name, calls[name])
            if call in left:
                left.discard(call)
                tell(call, first_tensor(answer, call))
                if not left and not to_the_end:
                    raise _Enough

        return speak

    return hooks(root, {split_call(name)[0]: None for name in sorted(wanted)}, hook)
