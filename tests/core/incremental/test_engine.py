"""Computing only what an occluder reaches gives what showing every occluded copy gives."""

import itertools
import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import optogram as og
from optogram.core.chance import generator
from optogram.core.incremental import Occluders, answers, grid, hull
from optogram.core.incremental.answers import prepared
from optogram.core.incremental.plan import flops, groups, least_flops, whole_flops
from optogram.core.progress import listening


def drawn(shape, *parts):
    return torch.rand(shape, generator=generator("test", *parts))


def alive(module, seed=0):
    """Weights under which a difference at the image still makes one at the output."""
    for number, (name, part) in enumerate(module.named_modules()):
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan = part.weight[0].numel()
            noise = torch.randn(part.weight.shape, generator=generator(seed, number, name))
            part.weight.data.copy_(noise * (2 / fan) ** 0.5)
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(drawn(part.running_mean.shape, seed, name, "mean") - 0.5)
            part.running_var.copy_(drawn(part.running_var.shape, seed, name, "variance") + 0.5)
    return module


def network(module, shape, **settings):
    return og.Network(module, shape, mean=[0.4] * shape[0], std=[0.25] * shape[0], **settings)


def both_ways(net, image, occluders, layers=("output",), memory=1.0):
    ways = []
    for engine in ("incremental", "naive"):
        found = {}
        for which, acts in answers(net, image, occluders, layers, engine=engine, memory=memory):
            for row, number in enumerate(which.tolist()):
                assert number not in found
                found[number] = [acts.layers[layer][row] for layer in layers]
        assert sorted(found) == list(range(len(occluders)))
        ways.append([torch.stack([found[n][i] for n in sorted(found)]) for i in range(len(layers))])
    return ways


def assert_same(net, image, occluders, layers=("output",), memory=1.0, effect=1e-3):
    fast, plain = both_ways(net, image, occluders, layers, memory)
    clean = net.read(image[None], *layers)
    for layer, a, b in zip(layers, fast, plain, strict=True):
        scale = float(b.abs().max())
        assert float((a - b).abs().max()) <= 1e-5 * scale
        if effect:
            assert float((b - clean.layers[layer]).abs().max()) > effect * scale


# --- random networks -----------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, branch, join):
        super().__init__()
        self.branch, self.join = branch, join

    def forward(self, x):
        y = self.branch(x)
        if self.join == "cat":
            return torch.cat([x, y], 1)
        y += x
        return y


class Late(nn.Module):
    """In-place, functional and scalar calls, as real code mixes them."""

    def forward(self, x):
        x = torch.relu_(x * 2 + 0.5)
        return nn.functional.dropout(x, 0.5, self.training).clamp(max=3.0)


SIDE = st.integers(1, 3)


@st.composite
def stacks(draw):
    """A few layers, as (kind, numbers), and an odd image."""
    layers = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(
            st.sampled_from(
                ["conv", "grouped", "max", "average", "norm", "lrn", "add", "cat", "late", "pad"]
            )
        )
        numbers = {
            "kernel": (draw(SIDE), draw(SIDE)),
            "stride": (draw(SIDE), draw(SIDE)),
            "padding": draw(st.integers(0, 1)),
            "dilation": draw(st.integers(1, 2)),
            "ceil": draw(st.booleans()),
            "counted": draw(st.booleans()),
        }
        layers.append((kind, numbers))
    size = draw(st.integers(7, 23)), draw(st.integers(7, 23))
    occluder = (draw(st.integers(1, 9)), draw(st.integers(1, 9))), draw(SIDE)
    head = draw(st.sampled_from(["mean", "flat", "adaptive", "map"]))
    return layers, size, occluder, head


