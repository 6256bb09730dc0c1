import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from optogram.core.chance import generator
from optogram.pictures.errors import RequestError
from optogram.survey.sources import from_arrays
from optogram.zoo import dbn, sdae
from optogram.zoo.greedy import Batch, Curriculum, classified
from optogram.zoo.rbm import Rates
from optogram.zoo.stack import Autoencoder, DeepBelief
from optogram.zoo.training import Progress, Trained, recipe_named, train

SIZES = (16, 12, 8, 2)


def bars(count, seed):
    """4 x 4 images of some rows (class 0) or some columns (class 1), with a little noise."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    lines = (draw.random((count, 4)) < 0.5).astype(np.float64)
    square = np.stack([np.broadcast_to(line[:, None], (4, 4)) for line in lines])
    square[labels == 1] = square[labels == 1].transpose(0, 2, 1)
    flipped = np.where(draw.random(square.shape) < 0.02, 1 - square, square)
    return from_arrays((255 * flipped).astype(np.uint8), labels, name=f"bars{seed}")


def curriculum(kind="dbn", **changed):
    noise = {"lr": 0.05, "noise": "masking", "amount": 0.2, "batch": 20}
    probe = replace(dbn.PROBE, epochs=4, below=2, batch=20)
    rates = Rates(lr=0.1)
    lessons = {
        "dbn": (dbn.machine_lesson(1, 3, rates, 20), dbn.machine_lesson(2, 2, rates, 20), probe),
        "sdae": (
            sdae.layer_lesson(1, 3, **noise),
            sdae.layer_lesson(2, 2, **noise),
            sdae.global_lesson(2, 2, **noise),
            probe,
        ),
    }
    builds = {
        "dbn": lambda seed: DeepBelief(SIZES, seed=seed),
        "sdae": lambda seed: Autoencoder(SIZES, seed=seed, deviation=0.2),
    }
    measure = {"dbn": dbn.measured, "sdae": sdae.measured}[kind]
    plain = Curriculum(f"bars-{kind}", builds[kind], "bars", (1, 4, 4), lessons[kind], measure)
    return replace(plain, **changed)


DATA = bars(400, 0), bars(100, 1)


@pytest.mark.parametrize("kind", ["dbn", "sdae"])
def test_a_training_writes_weights_records_and_an_account_of_what_it_wrote(tmp_path, kind):
    *told, trained = train(curriculum(kind), data=DATA, out=tmp_path / "bars.safetensors")
    assert isinstance(trained, Trained)
    assert all(isinstance(event, Progress) for event in told)
    assert told[-1].epoch == told[-1].epochs == curriculum(kind).epochs
    report = json.loads(trained.account.read_text())
    assert report == trained.report
    module = curriculum(kind).build(0)
    module.load_state_dict({k: v.float() for k, v in load_file(trained.weights).items()})
    shown = torch.cat([images for _, images, _ in DATA[1].batches(50)])
    labels = torch.cat([labels for _, _, labels in DATA[1].batches(50)])
    right = float((module(shown).argmax(1) == labels).double().mean())
    assert report["shipped"]["test_accuracy"] == pytest.approx(right)
    kept = load_file(trained.records)
    heard = torch.cat([module.h2(module.up(i.flatten(1), 0, 1)) for _, i, _ in DATA[0].batches(50)])
    torch.testing.assert_close(kept["h2.maximum"], heard.detach().amax(0))
    assert set(report["shipped"]["test_reconstruction"]) == {"h1", "h2"}
    assert not (tmp_path / "bars.safetensors.checkpoint").exists()


@pytest.mark.parametrize("kind", ["dbn", "sdae"])
def test_a_training_that_was_stopped_ends_with_the_same_bytes(tmp_path, kind):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    list(train(curriculum(kind), data=DATA, out=whole))
    for stop in (2, 4):  # within a lesson, where velocities count, and between two
        for event in train(curriculum(kind), data=DATA, out=parts):
            if event.epoch == stop and event.step == event.steps:
                break
    list(train(curriculum(kind), data=DATA, out=parts))
    assert whole.read_bytes() == parts.read_bytes()


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    out = tmp_path / "bars.safetensors"
    next(event for event in train(curriculum(), data=DATA, out=out) if event.step == event.steps)
    with pytest.raises(RequestError, match="other settings"):
        list(train(curriculum(), data=DATA, out=out, seed=1))
    out.with_name("bars.safetensors.checkpoint").write_bytes(b"no")
    with pytest.raises(RequestError, match="broken"):
        list(train(curriculum(), data=DATA, out=out))


def test_a_lesson_leaves_the_other_layers_alone_and_improves_its_own(tmp_path):
    lessons = curriculum().lessons
    before = DeepBelief(SIZES)
    trained = list(train(curriculum(lessons=lessons[1:2]), data=DATA, out=tmp_path / "a"))[-1]
    after = load_file(trained.weights)
    for name in ("h1.weight", "digit.weight", "below1"):
        assert torch.equal(after[name].float(), before.state_dict()[name].half().float())
    assert not torch.equal(after["h2.weight"].float(), before.h2.weight.half().float())


def test_labels_can_change_the_whole_way_up():
    """The gradient of the unrolled network, as torch itself would step along it."""
    stack, twin = (DeepBelief(SIZES, deviation=0.5) for _ in range(2))
    inputs = torch.cat([images.flatten(1) for _, images, _ in DATA[1].batches(50)])
    labels = torch.arange(100) % 2
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.3, momentum=0.9, weight_decay=0.0)
    memory = {}
    for done in (0.0, 0.5):
        batch = Batch(inputs, labels, generator("x"), memory, done)
        classified(lr=0.3, whole=True)(stack, batch)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(twin(inputs.view(-1, 1, 4, 4)), labels).backward()
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - done)
        optimizer.step()
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(stack.state_dict()[name], value)


def test_fine_tuning_tells_rows_from_columns(tmp_path):
    whole = replace(dbn.PROBE, name="whole", epochs=40, below=0, batch=20)
    whole = replace(whole, learn=classified(lr=0.5, whole=True))
    own = curriculum(lessons=(whole,), build=lambda seed: DeepBelief(SIZES, deviation=0.5))
    trained = list(train(own, data=DATA, out=tmp_path / "a"))[-1]
    assert trained.report["shipped"]["test_accuracy"] > 0.8


@pytest.mark.parametrize("noise", sdae.NOISES)
def test_noise_spoils_as_much_as_it_says(noise):
    values = torch.full((400, 250), 0.5)
    spoilt = sdae.corrupted(values, noise, 0.3, generator("noise"))
    if noise == "gaussian":
        assert float((spoilt - values).std()) == pytest.approx(0.3, abs=0.01)
        assert float((spoilt - values).mean()) == pytest.approx(0.0, abs=0.01)
        return
    assert float((spoilt == 0.5).double().mean()) == pytest.approx(0.7, abs=0.01)
    ones = 0.15 if noise == "salt_and_pepper" else 0.0
    assert float((spoilt == 1).double().mean()) == pytest.approx(ones, abs=0.01)
    assert torch.equal(values, torch.full((400, 250), 0.5))


def test_an_unknown_noise_is_refused():
    with pytest.raises(RequestError, match="there is masking"):
        sdae.corrupted(torch.zeros(1, 2), "salt", 0.1, generator("noise"))


@pytest.mark.parametrize("gaussian", [False, True])
def test_the_loss_of_restoring_is_the_formula(gaussian):
    stack = Autoencoder(SIZES, gaussian=gaussian, deviation=0.5)
    clean, spoilt = torch.rand(2, 5, 16, generator=generator("x"))
    with torch.no_grad():
        hidden = 1 / (1 + torch.exp(-(spoilt @ stack.h1.weight.T + stack.h1.bias)))
        logits = hidden @ stack.h1.weight + stack.below(1)
        p = 1 / (1 + torch.exp(-logits))
        crossed = -(clean * p.log() + (1 - clean) * (1 - p).log())
        each = (clean - logits).square() / 2 if gaussian else crossed
        found = sdae.restoration_loss(stack, spoilt, clean, 0, 1)
    torch.testing.assert_close(found, each.sum(1).mean())


def test_free_weights_of_the_way_down_learn_on_their_own():
    tied, free = (Autoencoder(SIZES, tied=t, deviation=0.5) for t in (True, False))
    inputs = torch.cat([images.flatten(1) for _, images, _ in DATA[1].batches(50)])
    shown = torch.zeros(100, dtype=torch.long)
    before = free.h1.weight.detach().clone()
    learn = sdae.restored(0, 1, lr=0.05, noise="masking", amount=0.2)
    for stack in (tied, free):
        learn(stack, Batch(inputs, shown, generator("x"), {}, 0.0))
    up, down = free.h1.weight - before, free.get_parameter("down1") - before
    assert not torch.allclose(up, down)
    # The gradient of the tied weight is the sum of those of the two that were equal.
    torch.testing.assert_close(tied.h1.weight - before, up + down, atol=1e-6, rtol=1e-4)


def test_going_down_and_up_is_layer_by_layer():
    stack = DeepBelief(SIZES, deviation=0.5)
    values = torch.rand(3, 16, generator=generator("x"))
    lower, upper = stack.boltzmanns()
    torch.testing.assert_close(stack.up(values, 0, 2), upper.up(lower.up(values)))
    torch.testing.assert_close(stack.digit(stack.up(values, 0, 2)), stack(values.view(3, 1, 4, 4)))
    top = torch.rand(3, 8, generator=generator("y"))
    torch.testing.assert_close(stack.down(top, 2), lower.down(upper.down(top)))


def test_dreams_have_the_means_of_the_top_machine_drawn_down():
    stack = DeepBelief((4, 3, 2), deviation=1.0)
    (machine,) = stack.boltzmanns()
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    logs = states @ machine.hidden
    logs = logs + torch.nn.functional.softplus(states @ machine.weight + machine.visible).sum(1)
    expected = torch.softmax(logs, 0) @ machine.down(states)
    found = dbn.dream(stack, chains=20_000, sweeps=30).mean(0)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_the_recipes_have_names():
    for name in ("mnist-dbn", "mnist-sdae"):
        found = recipe_named(name)
        assert isinstance(found, Curriculum)
        assert found.name == name
