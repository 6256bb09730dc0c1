"""A network with named layers: what `print(network)` says, and what it refuses."""

import json
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optogram.core import Direction, Network, Unit, backpropagate, rules
from optogram.core import objective as ask
from optogram.pictures.errors import RequestError
from optogram.zoo.tiny import BRIGHT, tiny, variants
from tests.core.nets import Does, Inception, Tokens, images, named, seeded


def table(network: Network) -> dict[str, tuple[int, ...]]:
    return {layer.name: layer.shape for layer in network.layers}


def test_layers_are_listed_in_the_order_in_which_they_answer():
    module = Does(
        lambda m, x: m.last(m.first(x).flatten(1)),
        last=nn.Linear(4 * 4 * 2, 5),
        first=named(conv=nn.Conv2d(1, 2, 3), relu=nn.ReLU()),
    )
    network = Network(module, (1, 6, 6))
    assert table(network) == {
        "first.conv": (2, 4, 4),
        "first.relu": (2, 4, 4),
        "first": (2, 4, 4),
        "last": (5,),
        "output": (5,),
    }
    assert [layer.kind for layer in network.layers] == [
        "Conv2d",
        "ReLU",
        "Sequential",
        "Linear",
        "Does",
    ]
    assert [layer.units for layer in network.layers] == [2, 2, 2, 5, 5]
    assert [layer.places for layer in network.layers] == [(4, 4), (4, 4), (4, 4), (), ()]


def test_a_repeated_call_has_its_number():
    assert list(table(variants()["one module"])) == [
        "conv1", "relu", "conv2", "relu#2", "hidden", "relu#3", "head", "output",
    ]  # fmt: skip


def test_a_shared_module_with_two_names_goes_by_its_first():
    shared = nn.Linear(4, 4)
    module = Does(lambda m, x: m.b(m.a(x.flatten(1))), a=shared, b=shared)
    assert list(table(Network(module, (1, 2, 2)))) == ["a", "a#2", "output"]


def test_a_module_that_is_never_called_is_no_layer():
    module = Does(lambda m, x: m.fc(x.flatten(1)), fc=nn.Linear(4, 2), spare=nn.Linear(9, 9))
    network = Network(module, (1, 2, 2))
    assert list(table(network)) == ["fc", "output"]
    with pytest.raises(RequestError, match="no layer called 'spare'"):
        network.layer("spare")


def test_modules_that_return_several_tensors_are_known_by_the_first():
    module = Does(
        lambda m, x: {"logits": m.pair(x)[0], "extra": 3}["logits"],
        pair=Does(lambda m, x: (m.fc(x.flatten(1)), None), fc=nn.Linear(4, 2)),
        spare=nn.Identity(),
    )
    assert table(Network(module, (1, 2, 2))) == {"pair.fc": (2,), "pair": (2,), "output": (2,)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: {"aux": None, "out": y},
        lambda y: (y, y + 1),
        lambda y: [None, y],
        lambda y: type("Answer", (), {"logits": y})(),
    ],
    ids=["dict", "tuple", "list", ".logits"],
)
def test_a_network_may_answer_with_more_than_a_tensor(wrap):
    module = Does(lambda m, x: wrap(m.fc(x.flatten(1))), fc=nn.Linear(4, 2))
    network = Network(module, (1, 2, 2))
    x = images(3, (1, 2, 2))
    torch.testing.assert_close(network(x), module.fc(x.flatten(1)).detach())


def test_a_network_that_answers_with_no_tensor_is_refused():
    network = Network(Does(lambda m, x: "cat"), (1, 2, 2))
    with pytest.raises(RequestError, match="'output' returns str, in which there is no tensor"):
        network.layers  # noqa: B018 - it is worked out when it is asked for


def test_tokens_have_their_units_last():
    network = Network(seeded(Tokens()), (1, 6, 6))
    by_name = {layer.name: layer for layer in network.layers}
    assert (by_name["patch"].shape, by_name["patch"].axis) == ((8, 3, 3), 1)
    for name, units in (("norm", 8), ("attention", 8), ("mlp", 16), ("act", 16), ("back", 8)):
        assert by_name[name].shape == (10, units)
        assert (by_name[name].axis, by_name[name].units, by_name[name].places) == (2, units, (10,))
    x = images()
    heard = network.read(x, "mlp")
    torch.testing.assert_close(heard.map("mlp:5"), heard.layers["mlp"][:, :, 5])
    torch.testing.assert_close(heard["mlp:5@3"], heard.layers["mlp"][:, 3, 5])
    with pytest.raises(RequestError, match="a unit of 'mlp' has 10"):
        network.resolve("mlp:5@3,4")