def build(layers, head):
    channels, made = 2, []
    for kind, n in layers:
        kernel, stride, dilation = n["kernel"], n["stride"], n["dilation"]
        pooling = tuple(min(n["padding"], k // 2) for k in kernel)
        if kind == "conv":
            made.append(nn.Conv2d(channels, 4, kernel, stride, n["padding"], dilation))
            channels = 4
        elif kind == "grouped":
            made.append(nn.Conv2d(channels, 2 * channels, kernel, 1, n["padding"], groups=channels))
            channels *= 2
        elif kind == "max":
            made.append(nn.MaxPool2d(kernel, stride, pooling, ceil_mode=n["ceil"]))
        elif kind == "average":
            made.append(nn.AvgPool2d(kernel, stride, pooling, n["ceil"], n["counted"]))
        elif kind == "norm":
            made += [nn.Conv2d(channels, 3, 1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)]
            channels = 3
        elif kind == "lrn":
            made.append(nn.LocalResponseNorm(3, 0.5, 0.75 if n["ceil"] else 0.6, 1.5))
        elif kind in ("add", "cat"):
            made.append(Residual(nn.Conv2d(channels, channels, 3, 1, 1), kind))
            channels *= 2 if kind == "cat" else 1
        elif kind == "pad":
            made.append(nn.ZeroPad2d((1, 0, 2, 1)))
        else:
            made.append(Late())
    made.append(nn.Conv2d(channels, 3, 1))
    if head == "mean":
        made += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)]
    elif head == "flat":
        made += [nn.Flatten(), nn.LazyLinear(4)]
    elif head == "adaptive":
        made += [nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(18, 4)]
    return nn.Sequential(*made)


@settings(max_examples=80)
@given(stacks())
def test_random_stacks_answer_as_if_every_copy_were_shown(drawing):
    layers, size, (patch, stride), head = drawing
    module = build(layers, head).eval()
    image = drawn((2, *size), "image")
    try:
        with torch.no_grad():
            module(image[None])
    except (RuntimeError, ValueError):  # the map became too small for a kernel
        return
    net = network(alive(module), (2, *size))
    boxes = grid(*size, patch, stride).flatten(0, 1)
    assert_same(net, image, Occluders(boxes, drawn((2, *size), "content")), effect=0)


def test_the_random_stacks_are_really_computed_in_parts():
    numbers = {"kernel": (3, 3), "stride": (1, 1), "padding": 1, "dilation": 1}
    module = build([("conv", numbers)] * 3, "mean")
    net = network(alive(module), (2, 23, 23))
    image, boxes = drawn((2, 23, 23), "image"), grid(23, 23, 3, 2).flatten(0, 1)
    occluders = Occluders(boxes, torch.zeros(2, 23, 23))
    steps = prepared(net, image, occluders, ("output",))
    made = groups(steps, boxes)
    assert sorted(int(n) for one in made for n in one.which) == list(range(len(boxes)))
    least, done, whole = (
        least_flops(steps, boxes),
        flops(steps, made),
        whole_flops(steps, len(boxes)),
    )
    assert least <= done < whole / 3


def test_the_lower_bound_counts_exactly_the_places_that_change():
    net = network(nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 3, 1, 0)), (1, 15, 17))
    for part in net.module:
        nn.init.ones_(part.weight)
    image = torch.zeros(1, 15, 17)
    boxes = grid(15, 17, 4, 3).flatten(0, 1)
    occluders = Occluders(boxes, torch.ones(1, 15, 17))
    steps = prepared(net, image, occluders, ("output",))
    clean = net.read(image[None], "0", "output")
    counted = 0
    for which, acts in answers(net, image, occluders, ("0", "output"), engine="naive"):
        for layer in ("0", "output"):
            changed = (acts.layers[layer] - clean.layers[layer]).abs() > 1e-3
            counted += 18 * int(changed.sum())
        assert len(which)
    assert least_flops(steps, boxes) == counted


# --- known networks ------------------------------------------------------------------------------

# Odd images, and no larger than a map needs to be cut rather than be computed whole.
NAMES = [
    ("alexnet", (113, 95)), ("vgg11", (67, 75)), ("resnet18", (97, 83)),
    ("squeezenet1_0", (91, 81)), ("googlenet", (83, 75)), ("mobilenet_v2", (81, 67)),
    ("vit", (35, 35)),
    pytest.param("vgg16", (67, 75), marks=pytest.mark.slow),
    pytest.param("densenet121", (75, 67), marks=pytest.mark.slow),
]  # fmt: skip
PATCHES, STRIDES = [9, (17, 12), (24, 31)], [29, (37, 31), 53]


