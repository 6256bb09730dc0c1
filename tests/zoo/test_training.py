import hashlib
import importlib
import json
from dataclasses import replace
from importlib import resources
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from optogram.pictures.errors import RequestError
from optogram.survey import from_arrays
from optogram.zoo.mnist_mlp import SIZES, mnist_mlp
from optogram.zoo.training import (
    EMA,
    Phase,
    Progress,
    Recipe,
    Trained,
    half_matrices,
    recipe_named,
    train,
)


def linear(seed):
    """One layer, all zero: its training has a closed form."""
    layer = nn.utils.skip_init(nn.Linear, 4, 3)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


def elaborate(seed):
    """With all that a run could forget: torch's own first weights, dropout, running means."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


PLAIN = Recipe(
    name="plain",
    build=linear,
    data="digits",
    shape=(1, 2, 2),
    hidden=(),
    output="1",
    phases=(Phase(3, lr=0.5, nominal=0.5), Phase(2, lr=0.1, nominal=1.0)),
    batch=4,
)
ELABORATE = replace(
    PLAIN, name="elaborate", build=elaborate, hidden=("1",), output="5", momentum=0.9
)


def sets(count=30, seed=0):
    """Training and test images of three kinds that a line can tell apart, and some noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, 2 * count)
    images = random.uniform(0, 0.6, (2 * count, 1, 2, 2))
    images.reshape(2 * count, 4)[np.arange(2 * count), labels] += 0.4
    return (
        from_arrays(images[:count], labels[:count], name="train"),
        from_arrays(images[count:], labels[count:], name="test"),
    )


def run(recipe, out, **settings):
    settings.setdefault("data", sets())
    return list(train(recipe, out=out, **settings))


def test_it_is_gradient_descent_as_written_by_hand(tmp_path):
    """Batches as large as the set, in numpy: softmax regression with a mean gradient."""
    recipe = replace(PLAIN, batch=30, mean=(0.4,), std=(0.3,), weight_decay=0.01, momentum=0.9)
    events = run(recipe, tmp_path / "w.safetensors")
    images, labels = sets()[0].take(torch.arange(30))
    x = (images.flatten(1).double().numpy() - 0.4) / 0.3
    target = np.eye(3)[labels.numpy()]
    weight, bias = np.zeros((3, 4)), np.zeros(3)
    speed_w, speed_b, losses = 0.0, 0.0, []
    for lr in (0.5, 0.5, 0.5, 0.1, 0.1):
        logits = x @ weight.T + bias
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        losses.append(-(target * np.log(chances)).sum(1).mean())
        slope = (chances - target) / 30
        speed_w = 0.9 * speed_w + slope.T @ x + 0.01 * weight
        speed_b = 0.9 * speed_b + slope.sum(0) + 0.01 * bias
        weight, bias = weight - lr * speed_w, bias - lr * speed_b
    kept = load_file(tmp_path / "w.safetensors")
    np.testing.assert_allclose(kept["1.bias"].numpy(), bias, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kept["1.weight"].float().numpy(), weight, rtol=2e-3)
    assert [event.loss for event in events[:-1]] == pytest.approx(losses, rel=1e-5)
    assert [event.lr for event in events[:-1]] == [0.5, 0.5, 0.5, 0.1, 0.1]