def test_torchs_own_transformer_is_read_like_any_other():
    """In eval mode without gradients it would take a fast path on which no layer is called."""
    module = named(
        patch=nn.Conv2d(1, 8, 2, stride=2),
        tokens=Does(lambda m, x: x.flatten(2).transpose(1, 2)),
        encoder=nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
        ),
        head=nn.Linear(8, 3),
    )
    network = Network(module, (1, 6, 6))
    name = "encoder.layers.1.linear1"
    x = images()
    heard = network.read(x, name, "output")
    assert heard.layers[name].shape == (2, 9, 16)
    with torch.no_grad():
        torch.testing.assert_close(heard.layers["output"], module.eval()(x))
    gradient = backpropagate(network, x, ask.activation(f"{name}:3"), rules.guided)
    assert gradient.abs().max() > 0


def test_maps_with_channels_last_are_known_on_square_images():
    module = named(
        conv=nn.Conv2d(1, 5, 3),
        last=Does(lambda m, x: x.permute(0, 2, 3, 1)),
        norm=nn.LayerNorm(5),
        fc=nn.Linear(5, 7),
    )
    network = Network(module, (1, 6, 6))
    by_name = {layer.name: layer for layer in network.layers}
    for name, units in (("last", 5), ("norm", 5), ("fc", 7)):
        assert (by_name[name].units, by_name[name].places) == (units, (4, 4)), name
    x = images()
    conv, last = network.read(x, "conv"), network.read(x, "last")
    torch.testing.assert_close(conv.map("conv:2"), last.map("last:2"))


class LayerNorm2d(nn.LayerNorm):
    """As torchvision's and timm's: derived from LayerNorm, but over the channels of maps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [4, 5])
def test_a_layer_norm_over_the_channels_of_maps_keeps_them_first(size):
    network = Network(
        named(norm=LayerNorm2d(5), other=nn.LayerNorm((5, size, size))), (5, size, size)
    )
    for name in ("norm", "other"):
        layer = network.layer(name)
        assert (layer.axis, layer.units, layer.places) == (1, 5, (size, size))


def test_where_the_units_are_can_be_said():
    module = named(last=Does(lambda m, x: x.expand(-1, 5, -1, -1).permute(0, 2, 3, 1)))
    guessed = Network(module, (1, 4, 6))
    said = Network(module, (1, 4, 6), channel_axis={"last": 3})
    assert said.layer("last").units == 5
    assert said.layer("last").places == (4, 6)
    assert guessed.layer("last").units == 4
    assert said.read(images(1, (1, 4, 6)), "last").map("last:4").shape == (1, 4, 6)


def test_a_square_stack_of_channels_is_not_taken_for_channels_last():
    network = Network(named(conv=nn.Conv2d(1, 4, (3, 1))), (1, 6, 6))
    assert network.layer("conv").shape == (4, 4, 6)
    assert network.layer("conv").units == 4
    assert network.layer("conv").axis == 1


def test_relus_know_what_they_were_given():
    layers = {x.name: x for x in variants()["modules"].layers}
    assert [x.rectified for x in layers.values()] == [
        x.name.startswith("relu") for x in layers.values()
    ]
    assert layers["relu1"].same_as == "conv1"
    assert layers["relu2"].same_as is None  # it was given the sum with the shortcut
    assert layers["relu3"].same_as == "hidden"
    assert layers["output"].same_as == "head"
    switchable = {name for name, x in layers.items() if x.switchable}
    assert switchable == {"conv1", "relu1", "relu2", "hidden", "relu3"}


@pytest.mark.parametrize("name", sorted(variants()))
def test_however_a_relu_is_written_its_layer_is_known_to_be_switched_by_it(name):
    layers = {x.name: x for x in variants()[name].layers}
    assert layers["conv1"].switchable
    assert layers["hidden"].switchable
    assert not layers["head"].switchable
    assert not layers["conv1"].rectified
    own = [x for x in layers.values() if x.kind == "ReLU"]
    assert [x.same_as for x in own] in ([], ["conv1", None, "hidden"])
    if name != "in-place sum":  # there conv2's own tensor becomes the sum that the ReLU is given
        assert not layers["conv2"].switchable


def test_an_in_place_sum_is_not_taken_for_what_it_was_added_to():
    """conv, += and ReLU in place are one tensor: the ReLU was given the sum, not conv's answer."""
    layers = {x.name: x for x in variants()["in-place sum"].layers}
    assert layers["relu2"].same_as is None
    assert not layers["conv2"].switchable


