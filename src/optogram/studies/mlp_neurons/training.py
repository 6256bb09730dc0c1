"""Part 1: how the network learned, and whether the document's learning rate can be what it was."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from optogram.core import progress
from optogram.core.chance import generator
from optogram.studies.drawing import chart
from optogram.studies.found import Claim, Figure, Found
from optogram.zoo.mnist_mlp import mnist_mlp

from .bench import HIDDEN, Bench
from .recipes import answers

EMA, BATCH, DOCUMENT = 0.9999, 32, 0.9806
RATES = (0.001, 0.01, 0.032)


def training(bench: Bench) -> Found:
    """The curves of the training, the accuracy now, and a trial of three readings of the rate."""
    curves = list(bench.account.get("curves", []))
    accuracy = _accuracy(bench, bench.network.module)
    trials = [_trial(bench, rate) for rate in RATES]
    numbers = {
        "test_set": bench.test.name,
        "test_accuracy": accuracy,
        "account": dict(bench.account.get("shipped", {})),
        "curves": curves,
        "rate_trials": trials,
        "left_of_first_loss": _left(curves),
    }
    return Found(numbers, _claims(bench, numbers), _figures(curves))


def _claims(bench: Bench, numbers: dict[str, Any]) -> tuple[Claim, ...]:
    accuracy, curves = numbers["test_accuracy"], numbers["curves"]
    name = (
        "the test images" if "mnist" in bench.test.name else f"the test images of {bench.test.name}"
    )
    claims = [
        Claim(
            "The network classifies 98.06 % of the test images correctly.",
            f"{accuracy:.2%} of {name}",
            "confirmed" if accuracy >= 0.978 else "not confirmed",
        )
    ]
    if curves:
        last, floor = curves[-1], numbers["left_of_first_loss"]
        claims.append(
            Claim(
                "The running mean of the loss (weight 0.9999) fell steadily to about 0.01.",
                f"it fell in every epoch, to {last['ema']:.3f}, where the true loss of the last "
                "epoch is "
                f"{last['loss']:.5f}: after {len(curves)} epochs such a mean still holds "
                f"{floor:.3f} "
                "of its first value, so 0.01 can only come from a mean that began lower",
                "not confirmed" if last["ema"] > 0.02 else "confirmed",
                "training",
            )
        )
    slow, plain, fast = numbers["rate_trials"]
    claims.append(
        Claim(
            "The rates are 0.01, then 0.001, of a gradient divided by 10 by accident.",
            f"after {slow['steps']} steps of the mean gradient of a batch: {slow['accuracy']:.1%} "
            "right "
            f"at an effective 0.001, {plain['accuracy']:.1%} at 0.01, {fast['accuracy']:.1%} at "
            "0.032 "
            "(a batch's sum divided by 10). At 0.001 even 15 epochs gave 96.95 % (METHODS D14), so "
            "the "
            "gradient that was divided cannot have been the batch's mean",
            "not confirmed" if plain["accuracy"] > slow["accuracy"] + 0.01 else "confirmed",
        )
    )
    return tuple(claims)


def _trial(bench: Bench, rate: float) -> dict[str, Any]:
    """A short training at one rate; an epoch, or 200 steps where the study is quick."""
    count = min(len(bench.training), 200 * BATCH if bench.quick else len(bench.training))
    module = mnist_mlp(bench.seed).train()
    climber = torch.optim.SGD(module.parameters(), lr=rate)
    order = torch.randperm(
        len(bench.training), generator=generator(bench.seed, "mlp-neurons", "order")
    )[:count]
    steps = order.split(BATCH)
    for step, chosen in enumerate(steps):
        images, labels = bench.training.take(chosen)
        climber.zero_grad(set_to_none=True)
        cross_entropy(module(images), labels).backward()
        climber.step()
        if step % 100 == 0:
            progress.tell(f"training at {rate}", step, len(steps))
    return {"rate": rate, "steps": len(steps), "accuracy": _accuracy(bench, module.eval())}


def _accuracy(bench: Bench, module: torch.nn.Module) -> float:
    right, seen = 0, 0
    asked = bench.network if module is bench.network.module else bench.network.with_module(module)
    for _, images, labels in bench.test.batches(1000):
        right += int((answers(asked, "output", images).argmax(1) == labels).sum())
        seen += len(labels)
    return right / seen


def _left(curves: list[dict[str, Any]]) -> float | None:
    """How much of a first loss of log 10 such a running mean still holds."""
    steps = 60_000 / BATCH * len(curves)
    return float(torch.tensor(10.0).log() * EMA**steps) if curves else None


def _figures(curves: list[dict[str, Any]]) -> tuple[Figure, ...]:
    if not curves:
        return ()
    epochs = [float(each["epoch"]) for each in curves]
    drawn = {
        "training": (
            "The loss of each epoch, and the running mean that the document reports. The running "
            "mean "
            "forgets so slowly that it shows how long ago training began more than how it goes.",
            {
                "mean loss of the epoch": (epochs, [each["loss"] for each in curves]),
                "running mean, weight 0.9999": (epochs, [each["ema"] for each in curves]),
            },
            "cross-entropy",
        ),
        "dead-over-time": (
            "Hidden units that none of the first 10,000 training images opened, after each epoch.",
            {
                layer: (epochs, [float(each["dead"][layer]) for each in curves])
                for layer in HIDDEN
                if any(each["dead"][layer] for each in curves)
            },
            "units",
        ),
    }
    made = []
    for name, (caption, lines, up) in drawn.items():
        drawing = chart(lines, across="epoch", up=up, log=name == "training")
        made += [Figure(name, caption, drawing)] if drawing else []
    return tuple(made)