def test_adam_with_weight_decay_apart_is_as_written_by_hand(tmp_path):
    """Loshchilov & Hutter (2019), algorithm 2, with the whole set as batch."""
    recipe = replace(PLAIN, batch=30, optimizer="AdamW", weight_decay=0.1)
    images = sets(36)[0].take(torch.arange(30))[0]
    uneven = from_arrays(images.numpy(), [0] * 14 + [1] * 9 + [2] * 7)
    run(recipe, tmp_path / "w.safetensors", data=(uneven, uneven))
    images, labels = uneven.take(torch.arange(30))
    x, target = images.flatten(1).double().numpy(), np.eye(3)[labels.numpy()]
    x = np.concatenate([x, np.ones((30, 1))], 1)
    weight, first, second = np.zeros((3, 5)), 0.0, 0.0
    for step, lr in enumerate((0.5, 0.5, 0.5, 0.1, 0.1), start=1):
        chances = np.exp(x @ weight.T)
        slope = ((chances / chances.sum(1, keepdims=True) - target) / 30).T @ x
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        move = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        weight = weight - lr * (move + 0.1 * weight)
    kept = load_file(tmp_path / "w.safetensors")
    np.testing.assert_allclose(kept["1.bias"].numpy(), weight[:, 4], rtol=1e-3, atol=1e-5)
    found = kept["1.weight"].float().numpy()
    np.testing.assert_allclose(found, weight[:, :4], rtol=3e-3, atol=1e-4)


def test_every_image_is_shown_once_an_epoch_and_each_epoch_in_another_order(tmp_path):
    shown = []

    def augment(images, chance):
        shown.extend(round(float(one)) for one in images[:, 0, 0, 0] * 255)
        return images

    numbered = np.repeat(np.arange(30, dtype=np.uint8), 4).reshape(30, 2, 2)
    numbers = from_arrays(numbered, np.zeros(30, int))
    run(replace(PLAIN, augment=augment), tmp_path / "w", data=(numbers, numbers))
    epochs = [tuple(shown[30 * epoch :][:30]) for epoch in range(5)]
    assert len(shown) == 150
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert len(set(epochs)) == 5
    assert tuple(range(30)) not in epochs


def test_the_running_loss_and_the_true_one_are_told_at_every_step(tmp_path):
    events = run(PLAIN, tmp_path / "w", every=1)[:-1]
    assert [(event.epoch, event.step) for event in events] == [
        (epoch, step) for epoch in range(1, 6) for step in range(1, 9)
    ]
    assert {(event.epochs, event.steps) for event in events} == {(5, 8)}
    running = None
    for epoch in range(5):
        told = [0.0, *(event.loss * event.step for event in events[8 * epoch :][:8])]
        for event, (before, after) in zip(events[8 * epoch :], pairwise(told), strict=False):
            loss = after - before
            running = loss if running is None else EMA * running + (1 - EMA) * loss
            assert event.ema == pytest.approx(running, rel=1e-6)
    assert all((event.accuracy is None) == (event.step < 8) for event in events)


def test_what_is_told_between_does_not_change_the_weights(tmp_path):
    for every in (1, 3, 100):
        run(ELABORATE, tmp_path / f"{every}.safetensors", every=every)
    files = [(tmp_path / f"{every}.safetensors").read_bytes() for every in (1, 3, 100)]
    assert files[0] == files[1] == files[2]


def test_the_seed_decides_and_nothing_else(tmp_path):
    run(ELABORATE, tmp_path / "a", seed=5)
    torch.manual_seed(77)
    torch.rand(13)
    run(ELABORATE, tmp_path / "b", seed=5)
    run(ELABORATE, tmp_path / "c", seed=6)
    one, same, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert one == same != other


def test_the_order_of_the_images_follows_from_the_seed_too(tmp_path):
    """The first weights of this network are 0 for every seed."""
    for seed in (0, 1):
        run(PLAIN, tmp_path / f"{seed}", seed=seed)
    assert (tmp_path / "0").read_bytes() != (tmp_path / "1").read_bytes()