def test_a_block_that_changes_what_its_relu_made_has_no_pre_activation():
    def does(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(m.conv(x))
        y += 1
        return y

    network = Network(
        Does(lambda m, x: m.block(x), block=Does(does, conv=nn.Conv2d(1, 2, 3))), (1, 6, 6)
    )
    assert not network.layer("block").rectified
    assert network.layer("block.conv").switchable
    heard = network.read(images(), "block", watch=True)
    torch.testing.assert_close(heard.before.layers["block"], heard.layers["block"])


def test_blocks_with_functional_relus_and_joins_of_them_are_rectified():
    network = Network(named(block=seeded(Inception()), fc=nn.Conv2d(7, 2, 1)), (3, 6, 6))
    assert network.layer("block").rectified
    assert network.layer("block.one").switchable
    assert not network.layer("fc").rectified


def test_printing_a_network_shows_its_layers():
    assert str(tiny()) == (
        "<Network tiny 1x4x4 on cpu>\n"
        "layer    kind        output  units  field\n"
        "conv     Conv2d      3x1x1   3      4x4\n"
        "relu     ReLU        3x1x1   3      4x4\n"
        "flatten  Flatten     3       3      whole\n"
        "fc       Linear      3       3      whole\n"
        "output   Sequential  3       3      whole"
    )


def test_an_unknown_layer_is_answered_with_the_nearest_and_their_shapes():
    with pytest.raises(
        RequestError, match=r"no layer called 'cnv'.*nearest: conv 3x1x1"
    ) as refusal:
        tiny().layer("cnv")
    assert "\n" not in str(refusal.value)
    with pytest.raises(RequestError, match="it has: conv 3x1x1, relu 3x1x1"):
        tiny().layer("zzzzzz")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("conv:3", "no unit conv:3 in tiny: 'conv' has units 0 to 2"),
        ("conv:three", "'conv' of tiny is no output: its units have numbers, 0 to 2"),
        ("output:thre", "no label 'thre' in tiny; nearest: three"),
        ("output:xyz", "no label 'xyz' in tiny; nearest: three, horizon, nothing"),
        ("conv:0@1,0", "no place 1,0 in conv:0@1,0: a unit of 'conv' has 1 x 1"),
        ("conv:0@0", "a unit of 'conv' has 1 x 1"),
        ("fc:0@0", "a unit of 'fc' has a single number"),
        ("cnov:1", "no layer called 'cnov'"),
    ],
)
def test_a_unit_that_is_not_there_is_refused_in_one_sentence(address, sentence):
    with pytest.raises(RequestError, match=sentence) as refusal:
        tiny().resolve(address)
    assert "\n" not in str(refusal.value)


def test_labels_become_numbers():
    network = tiny()
    assert network.resolve("output:horizon") == Unit("output", 1)
    assert network.resolve("output:HORIZON") == Unit("output", 1)
    assert network.resolve(Unit("output", "nothing", "strongest")).index == 2
    assert [network.label(i) for i in (0, 2, 7)] == ["three", "nothing", "7"]


def test_a_label_of_two_units_is_refused():
    network = Network(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2), labels=["crane", "a", "crane"]
    )
    with pytest.raises(RequestError, match=r"the label of units \[0, 2\]"):
        network.resolve("output:crane")
    with pytest.raises(RequestError, match="has no labels, 0 to 2"):
        Network(network.module, (1, 2, 2)).resolve("output:crane")