def of_the_field(name):
    """A network by its name, its output laid open to differences; classes few, to be fast."""
    torchvision = pytest.importorskip("torchvision")
    if name == "vit":
        module = torchvision.models.VisionTransformer(35, 7, 2, 2, 16, 32, num_classes=5)
        nn.init.normal_(module.heads.head.weight, generator=generator("head"))
        return module
    arguments = {"init_weights": False} if name == "googlenet" else {}
    return alive(getattr(torchvision.models, name)(weights=None, num_classes=10, **arguments))


@pytest.mark.parametrize(("name", "size"), NAMES)
def test_networks_of_the_field_answer_as_if_every_copy_were_shown(name, size):
    net, image = network(of_the_field(name), (3, *size)), drawn((3, *size), name)
    grey, effect = torch.full_like(image, 0.5), 1e-4 if name == "vit" else 1e-3
    for patch, stride in itertools.product(PATCHES, STRIDES):
        boxes = grid(*size, patch, stride).flatten(0, 1)
        assert_same(net, image, Occluders(boxes, grey), effect=effect)


class Gate(nn.Module):
    """Squeeze and excite: every place is scaled by what all places say together."""

    def __init__(self, channels):
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x):
        seen = torch.relu(self.squeeze(nn.functional.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.excite(seen))


class Shuffle(nn.Module):
    """Half of the channels convolved, and the halves dealt like cards."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)

    def forward(self, x):
        kept, given = x.chunk(2, dim=1)
        x = torch.cat([kept, self.conv(given)], 1)
        count, channels, height, width = x.shape
        dealt = x.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return dealt.view(count, channels, height, width)


@pytest.mark.parametrize(
    "middle", [Gate(6), Shuffle(6), nn.AdaptiveAvgPool2d((5, 4)), nn.AdaptiveMaxPool2d((4, 3))]
)
def test_gates_shuffles_and_uneven_pooling_answer_as_if_every_copy_were_shown(middle):
    layers = [nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), middle, nn.Conv2d(6, 4, 3, padding=1)]
    module = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    with torch.no_grad():
        module(torch.zeros(1, 2, 17, 14))
    image = drawn((2, 17, 14), "gates")
    occluders = Occluders(grid(17, 14, (4, 3), 3).flatten(0, 1), torch.zeros(2, 17, 14))
    assert_same(network(alive(module), (2, 17, 14)), image, occluders, ("2", "3", "output"))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0"])
def test_networks_with_gates_and_shuffles_answer_as_if_every_copy_were_shown(name):
    models = pytest.importorskip("torchvision").models
    net = network(alive(getattr(models, name)(weights=None, num_classes=10)), (3, 67, 75))
    image = drawn((3, 67, 75), name)
    occluders = Occluders(grid(67, 75, (17, 12), 41).flatten(0, 1), torch.full_like(image, 0.5))
    assert_same(net, image, occluders, effect=1e-4)


@pytest.mark.parametrize("name", ["mnist-mlp", "mnist-sdae", "mnist-dbn", "tiny-zfnet"])
def test_the_shipped_networks_answer_as_if_every_copy_were_shown(name):
    net = og.load(name)
    image = og.data("digits" if net.shape[0] == 1 else "photos", shape=net.shape)[3][0]
    for patch, stride in itertools.product([3, (5, 7), 14], [9, (7, 12), 17]):
        boxes = grid(*net.shape[1:], patch, stride).flatten(0, 1)
        ways = [
            og.occlusion(net, image, "output:3", patch=patch, stride=stride, engine=engine)
            for engine in ("auto", "naive")
        ]
        (mine, plain), scale = (way.values for way in ways), abs(ways[1].score)
        assert mine.numel() == len(boxes)
        assert float((mine - plain).abs().max()) <= 1e-5 * (scale + float(plain.abs().max()))
        assert float(plain.abs().max()) > 1e-3 * scale


def test_a_vision_transformer_goes_over_to_whole_maps_and_says_so(caplog):
    torchvision = pytest.importorskip("torchvision")
    module = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
    nn.init.normal_(module.heads.head.weight, generator=generator("head"))
    image = drawn((3, 32, 32), "vit")
    occluders = Occluders(grid(32, 32, 8, 5).flatten(0, 1), torch.zeros(3, 32, 32))
    with caplog.at_level(logging.INFO, "optogram"):
        assert_same(network(module, (3, 32, 32)), image, occluders, effect=1e-4)
    assert "is not local" in caplog.text


@pytest.mark.data
def test_squeezenet_with_real_weights_answers_as_if_every_copy_were_shown(data_root):
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_0

    weights = load_file(data_root / "weights" / "squeezenet1_0.safetensors")
    module = squeezenet1_0()
    module.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    image = og.image(data_root / "imagenet_samples" / "n02112018_Pomeranian.jpg")[:, :199, :203]
    occluders = Occluders(grid(199, 203, 30, 43).flatten(0, 1), torch.full_like(image, 0.5))
    assert_same(network(module, (3, 224, 224)), image, occluders, ("features.5.squeeze", "output"))


@pytest.mark.data
def test_the_first_googlenet_with_its_response_norms_answers_as_if_every_copy_were_shown(data_root):
    net = og.load("googlenet-bvlc", weights=data_root / "weights" / "googlenet_bvlc.safetensors")
    image = og.image(data_root / "imagenet_samples" / "n02112018_Pomeranian.jpg")[:, :201, :199]
    occluders = Occluders(grid(201, 199, 24, 59).flatten(0, 1), torch.full_like(image, 0.5))
    assert_same(net, image, occluders, ("inception4a", "output"))


# --- what is asked, and how --------------------------------------------------------------------


def small(seed=0):
    return alive(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 3),
        ),
        seed,
    )


def test_inner_layers_are_answered_as_they_were_before_an_in_place_relu():
    image = drawn((1, 21, 19), "inner")
    occluders = Occluders(grid(21, 19, 4, 3).flatten(0, 1), torch.zeros(1, 21, 19))
    layers = ("0", "1", "2", "3", "5", "output")
    assert_same(network(small(), (1, 21, 19)), image, occluders, layers)


def test_the_image_itself_may_be_the_layer():
    net = network(nn.Sequential(nn.Dropout(), nn.Conv2d(1, 2, 3)), (1, 9, 9))
    image = drawn((1, 9, 9), "image")
    assert_same(
        net, image, Occluders(grid(9, 9, 3, 2).flatten(0, 1), torch.zeros(1, 9, 9)), ("0", "1")
    )


class Mixes(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return torch.fft.fft2(self.conv(x)).real.mean((2, 3))


def convolutional_classifier():
    layers = [
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(),
        nn.Conv2d(4, 9, 1),
    ]
    return alive(nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def test_of_a_convolutional_classifier_only_the_units_asked_are_computed():
    net = network(convolutional_classifier(), (1, 24, 24))
    image, boxes = drawn((1, 24, 24), "classifier"), grid(24, 24, 4, 4).flatten(0, 1)
    occluders = Occluders(boxes, torch.zeros(1, 24, 24))
    whole = prepared(net, image, occluders, ("output",))
    narrow = prepared(net, image, occluders, ("output",), (7, 2))
    assert 0 < whole_flops(whole, 1) - whole_flops(narrow, 1) == 2 * 4 * 7 * 12 * 12
    for which, acts in answers(net, image, occluders, ("output",), units=(7, 2)):
        found, expected = acts.layers["output"], net(occluders.apply(image, which))
        assert found.isnan().all(0).tolist() == [n not in (7, 2) for n in range(9)]
        assert torch.allclose(found[:, [7, 2]], expected[:, [7, 2]], atol=1e-6)


def test_all_units_are_computed_where_a_sum_or_another_layer_needs_them():
    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = convolutional_classifier()

        def forward(self, x):
            return self.net(x).softmax(1)

    image = drawn((1, 24, 24), "classifier")
    occluders = Occluders(grid(24, 24, 4, 4).flatten(0, 1), torch.zeros(1, 24, 24))
    net = network(Shares(), (1, 24, 24))
    for layers in (("output",), ("net.4", "net.7")):
        for _, acts in answers(net, image, occluders, layers, units=(3,)):
            assert not any(bool(answer.isnan().any()) for answer in acts.layers.values())


@pytest.mark.parametrize("module", [small(), Mixes()])
def test_batches_smaller_than_the_parts_together_are_no_trouble(module, monkeypatch):
    from optogram.core.incremental import engine

    monkeypatch.setattr(engine, "_SUFFIX", 1)
    monkeypatch.setattr(engine, "_FEWEST", 4)
    image = drawn((1, 21, 19), "narrow")
    occluders = Occluders(grid(21, 19, 4, 2).flatten(0, 1), torch.zeros(1, 21, 19))
    net = network(module, (1, 21, 19))
    assert_same(net, image, occluders, effect=0)
    which, _ = next(answers(net, image, occluders, ("output",), engine="incremental"))
    assert len(which) == 4
    assert int(which[0]) == len(occluders) // 2


def test_masks_of_any_form_are_hidden_exactly():
    image = drawn((1, 20, 20), "masks")
    masks = drawn((9, 20, 20), "which") < 0.05
    masks[0] = True
    occluders = Occluders(hull(masks), drawn((1, 20, 20), "content"), masks)
    assert_same(network(small(), (1, 20, 20)), image, occluders)


@pytest.mark.parametrize("memory", [1e-9, 1e-4, 1e-3])
def test_little_memory_means_smaller_batches_and_the_same_numbers(memory):
    image = drawn((1, 24, 24), "memory")
    net = network(small(), (1, 24, 24))
    occluders = Occluders(grid(24, 24, 4, 2).flatten(0, 1), torch.zeros(1, 24, 24))
    assert_same(net, image, occluders, memory=memory)


def test_late_maps_of_many_occluders_together_are_the_same_numbers(monkeypatch):
    from optogram.core.incremental import engine

    layers = [nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU()]
    late = [nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)]
    net = network(alive(nn.Sequential(*layers, *late, *head)), (1, 24, 24))
    image, boxes = drawn((1, 24, 24), "late"), grid(24, 24, 9, 2).flatten(0, 1)
    occluders = Occluders(boxes, torch.zeros(1, 24, 24))
    through = []
    whole = engine.Engine._late
    monkeypatch.setattr(
        engine.Engine, "_late", lambda *given: through.append(given[2]) or whole(*given)
    )
    assert_same(net, image, occluders, ("2", "7", "output"))
    assert through
    assert_same(net, image, occluders, memory=1e-9)


def test_copies_of_weights_count_as_memory():
    from optogram.core.incremental import engine
    from optogram.core.incremental.plan import copies

    plain = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 5, padding=2)]
    module = nn.Sequential(*plain, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    image, boxes = drawn((1, 24, 24), "copies"), grid(24, 24, 4, 2).flatten(0, 1)
    occluders = Occluders(boxes, torch.zeros(1, 24, 24))
    net = network(module, (1, 24, 24))
    steps = prepared(net, image, occluders, ("output",))
    made = groups(steps, boxes)
    small, norms = 4 * 4 * 9, 4 * 4 * 8 * 25
    assert copies(steps) == small + 2 * norms
    rooms = [engine.Engine(net, steps, image, occluders, m)._room(made) for m in (1e6, 2e6)]
    assert rooms[1] - rooms[0] == pytest.approx(0.75e6)
    kept = {0}.union(*(one.cut for one in made))
    clean = 4 * 24 * 24 * sum(steps.shapes[number][0] for number in kept)
    assert rooms[0] == pytest.approx(
        0.75 * (1e6 - clean - copies(steps, made) - engine._held(steps, made))
    )


def test_a_large_fully_connected_layer_stays_within_the_memory():
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the highest memory of a process cannot be read here")

    def resident(what):
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1e3

    module = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.Flatten(), nn.Linear(32 * 1600, 512))
    net, image = network(module, (1, 40, 40)), drawn((1, 40, 40), "large")
    occluders = Occluders(grid(40, 40, 6, 17).flatten(0, 1), torch.zeros(1, 40, 40))
    list(answers(net, image, occluders, ("output",), memory=0.02))
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    list(answers(net, image, occluders, ("output",), memory=0.02))
    # A second copy of the layer alone would be 105 MB.
    assert resident("VmHWM") - before < 70


def test_progress_is_told_to_the_end():
    told = []
    image = drawn((1, 24, 24), "progress")
    occluders = Occluders(grid(24, 24, 4, 2).flatten(0, 1), torch.zeros(1, 24, 24))
    for engine in ("incremental", "naive"):
        with listening(lambda what, done, total: told.append((done, total))):
            list(
                answers(network(small(), (1, 24, 24)), image, occluders, ("output",), engine=engine)
            )
        assert told[-1] == (len(occluders), len(occluders))
        told.clear()


def test_double_precision_stays_double():
    image = drawn((1, 15, 15), "double")
    net = network(small().double(), (1, 15, 15))
    occluders = Occluders(grid(15, 15, 4, 3).flatten(0, 1), torch.zeros(1, 15, 15))
    fast, plain = both_ways(net, image, occluders)
    assert fast[0].dtype == torch.float64
    assert float((fast[0] - plain[0]).abs().max()) < 1e-13


def test_the_module_is_left_as_it_was_found():
    module = small().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    image = drawn((1, 15, 15), "left")
    occluders = Occluders(grid(15, 15, 4, 3).flatten(0, 1), torch.zeros(1, 15, 15))
    list(answers(network(module, (1, 15, 15)), image, occluders, ("output",)))
    assert all(part.training for part in module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(part._forward_hooks for part in module.modules())
    assert all(p.grad is None for p in module.parameters())


class Writes(nn.Module):
    def forward(self, x):
        x = x * 1
        x[:, :, 0] = 0
        return x.mean((2, 3))


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        y = self.conv(x)
        return (y if float(y.sum()) > 0 else -y).mean((2, 3))


@pytest.mark.parametrize(
    ("module", "reason"), [(Writes(), "writes into a part"), (Decides(), "reads numbers")]
)
def test_what_cannot_be_written_down_is_shown_whole_with_the_reason(module, reason, caplog):
    net = og.Network(module, (1, 11, 11))
    image = drawn((1, 11, 11), "whole")
    occluders = Occluders(grid(11, 11, 4, 3).flatten(0, 1), torch.zeros(1, 11, 11))
    with caplog.at_level(logging.INFO, "optogram"):
        for which, acts in answers(net, image, occluders, ("output",)):
            expected = net(occluders.apply(image, which))
            assert torch.equal(acts.layers["output"], expected)
    assert reason in caplog.text
    with pytest.raises(og.RequestError, match=reason):
        list(answers(net, image, occluders, ("output",), engine="incremental"))


def test_an_operation_that_is_not_local_is_done_on_whole_maps():
    image = drawn((1, 11, 11), "fft")
    occluders = Occluders(grid(11, 11, 4, 3).flatten(0, 1), torch.zeros(1, 11, 11))
    assert_same(network(Mixes(), (1, 11, 11)), image, occluders, effect=0)


def test_a_network_that_its_own_steps_do_not_repeat_is_shown_whole(monkeypatch, caplog):
    from optogram.core.incremental import engine

    wrong = engine._integral
    monkeypatch.setattr(engine, "_integral", lambda clean: wrong(clean) * 1.5)
    image = drawn((1, 21, 21), "wrong")
    net = network(small(), (1, 21, 21))
    occluders = Occluders(grid(21, 21, 3, 6).flatten(0, 1), torch.zeros(1, 21, 21))
    with caplog.at_level(logging.INFO, "optogram"):
        for which, acts in answers(net, image, occluders, ("output",)):
            assert torch.allclose(acts.layers["output"], net(occluders.apply(image, which)))
    assert "miss the answer" in caplog.text


def test_a_module_used_twice_and_an_unused_branch_are_no_trouble():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(inplace=True)

        def forward(self, x):
            self.relu(x + 1)  # unused
            return self.relu(self.conv(self.relu(self.conv(x)))).flatten(1)

    image = drawn((1, 12, 12), "twice")
    occluders = Occluders(grid(12, 12, 3, 3).flatten(0, 1), torch.zeros(1, 12, 12))
    layers = ("conv", "conv#2", "relu#2", "output")
    assert_same(network(alive(Twice()), (1, 12, 12)), image, occluders, layers)


@pytest.mark.gpu
def test_on_cuda_the_numbers_are_the_same():
    image = drawn((1, 21, 19), "cuda")
    occluders = Occluders(grid(21, 19, 4, 3).flatten(0, 1), torch.zeros(1, 21, 19))
    net = network(small().cuda(), (1, 21, 19))
    fast, plain = both_ways(net, image, occluders, ("3", "output"))
    for a, b in zip(fast, plain, strict=True):
        assert a.is_cuda
        assert torch.allclose(a, b, atol=1e-4)