def test_between_two_events_the_global_generator_is_the_caller_s(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for _ in train(ELABORATE, data=sets(), out=tmp_path / "w", every=2):
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stop", [1, 3, 4, 9, 16, 17, 20])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, stop):
    """Eight steps an epoch: the stops lie within epochs, at their ends and right after."""
    run(ELABORATE, tmp_path / "whole.safetensors", every=2)
    first = train(ELABORATE, data=sets(), out=tmp_path / "w.safetensors", every=2)
    for _ in range(stop):
        next(first)
    first.close()
    assert not (tmp_path / "w.safetensors").exists()
    rest = run(ELABORATE, tmp_path / "w.safetensors", every=2)
    # Four events an epoch; an epoch counts once the event after its last has been asked for.
    assert rest[0].epoch == (stop - 1) // 4 + 1
    for name in ("safetensors", "records.safetensors"):
        whole = (tmp_path / f"whole.{name}").read_bytes()
        assert (tmp_path / f"w.{name}").read_bytes() == whole
    accounts = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("w", "whole")]
    assert accounts[0]["curves"] == accounts[1]["curves"]
    assert len(accounts[0]["curves"]) == 5
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("w.")) == [
        "w.json",
        "w.records.safetensors",
        "w.safetensors",
    ]


def test_a_run_that_was_killed_while_it_wrote_only_writes_again(tmp_path, monkeypatch):
    whole = tmp_path / "whole.safetensors"
    out = tmp_path / "w.safetensors"
    run(ELABORATE, whole)
    home = importlib.import_module("optogram.zoo.training")
    write = home.write_atomically

    def full(path, content):
        if path == out:
            raise OSError("no space left")
        write(path, content)

    monkeypatch.setattr(home, "write_atomically", full)
    with pytest.raises(OSError, match="no space left"):
        run(ELABORATE, out)
    monkeypatch.undo()
    [done] = run(ELABORATE, out)
    assert out.read_bytes() == whole.read_bytes()
    assert done.records.read_bytes() == (tmp_path / "whole.records.safetensors").read_bytes()


def stopped(tmp_path, **settings):
    """A run that was stopped after its second epoch."""
    out = tmp_path / "w.safetensors"
    events = train(ELABORATE, data=sets(), out=out, every=8, **settings)
    for _ in range(3):
        next(events)
    events.close()
    return out


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"data": (sets(seed=1)[0], sets()[1])},
        {"data": (sets()[0], sets(seed=1)[1])},
        {"recipe": replace(ELABORATE, batch=5)},
        {"recipe": replace(ELABORATE, phases=(Phase(9, 0.5, 0.5),))},
        {"recipe": replace(ELABORATE, momentum=0.0)},
        {"recipe": replace(ELABORATE, optimizer="AdamW")},
    ],
)
def test_the_checkpoint_of_another_training_is_not_gone_on_with(tmp_path, change):
    out = stopped(tmp_path)
    content = out.with_name("w.safetensors.checkpoint").read_bytes()
    settings = {"data": sets(), **change}
    recipe = settings.pop("recipe", ELABORATE)
    with pytest.raises(RequestError, match="is of a training with other settings, data or threads"):
        run(recipe, out, **settings)
    assert out.with_name("w.safetensors.checkpoint").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"hello", "half", "pickle", "other"])
def test_a_checkpoint_that_is_broken_is_named(tmp_path, content):
    out = stopped(tmp_path)
    checkpoint = out.with_name("w.safetensors.checkpoint")
    if content == "half":
        content = checkpoint.read_bytes()[:2000]
    if content in ("pickle", "other"):
        torch.save({"fingerprint": stopped} if content == "pickle" else [1, 2], checkpoint)
    else:
        checkpoint.write_bytes(content)
    with pytest.raises(RequestError, match=r"w\.safetensors\.checkpoint' is broken; delete it"):
        run(ELABORATE, out)