def test_a_direction_must_fit_its_layer():
    network = tiny()
    direction = Direction("conv", torch.ones(3))
    assert network.resolve(direction) is direction
    with pytest.raises(RequestError, match="'direction' has 4 numbers; 'conv' has 3 units"):
        network.resolve(Direction("conv", torch.ones(4)))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("conv", ["conv:0", "conv:1", "conv:2"]),
        ("conv:*", ["conv:0", "conv:1", "conv:2"]),
        ("conv:1-2", ["conv:1", "conv:2"]),
        ("conv:1", ["conv:1"]),
        ("*c*:0", ["conv:0", "fc:0"]),
        ("?c:1-9", ["fc:1", "fc:2"]),
        ("output:horizon", ["output:1"]),
    ],
)
def test_a_pattern_names_units_in_order(pattern, found):
    if pattern == "?c:1-9":
        with pytest.raises(RequestError, match="has units 0 to 2"):
            tiny().units(pattern)
    else:
        assert list(map(str, tiny().units(pattern))) == found


@pytest.mark.parametrize("pattern", ["conv:2-5", "conv:2-1", "con", "*:three", "zz*", ""])
def test_a_pattern_that_names_nothing_is_refused(pattern):
    with pytest.raises(RequestError):
        tiny().units(pattern)


