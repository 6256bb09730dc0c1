"""What a unit can see: sizes from the operations, held against where gradients really arrive."""

import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from optogram.core import Network
from optogram.core.field import PIXEL, WHOLE, Axis, ReceptiveField
from tests.core.nets import Does, Inception, Tokens, named, seeded

Box = tuple[int, int, int, int]


class PassesEverything(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.relu()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def opened(module: nn.Module) -> nn.Module:
    """The module with positive weights, so that no gradient is stopped or cancelled."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.data.abs_().add_(1e-2)
        if isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
            part.running_mean.zero_()
            part.running_var.fill_(1)
            nn.init.ones_(part.weight)
        if isinstance(part, nn.ReLU6):  # which positive sums would saturate
            part.min_val, part.max_val = -torch.inf, torch.inf
    return module.eval()


def torchvisions(name: str) -> nn.Module:
    """One of torchvision's networks as far as its maps go, with weights of our own."""
    quirks = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    with torch.device("meta"):
        module = torchvision.models.get_model(name, weights=None, **quirks)
    if hasattr(module, "features"):
        module = nn.Sequential(OrderedDict(features=module.features))
    return seeded(module.to_empty(device="cpu"))


def supports(
    network: Network, layer: str, places: list[tuple[int, int]], draws: int = 4
) -> list[Box | None]:
    """The box of pixels that a gradient from each place really reaches, over several random images.

    ReLUs let everything pass; maxima send it to one pixel of each window, another one for each
    image, so over some images every pixel of a small window is met.
    """
    chance = torch.Generator().manual_seed(3)
    real = F.relu
    F.relu = lambda x, inplace=False: PassesEverything.apply(x)  # type: ignore[assignment]
    try:
        x = torch.rand(draws, *network.shape, generator=chance, dtype=network.dtype)
        # Peaks at random pixels: a window's maximum then falls on each of its pixels in turn.
        x = (x * torch.rand(x.shape, generator=chance).pow(4)).requires_grad_()
        network.module.eval()
        answers = []
        handle = network.module.get_submodule(layer).register_forward_hook(
            lambda _, __, answer: answers.append(answer)
        )
        network.module(x)
        handle.remove()
        found = []
        for row, column in places:
            (gradient,) = torch.autograd.grad(
                answers[0][:, :, row, column].sum(), x, retain_graph=True, allow_unused=True
            )
            found.append(None if gradient is None else extent(gradient))
    finally:
        F.relu = real
    return found


def extent(gradient: Tensor) -> Box | None:
    rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
    columns = gradient.abs().sum((0, 1, 2)).nonzero().flatten().tolist()
    return (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if rows else None


def holds(box: Box, support: Box | None) -> bool:
    return support is None or (
        box[0] <= support[0]
        and box[1] <= support[1]
        and box[2] >= support[2]
        and box[3] >= support[3]
    )


def corners_and_middle(size: tuple[int, int]) -> list[tuple[int, int]]:
    height, width = size
    return sorted(
        {(r, c) for r in (0, height // 2, height - 1) for c in (0, width // 2, width - 1)}
    )


SIZES = st.sampled_from([1, 2, 3, 5])
LAYERS = st.one_of(
    st.tuples(st.just("conv"), SIZES, st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)),
    st.tuples(st.just("tall"), SIZES, st.integers(1, 2), st.integers(0, 2), st.integers(1, 2)),
    st.tuples(
        st.just("mean"), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.booleans()
    ),
    st.tuples(
        st.just("max"), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.booleans()
    ),
    st.tuples(
        st.just("pad"), st.integers(0, 2), st.integers(0, 2), st.integers(-1, 2), st.integers(0, 2)
    ),
    st.tuples(st.just("relu")),
    st.tuples(st.just("norm")),
)


def layer(spec: tuple) -> nn.Module:
    match spec:
        case ("conv", kernel, stride, padding, dilation):
            return nn.Conv2d(1, 1, kernel, stride, padding, dilation)
        case ("tall", kernel, stride, padding, dilation):
            return nn.Conv2d(1, 1, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
        case ("mean", kernel, stride, padding, ceil):
            return nn.AvgPool2d(kernel, stride, min(padding, kernel // 2), ceil_mode=ceil)
        case ("max", kernel, stride, padding, ceil):
            return nn.MaxPool2d(kernel, stride, min(padding, kernel // 2), ceil_mode=ceil)
        case ("pad", *sizes):
            return nn.ZeroPad2d(tuple(sizes))
        case ("relu",):
            return nn.ReLU()
        case ("norm",):
            return nn.BatchNorm2d(1)
    raise AssertionError(spec)


@settings(max_examples=60)
@given(st.lists(LAYERS, min_size=1, max_size=5))
def test_the_field_of_any_stack_is_where_its_gradients_arrive(specs):
    stack = nn.Sequential(*map(layer, specs)).double()
    try:
        size = tuple(stack.eval()(torch.zeros(1, 1, 23, 19, dtype=torch.float64)).shape[-2:])
    except RuntimeError:  # no output is left
        return
    network = Network(opened(nn.Sequential(stack)), (1, 23, 19))
    field = network.layer("0").field
    places = corners_and_middle(size)
    maxima = any(spec[0] == "max" and spec[1] > 1 for spec in specs)
    crops = any(spec[0] == "pad" and min(spec[1:]) < 0 for spec in specs)
    for place, support in zip(places, supports(network, "0", places), strict=True):
        box = field.box(*place, 23, 19)
        assert holds(box, support), (place, box, support)
        uncut = (box[2] - box[0], box[3] - box[1]) == field.size
        if uncut and not maxima and not crops:
            assert box == support, (place, field)


@pytest.mark.parametrize(
    ("name", "layers", "size"),
    [
        ("alexnet", ["features.0", "features.3", "features.6", "features.10"], 127),
        ("vgg11", ["features.0", "features.6", "features.11"], 72),
        (
            "resnet18",
            ["conv1", "maxpool", "layer1.0", "layer1.1", "layer2.0", "layer2.1.conv1"],
            160,
        ),
        (
            "googlenet",
            ["conv3", "maxpool2", "inception3a", "inception3a.branch3", "inception3b"],
            192,
        ),
        ("squeezenet1_1", ["features.3", "features.6", "features.7.expand1x1", "features.9"], 160),
        ("vgg16", ["features.7", "features.10"], 64),
        ("mobilenet_v2", ["features.2", "features.4.conv.1.0", "features.6"], 128),
    ],
)
def test_fields_of_torchvisions_networks_are_where_their_gradients_arrive(name, layers, size):
    network = Network(opened(torchvisions(name)), (3, size, size))
    for layer_name in layers:
        known = network.layer(layer_name)
        assert not known.field.whole
        middle = (known.places[0] // 2, known.places[1] // 2)
        places = [(0, 0), middle, (known.places[0] - 1, 0)]
        for place, support in zip(places, supports(network, layer_name, places), strict=True):
            box = known.field.box(*place, size, size)
            assert holds(box, support), (layer_name, place, box, support)
            # Maxima leave out a pixel here and there, but not many.
            for edge, real in zip(box, support, strict=True):
                assert abs(edge - real) <= 10, (layer_name, place, box, support)


@pytest.mark.parametrize(
    ("name", "layer_name", "size", "step"),
    [
        ("alexnet", "features.6", 99, 16),
        ("vgg11", "features.11", 46, 8),
        ("resnet18", "layer2.1", 99, 8),
        ("resnet18", "layer1.0.conv1", 19, 4),
    ],
)
def test_fields_have_the_sizes_that_the_literature_gives(name, layer_name, size, step):
    network = Network(torchvisions(name), (3, 128, 128))
    field = network.layer(layer_name).field
    assert field.size == (size, size)
    assert field.rows is not None
    assert field.rows.step == step
    assert str(field) == f"{size}x{size}"


class Gate(nn.Module):
    """Squeeze and excitation: every place is scaled by the mean of all."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Shifts(nn.Module):
    """Writes a convolution into a part of a tensor in place (as temporal shift modules do)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :1] = self.conv(x)
        return y


GLOBAL = {
    "a gate": Gate(),
    "global mean": Does(lambda m, x: x.mean((2, 3), keepdim=True)),
    "adaptive pool": nn.AdaptiveAvgPool2d(2),
    "adaptive pool to one": nn.AdaptiveAvgPool2d(1),
    "flatten and back": Does(lambda m, x: m.fc(x.flatten(1)).view_as(x), fc=nn.Linear(128, 128)),
    "group norm": nn.GroupNorm(1, 2),
    "instance norm": nn.InstanceNorm2d(2),
    "batch norm of the batch": nn.BatchNorm2d(2, track_running_stats=False),
    "layer norm": nn.LayerNorm((2, 8, 8)),
    "divided by its maximum": Does(lambda m, x: x / x.amax((1, 2, 3), keepdim=True)),
    "softmax over places": Does(lambda m, x: x.flatten(2).softmax(-1).view_as(x)),
    "softmax over columns": Does(lambda m, x: x.softmax(-1)),
    "cumulated": Does(lambda m, x: x.cumsum(-1)),
    "attention": Does(lambda m, x: (x.flatten(2) @ x.flatten(2).mT @ x.flatten(2)).view_as(x)),
    "transposed": Does(lambda m, x: x + x.transpose(2, 3)),
    "flipped": Does(lambda m, x: x + x.flip(3)),
    "rolled": Does(lambda m, x: x.roll(1, 2)),
    "upsampled": Does(lambda m, x: F.interpolate(x, scale_factor=2)[:, :, :8, :8]),
    "pixel shuffle": Does(lambda m, x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2)),
    "transposed convolution": nn.ConvTranspose2d(2, 2, 3, padding=1),
    "convolution over a line": Does(
        lambda m, x: m.c(x.flatten(2)).view_as(x), c=nn.Conv1d(2, 2, 3, padding=1)
    ),
    "circular padding": nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
    "circular padding and a shortcut": Does(
        lambda m, x: x + m.c(x), c=nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")
    ),
    "a shifted view": Does(lambda m, x: x[:, :, [1, 2, 3, 4, 5, 6, 7, 0]]),
    "a part written in place": Shifts(),
}  # fmt: skip


@pytest.mark.parametrize("name", GLOBAL)
def test_what_mixes_positions_sees_the_whole_image(name):
    module = Does(lambda m, x: m.after(m.mixes(m.before(x))), mixes=GLOBAL[name],
                  before=nn.Conv2d(1, 2, 1), after=nn.Conv2d(2, 1, 1))  # fmt: skip
    if name == "rows taken for columns":
        module = Does(
            lambda m, x: m.mixes(m.before(x)), mixes=GLOBAL[name], before=nn.Conv2d(1, 2, 1)
        )
    network = Network(seeded(module), (1, 8, 8))
    last = network.layers[-2]
    assert last.field.whole or not last.places, last
    assert last.field.box(0, 0, 8, 8) == (0, 0, 8, 8)


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (nn.GELU(), 3),
        (nn.Sigmoid(), 3),
        (nn.ReLU(inplace=True), 3),
        (nn.Dropout(), 3),
        (nn.BatchNorm2d(2), 3),
        (nn.LocalResponseNorm(3), 3),
        (nn.PReLU(), 3),
        (nn.Softmax(1), 3),
        (nn.ChannelShuffle(2), 3),
        (Does(lambda m, x: x / x.norm(dim=1, keepdim=True).clamp(min=1)), None),
        (Does(lambda m, x: x - x.mean(1, keepdim=True)), 3),
        (Does(lambda m, x: torch.cat([x, x * 2], 1).chunk(2, 1)[1]), 3),
        (Does(lambda m, x: x * torch.rand(8, 8) + 1), 3),
        (Does(lambda m, x: x.clone().mul_(2)), 3),
        (nn.Conv2d(2, 2, 3, padding="same", padding_mode="reflect"), 5),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="replicate"), 5),
        (nn.Conv2d(2, 2, 3, padding="same"), 5),
        (nn.LPPool2d(2, 2, 1), 4),
    ],
    ids=str,
)
def test_what_keeps_positions_apart_keeps_the_field(module, size):
    chain = named(conv=nn.Conv2d(1, 2, 3, padding=1), does=module)
    network = Network(chain, (1, 8, 8))
    field = network.layer("does").field
    assert field.whole if size is None else field.size == (size, size)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(
    "pad", [nn.ReflectionPad2d(3), nn.ReplicationPad2d(2), nn.ReflectionPad2d((3, 0, 1, 2))]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_what_padding_reflects_lies_inside_the_field(pad, kernel, stride):
    module = opened(
        named(
            conv=nn.Conv2d(1, 1, 3, stride=stride, padding=1), pad=pad, last=nn.Conv2d(1, 1, kernel)
        )
    ).double()
    network = Network(module, (1, 12, 12))
    for layer_name in ("pad", "last"):
        known = network.layer(layer_name)
        places = [(r, c) for r in range(known.places[0]) for c in range(known.places[1])]
        for place, support in zip(
            places, supports(network, layer_name, places, draws=1), strict=True
        ):
            assert holds(known.field.box(*place, 12, 12), support)
        inner = known.field.box(50, 50, 1000, 1000)
        assert inner[2] - inner[0] == known.field.size[0]


@pytest.mark.parametrize("size", [9, 12])
def test_a_crop_of_the_image_is_enough_for_the_unit(size):
    """The reason for fields: what happens outside the box makes no difference to the unit."""
    module = seeded(
        named(a=nn.Conv2d(1, 4, 3, padding=1), r=nn.ReLU(), p=nn.MaxPool2d(2), block=Inception(4))
    )
    network = Network(module.double(), (1, size, size))
    known = network.layer("block")
    chance = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, size, size, generator=chance, dtype=torch.float64)
    before = network.read(x, "block").layers["block"]
    for row in range(known.places[0]):
        top, left, bottom, right = known.field.box(row, 1, size, size)
        y = torch.rand(x.shape, generator=chance, dtype=torch.float64)
        y[..., top:bottom, left:right] = x[..., top:bottom, left:right]
        assert torch.equal(
            network.read(y, "block").layers["block"][..., row, 1], before[..., row, 1]
        )


def test_rows_of_equal_length_are_not_taken_for_columns():
    """One column of each channel, (4, 4), is no map of 4 x 4 places."""
    module = Does(lambda m, x: m.last(m.conv(x)), conv=nn.Conv2d(1, 4, 1), last=Does(_a_column))
    assert Network(module, (1, 4, 4)).layer("last").field.whole


def _a_column(_: nn.Module, x: Tensor) -> Tensor:
    return x[..., 0].unsqueeze(1) + 0


def test_networks_of_tokens_and_neurons_see_the_whole_image():
    network = Network(seeded(Tokens()), (1, 6, 6))
    fields = {x.name: x.field for x in network.layers}
    assert fields.pop("patch").size == (2, 2)
    assert all(field.whole for field in fields.values())


def test_branches_of_different_steps_see_the_whole_image():
    module = Does(
        lambda m, x: m.slow(x) + F.avg_pool2d(x, 2)[..., :3, :3],
        slow=nn.Conv2d(1, 1, 2, stride=3),
    )
    network = Network(Does(lambda m, x: m.both(x), both=module), (1, 9, 9))
    assert network.layer("both").field.whole


@given(
    st.integers(1, 40),
    st.integers(1, 8),
    st.integers(-30, 9),
    st.integers(0, 20),
    st.integers(1, 30),
)
def test_a_box_is_the_pixels_inside_the_image(size, step, first, position, limit):
    field = ReceptiveField(Axis(size, step, first), Axis(size, step, first))
    top, left, bottom, right = field.box(position, position, limit, limit)
    inside = [
        p for p in range(first + position * step, first + position * step + size) if 0 <= p < limit
    ]
    assert (top, bottom) == (left, right)
    assert list(range(top, bottom)) == inside


def test_the_whole_and_one_pixel_say_so():
    assert WHOLE.whole
    assert str(WHOLE) == "whole"
    assert WHOLE.size is None
    assert WHOLE.box(3, 4, 10, 20) == (0, 0, 10, 20)
    assert PIXEL.box(3, 4, 10, 20) == (3, 4, 4, 5)
    assert math.prod(PIXEL.size or ()) == 1


def test_working_out_the_fields_leaves_no_mark_on_weights_and_buffers():
    module = named(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), relu=nn.ReLU())
    Network(module, (1, 6, 6)).layers  # noqa: B018
    for tensor in [*module.parameters(), *module.buffers()]:
        assert not [name for name in vars(tensor) if name.startswith("optogram")]