def test_the_file_is_small_and_still_as_good_as_the_account_says(tmp_path):
    """Measured here on what was written, by another road."""
    training, test = sets()
    *_, done = run(ELABORATE, tmp_path / "w.safetensors")
    assert isinstance(done, Trained)
    kept = load_file(done.weights)
    for name, value in kept.items():
        want = torch.float16 if value.ndim > 1 else torch.float32
        assert value.dtype == (torch.int64 if "num_batches" in name else want)
    module = elaborate(99).eval()
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in kept.items()})
    report = json.loads(done.account.read_text())
    assert report == json.loads(json.dumps(done.report))
    for images, key in ((test, "test"), (training, "training")):
        shown, labels = images.take(torch.arange(30))
        with torch.no_grad():
            chances = module(shown).double().softmax(1)
        right = (chances.argmax(1) == labels).double().mean()
        loss = -chances[torch.arange(30), labels].log().mean()
        assert report["shipped"][f"{key}_accuracy"] == pytest.approx(float(right))
        assert report["shipped"][f"{key}_loss"] == pytest.approx(float(loss), rel=1e-5)
    with torch.no_grad():
        said = module[:2](training.take(torch.arange(30))[0])
    seen = load_file(done.records)
    torch.testing.assert_close(seen["1.maximum"], said.amax((0, 2, 3)))
    assert report["shipped"]["dead"] == {"1": int((said.amax((0, 2, 3)) <= 0).sum())}