def test_normalisation_is_done_inside_and_nowhere_else():
    mean, std = (0.2, 0.4, 0.6), (0.5, 0.25, 2.0)
    network = Network(seeded(nn.Conv2d(3, 2, 3)), (3, 6, 6), mean=mean, std=std)
    x = images(2, (3, 6, 6))
    normalised = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(network(x), network.module(normalised).detach())
    heard = network.read(x, "output")
    assert torch.equal(heard.image, x)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Network(nn.Identity(), (3, 4)), r"shape=\(3, 4\) should be"),
        (lambda: Network(nn.Identity(), (3, 4, 0)), "should be"),
        (
            lambda: Network(nn.Identity(), (3, 4, 4), mean=[0.5]),
            r"mean=\(0.5,\) should be 3 number",
        ),
        (lambda: Network(nn.Identity(), (1, 4, 4), std=[0.0]), "std="),
        (
            lambda: Network(nn.Linear(5, 2), (1, 4, 4)).layers,
            r"does not take images of shape \(1, 4, 4\)",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused(make, sentence):
    with pytest.raises(RequestError, match=sentence):
        make()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(bad):
    module = named(conv=nn.Conv2d(1, 2, 3))
    module.conv.weight.data[0, 0, 1, 1] = bad
    with pytest.raises(RequestError, match=r"'conv.weight' of Sequential hold NaN or infinity"):
        Network(module, (1, 6, 6))


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (1, 4, 4), (2, 3, 4, 4)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises((RequestError, TypeError), match=r"1 channel|parameter 'images'"):
        tiny().read(torch.zeros(shape))


def test_a_layer_called_output_is_refused_because_that_name_is_taken():
    module = named(output=nn.Conv2d(1, 2, 3), fc=nn.Flatten())
    with pytest.raises(RequestError, match="has a module called 'output'"):
        Network(module, (1, 6, 6)).layers  # noqa: B018


def test_the_fingerprint_is_of_the_weights_and_nothing_else():
    one, same = seeded(nn.Conv2d(1, 2, 3)), seeded(nn.Conv2d(1, 2, 3))
    network = Network(one, (1, 6, 6), name="a")
    before = network.fingerprint
    assert before.startswith("sha256:")
    assert before == Network(same, (1, 9, 9), name="b", labels=["x", "y"]).fingerprint
    network.read(images())
    assert network.fingerprint == before
    with torch.no_grad():
        one.weight[0, 0, 0, 0] += 1e-6
    assert network.fingerprint != before
    with torch.no_grad():
        one.weight[0, 0, 0, 0] = same.weight[0, 0, 0, 0]
    assert network.fingerprint == before


def test_buffers_count_for_the_fingerprint():
    one, other = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    other.running_mean.add_(1)
    one, other = (Network(m, (2, 4, 4)).fingerprint for m in (one, other))
    assert one != other


def test_a_recipe_says_name_and_weights():
    recipe = tiny().recipe()
    assert recipe["name"] == "tiny"
    assert recipe["weights"] == tiny().fingerprint
    json.dumps(recipe)


def test_the_best_in_the_data_is_looked_up_for_the_layer_and_for_its_relu():
    maxima = {"conv.maximum": torch.tensor([2.5, 1.0, -1.0])}
    module = tiny().module
    network = Network(module, (1, 4, 4), records=maxima)
    assert network.best_in_data(Unit("conv", 0)) == 2.5
    assert network.best_in_data(Unit("relu", 2)) == -1.0
    assert network.best_in_data(Unit("fc", 0)) is None


class TestOpaque:
    """Networks into which nobody can look."""

    @pytest.fixture
    def plain(self) -> nn.Module:
        return named(
            conv=nn.Conv2d(1, 2, 3), relu=nn.ReLU(), flat=nn.Flatten(), fc=nn.Linear(32, 3)
        ).eval()

    def test_a_compiled_module_is_read_but_no_rule_is_applied_to_it(self, plain):
        compiled = torch.compile(plain, backend="eager")
        network = Network(compiled, (1, 6, 6), name="mine")
        x = images()
        assert [layer.name for layer in network.layers] == ["conv", "relu", "flat", "fc", "output"]
        torch.testing.assert_close(network(x), plain(x).detach())
        torch.testing.assert_close(network.read(x, "conv").layers["conv"], plain.conv(x).detach())
        with pytest.raises(RequestError, match="mine is a compiled module, inside which no rule"):
            backpropagate(network, x, ask.activation("output:0"), rules.guided)
        gradient = backpropagate(network, x, ask.activation("output:0"))
        expected = backpropagate(Network(plain, (1, 6, 6)), x, ask.activation("output:0"))
        torch.testing.assert_close(gradient, expected)

    def test_torchscript_is_read_at_its_output_but_no_rule_is_applied_to_it(self, plain):
        x = images()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            scripted = torch.jit.trace(plain, x)
        network = Network(scripted, (1, 6, 6), name="mine")
        torch.testing.assert_close(network(x), plain(x).detach())
        with pytest.raises(
            RequestError, match="mine is a TorchScript module, inside which no rule"
        ):
            backpropagate(network, x, ask.activation("output:0"), rules.deconvnet)
        expected = backpropagate(Network(plain, (1, 6, 6)), x, ask.activation("output:0"))
        torch.testing.assert_close(backpropagate(network, x, ask.activation("output:0")), expected)

    def test_a_network_with_one_scripted_part_is_refused_a_rule_too(self, plain):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            part = torch.jit.trace(plain.conv, images())
        network = Network(named(conv=part, relu=nn.ReLU()), (1, 6, 6))
        with pytest.raises(RequestError, match="TorchScript"):
            backpropagate(network, images(), ask.activation("output:0"), rules.guided)


def test_the_tiny_network_answers_what_its_documentation_says():
    network = tiny()
    grey = torch.full((1, 1, 4, 4), 0.5)
    assert network(grey).tolist() == [[1.5, 0, 1]]
    bright = torch.zeros(1, 1, 4, 4)
    for row, column in BRIGHT:
        bright[0, 0, row, column] = 1
    top = torch.zeros(1, 1, 4, 4)
    top[0, 0, 0] = 1
    conv = network.read(torch.cat([bright, top, 1 - top.flip(2)]), "conv").layers["conv"][
        :, :, 0, 0
    ]
    assert conv.tolist() == [[3, 0, -1], [1, 4, -1], [2, 4, -1]]
    assert network(top).tolist() == [[1, 8, 1]]


def test_a_network_that_takes_another_way_has_its_pre_activations_all_the_same():
    """Only the ReLUs that made a layer keep their input, by their number on the first way."""

    def way(self, x):
        if float(x.mean()) > 0.6:
            x = torch.relu(x)
        return self.last(self.act(self.conv(x)))

    parts = {"conv": nn.Conv2d(1, 2, 3), "act": nn.ReLU(inplace=True), "last": nn.Conv2d(2, 2, 1)}
    network = Network(seeded(Does(way, **parts), seed=3), (1, 6, 6))
    network.layers  # noqa: B018 - the first way is gone on a grey image
    found = []
    for brightness in (0.1, 0.9):
        x = images(1, (1, 6, 6)) * 0.2 + brightness - 0.1
        before = network.read(x, "act", watch=True).before.layers["act"]
        torch.testing.assert_close(before, network.read(x, "conv").layers["conv"])
        found.append(float(before.min()))
    assert min(found) < 0