def test_the_account_says_how_it_was_made(tmp_path):
    training, test = sets()
    tried = ({"seed": 1, "test_accuracy": 0.5},)
    run(PLAIN, tmp_path / "w.safetensors", seed=7, tried=tried)
    report = json.loads((tmp_path / "w.json").read_text())
    assert report["command"] == "optogram train plain --seed 7 -o w.safetensors"
    assert report["seed"] == 7
    assert report["data"]["training"]["digest"] == training.digest
    assert report["data"]["test"]["digest"] == test.digest
    assert report["recipe"]["phases"] == [
        {"epochs": 3, "effective_lr": 0.5, "nominal_lr": 0.5},
        {"epochs": 2, "effective_lr": 0.1, "nominal_lr": 1.0},
    ]
    assert report["made_with"]["torch"] == str(torch.__version__)
    assert report["made_with"]["threads"] == torch.get_num_threads()
    assert report["tried"] == list(tried)
    for name, digest in report["sha256"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert sorted(report["sha256"]) == ["w.records.safetensors", "w.safetensors"]


def test_dead_units_are_counted_at_the_end_of_each_epoch(tmp_path):
    def planted(seed):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        with torch.no_grad():
            module[1].bias[:2] = -1000.0
            module[1].bias[2:] = 10.0
        return module

    recipe = replace(PLAIN, build=planted, hidden=("1",), output="3")
    *events, done = run(recipe, tmp_path / "w")
    assert [event.dead for event in events if event.dead] == [{"1": 2}] * 5
    assert [epoch["dead"] for epoch in done.report["curves"]] == [{"1": 2}] * 5


def test_weights_can_be_reined_in_after_each_step(tmp_path):
    def rein(module):
        with torch.no_grad():
            module[1].weight.clamp_(-0.01, 0.01)

    run(replace(PLAIN, after_step=rein), tmp_path / "w.safetensors")
    assert (
        load_file(tmp_path / "w.safetensors")["1.weight"].abs().max() == torch.tensor(0.01).half()
    )


def test_images_can_be_changed_and_the_changes_follow_from_the_seed(tmp_path):
    drawn = []

    def augment(images, chance):
        drawn.append(float(torch.rand((), generator=chance)))
        return 1 - images

    *_, done = run(replace(PLAIN, augment=augment), tmp_path / "a")
    first, drawn = drawn, []
    run(replace(PLAIN, augment=augment), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert first == drawn
    assert len(set(first)) == 40
    upright = from_arrays(1 - sets()[0].take(torch.arange(30))[0], sets()[0].labels)
    run(PLAIN, tmp_path / "c", data=(upright, sets()[1]))
    a, c = load_file(tmp_path / "a"), load_file(tmp_path / "c")
    torch.testing.assert_close(a["1.weight"], c["1.weight"])
    assert done.report["shipped"]["test_accuracy"] < 1


def test_a_loss_that_explodes_is_reported_and_no_weights_are_written(tmp_path):
    recipe = replace(PLAIN, phases=(Phase(5, lr=1e38, nominal=1e38),))
    with pytest.raises(FloatingPointError, match=r"the loss of plain is .* in epoch 1, step"):
        run(recipe, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_a_place_to_write_is_asked_for_before_the_work_not_after(tmp_path):
    with pytest.raises(RequestError, match="there is no folder"):
        next(train(PLAIN, data=sets(), out=tmp_path / "no" / "w"))
    with pytest.raises(RequestError, match="is a folder; give the name of a file"):
        next(train(PLAIN, data=sets(), out=tmp_path))


def test_a_network_that_is_not_known_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(RequestError, match="no network called 'mlp' to train; there is mnist-mlp"):
        next(train("mlp", out=tmp_path / "w"))


def test_without_data_the_recipe_s_own_is_taken(tmp_path):
    recipe = replace(PLAIN, phases=(Phase(1, 0.1, 0.1),), batch=500, shape=(1, 2, 2))
    recipe = replace(recipe, build=lambda seed: nn.Sequential(nn.Flatten(), nn.Linear(4, 10)))
    *_, done = list(train(recipe, out=tmp_path / "w"))
    assert done.report["data"]["training"]["name"] == "digits/train"
    assert done.report["data"]["test"]["images"] == 500


def test_the_mnist_network_is_as_wide_and_as_scaled_as_the_study_says():
    module = mnist_mlp()
    layers = [name for name, _ in module.named_children()]
    pairs = [name for number in range(1, 8) for name in (f"fc{number}", f"relu{number}")]
    assert layers == ["flatten", *pairs, "fc8"]
    shapes = [tuple(layer.weight.shape) for layer in module if isinstance(layer, nn.Linear)]
    widths = [784, 1250, 1000, 750, 500, 250, 100, 32, 10]
    assert shapes == [(outputs, inputs) for inputs, outputs in pairwise(widths)]
    assert tuple(widths) == SIZES
    for layer in module:
        if isinstance(layer, nn.Linear):
            assert not layer.bias.any()
            wanted = (2 / layer.in_features) ** 0.5
            assert float(layer.weight.detach().std()) == pytest.approx(wanted, rel=0.15)
    assert module(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_the_untrained_mnist_network_follows_from_its_seed_alone(draws_nothing):
    with draws_nothing():
        one = mnist_mlp(3)
    torch.manual_seed(4)
    same, other = mnist_mlp(3), mnist_mlp(4)
    assert torch.equal(one.fc1.weight, same.fc1.weight)
    assert not torch.equal(one.fc1.weight, other.fc1.weight)
    assert not torch.equal(one.fc8.weight[0, :32], one.fc7.weight[0, :32])


def test_the_mnist_recipe_is_the_study_s():
    recipe = recipe_named("mnist-mlp")
    assert [recipe.phase(epoch).lr for epoch in range(25)] == [0.01] * 20 + [0.001] * 5
    assert (recipe.epochs, recipe.batch, recipe.momentum, recipe.weight_decay) == (25, 32, 0, 0)
    with pytest.raises(IndexError):
        recipe.phase(25)


def test_the_shipped_files_belong_together():
    shipped = resources.files("optogram.zoo") / "shipped"
    account = json.loads((shipped / "mnist-mlp.json").read_text())
    for name, digest in account["sha256"].items():
        content = (shipped / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert len(content) < 8e6
    recipe = recipe_named("mnist-mlp")
    assert account["recipe"]["batch"] == recipe.batch
    assert account["recipe"]["notes"] == recipe.notes
    assert [phase["effective_lr"] for phase in account["recipe"]["phases"]] == [0.01, 0.001]
    assert account["shipped"]["test_accuracy"] >= 0.9806
    assert len(account["curves"]) == 25
    kept = load_file(shipped / "mnist-mlp.safetensors")
    assert half_matrices(mnist_mlp().state_dict()).keys() == kept.keys()


def test_the_first_steps_are_progress(tmp_path):
    first = next(train(PLAIN, data=sets(), out=tmp_path / "w", every=3))
    assert isinstance(first, Progress)
    assert (first.epoch, first.step, first.lr, first.accuracy, first.dead) == (
        1,
        3,
        0.5,
        None,
        None,
    )
