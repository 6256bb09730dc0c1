"""Evolution: formulas by hand, champions that never fall, archives that outlive their run."""

import json
import os
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import torch

import optogram as og
from optogram.ascent import elites, formula
from optogram.ascent.elites import Archive, Direct, Painted
from optogram.ascent.formula import Formula
from optogram.core.chance import Streams
from optogram.pictures.errors import RequestError


@pytest.fixture(scope="module")
def mlp():
    return og.load("mnist-mlp")


@pytest.fixture(scope="module")
def painted(mlp):
    return og.evolve(mlp, "output", encoding="cppn", generations=60, population=100)


@pytest.fixture(scope="module")
def direct(mlp):
    return og.evolve(mlp, "output", encoding="direct", generations=80, population=100)


def test_a_formula_paints_what_one_works_out_by_hand():
    """Row through a line to a hidden sine, and with a constant to a grey."""
    made = Formula(1, (3, 0), ((0, 5, 2.0), (5, 4, 3.0), (3, 4, -1.5)))
    image = made.paint(5, 3)
    for row, height in enumerate((-1, -0.5, 0, 0.5, 1)):
        answer = min(max(3 * np.sin(2 * height) - 1.5, -3), 3) / 3
        assert (image[0, row] == round((answer + 1) / 2 * 255)).all()


def test_a_hue_is_that_of_the_standard_library():
    import colorsys

    chance = np.random.default_rng(0)  # a test's own numbers
    hue, lightness, saturation = chance.random((3, 50))
    ours = formula._rgb(hue, lightness, saturation)
    theirs = [colorsys.hls_to_rgb(*one) for one in zip(hue, lightness, saturation, strict=True)]
    np.testing.assert_allclose(ours.T, theirs, atol=1e-12)


def test_children_of_children_stay_without_circles():
    streams = Streams(1, tuple(map(str, range(20))))
    some = [formula.first(3, iter(row)) for row in streams.uniform("first", 40).tolist()]
    for step in range(1, 60):
        rows = streams.uniform("m", formula.needed(some), step).tolist()
        some = [formula.mutated(f, iter(r), 0.1, 15.0) for f, r in zip(some, rows, strict=True)]
    for one in some:
        for neuron in range(formula.INPUTS, formula.INPUTS + len(one.kinds)):
            ahead = {b for a, b, _ in one.edges if a == neuron}
            assert all(neuron not in formula._after(n, list(one.edges)) for n in ahead)
        assert len({edge[:2] for edge in one.edges}) == len(one.edges)
        assert all(abs(weight) <= formula.RANGE for _, _, weight in one.edges)
        assert min(one.kinds) >= 0
        assert Formula.read(json.loads(json.dumps(one.written()))) == one
        assert one.paint(6, 6).shape == (3, 6, 6)
    assert max(len(one.kinds) for one in some) > 10


def test_polynomial_mutation_has_its_distribution():
    """P(|change| <= d) = 1 - (1 - d)^(eta + 1), from the density of Deb & Agrawal (1995)."""
    uniform = (np.arange(20000) + 0.5) / 20000
    changes = formula.polynomial(uniform, 15.0)
    for much in (0.01, 0.05, 0.2):
        share = (np.abs(changes) <= much).mean()
        assert share == pytest.approx(1 - (1 - much) ** 16, abs=1e-3)


def test_crossover_keeps_the_middle_of_the_parents():
    parents = [np.full(400, 60, np.uint8)] * 50
    others = [np.full(400, 160, np.uint8)] * 50
    encoding = Direct((1, 20, 20), rate=1e-9)
    streams = Streams(0, tuple(map(str, range(50))))
    born, said = encoding.children(parents, others, streams, 1)
    children = np.stack(born).astype(float)
    crossed = (children != 60).any(1)
    assert said == crossed.tolist()
    assert 0.25 < crossed.mean() < 0.75
    # The child near the first parent; its mirror image is near the other.
    assert abs(np.median(children[crossed]) - 60) < 12
    assert (children[crossed] < 60).any()
    assert (children[crossed] > 60).any()


def test_champions_are_monotone_and_certain(direct, painted):
    for sheet in (direct, painted):
        for picture in sheet:
            assert bool((picture.history.diff() >= 0).all())
            assert picture.history[-1] == pytest.approx(picture.score, abs=1e-3)
    assert int((direct.scores >= 0.99).sum()) >= 9
    assert int((painted.scores >= 0.99).sum()) >= 7


def test_formulas_are_regular_and_pixels_are_not(painted, direct):
    """Deflate as the judge of regularity, against noise of the same kind."""

    def packed(image):
        return len(zlib.compress((image * 255).round().byte().numpy().tobytes(), 9)) / image.numel()

    noise = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert np.median([packed(picture.image) for picture in painted]) < 0.75 * packed(noise)
    assert np.median([packed(picture.image) for picture in direct]) > 0.9 * packed(noise)
    steps = [float(p.image.diff(dim=-1).abs().mean()) for p in painted]
    assert np.median(steps) < 0.5 * float(noise.diff(dim=-1).abs().mean())


def test_the_same_seed_breeds_the_same_archive(mlp, tmp_path):
    paths = [tmp_path / name for name in ("a.json", "b.json", "other.json")]
    for path, seed in zip(paths, (3, 3, 4), strict=True):
        og.evolve(mlp, "output:1", generations=4, population=20, archive=str(path), seed=seed)
    one, same, other = (path.read_bytes() for path in paths)
    assert one == same
    assert one != other


@pytest.mark.parametrize("encoding", ["cppn", "direct"])
def test_a_run_in_two_parts_is_the_run_in_one(mlp, tmp_path, encoding):
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    settings = {"encoding": encoding, "population": 20}
    made = og.evolve(mlp, "output:1", generations=25, archive=str(whole), **settings)
    og.evolve(mlp, "output:1", generations=12, archive=str(parts), **settings)
    again = og.evolve(mlp, "output:1", generations=25, archive=str(parts), **settings)
    assert whole.read_bytes() == parts.read_bytes()
    assert torch.equal(made.image, again.image)
    assert torch.equal(made.image, og.evolve(mlp, "output:1", generations=25, **settings).image)


def test_a_killed_run_resumes_to_the_same_archive(mlp, tmp_path):
    killed, whole = tmp_path / "killed.json", tmp_path / "whole.json"
    code = (
        "import optogram as og; og.evolve(og.load('mnist-mlp'), 'output:1', generations=100000, "
        f"population=10, archive={str(killed)!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ)) as run:
        for _ in range(1200):
            if killed.exists() or run.poll() is not None:
                break
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        run.wait()
    seen = json.loads(killed.read_text())["generation"]
    for path in (killed, whole):
        og.evolve(mlp, "output:1", generations=seen + 15, population=10, archive=str(path))
    assert killed.read_bytes() == whole.read_bytes()


def test_a_child_takes_the_niches_it_is_better_in_and_no_others():
    archive = Archive({"population": 2, "shape": [1, 1, 1]})
    genomes = [np.array([1], np.uint8), np.array([2], np.uint8)]
    elites._admit(archive, [(), ()], genomes, torch.tensor([[0.2, 0.9, 0.5], [0.3, 0.1, 0.5]]))
    assert archive.champions == [1, 0, 0]
    archive.generation = 1
    elites._admit(
        archive, [(1,), (0, 1)], genomes, torch.tensor([[0.3, 0.95, 0.1], [0.1, 0.2, 0.4]])
    )
    assert archive.champions == [1, 2, 0]  # an equal one takes nothing
    assert archive.fitness == pytest.approx([0.3, 0.95, 0.5])
    assert [being.number for being in archive.tree(2)] == [1, 2]
    archive.generation = 2
    elites._admit(archive, [(2, 0), (2,)], genomes, torch.tensor([[0.1, 0.1, 0.8], [0, 0, 0]]))
    assert archive.champions == [1, 2, 4]
    assert [being.number for being in archive.tree(4)] == [0, 1, 2, 4]
    archive.swept()
    assert set(archive.beings) == {0, 1, 2, 4}


@pytest.mark.parametrize("encoding", ["direct", "cppn"])
def test_a_family_is_a_champion_and_all_whom_it_comes_from(mlp, encoding):
    settings = {"generations": 30, "population": 30, "encoding": encoding}
    sheet = og.evolve(mlp, "output:1", family=10**6, **settings)
    facts = [dict(picture.measures) for picture in sheet]
    numbers = [each["number"] for each in facts]
    assert numbers == sorted(set(numbers))
    named = [
        each[kind] for each in facts for kind in ("first parent", "second parent") if kind in each
    ]
    # Everybody but the champion is somebody's parent, and every parent is there.
    assert set(named) == set(numbers[:-1])
    assert any("second parent" in each for each in facts) == (encoding == "direct")
    assert all(("first parent" in each) == (each["born in generation"] > 0) for each in facts)
    assert sheet[-1].unit == "output:1"
    assert len(og.evolve(mlp, "output:1", family=4, **settings)) == 5


def test_hidden_units_are_niches_too(mlp):
    few = og.evolve(mlp, "fc7:3", generations=2, population=20)
    more = og.evolve(mlp, "fc7:3", generations=20, population=20)
    assert more.score > few.score
    assert more.best_in_data == mlp.best_in_data(og.unit("fc7:3"))


def test_colours_are_bred_at_any_size():
    encoding = Painted((3, 9, 7), 0.1)
    images = elites.as_images(encoding, encoding.first(5, Streams(0, tuple("abcde"))))
    assert images.shape == (5, 3, 9, 7)
    assert images.std() > 0.05


def test_it_is_made_again_without_its_archive(mlp, tmp_path):
    archive = tmp_path / "archive.json"
    made = og.evolve(mlp, "output:1", generations=3, population=10, archive=str(archive))
    path = made.save(tmp_path / "one.png")
    archive.unlink()
    assert og.replay(path).identical
    assert not archive.exists()


def test_what_cannot_be_is_refused_in_a_sentence(mlp, tmp_path):
    path = tmp_path / "a.json"
    og.evolve(mlp, "output:1", generations=2, population=5, archive=str(path))
    for options, words in (
        ({"seed": 9, "archive": str(path)}, "another seed: 0, not 9"),
        ({"generations": 1, "archive": str(path)}, "2 generations already"),
        ({"archive": str(tmp_path / "a.txt")}, "should be a .json file"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"unit": ["output:1", "fc7:1"]}, "one layer's"),
        ({"unit": []}, "no unit"),
    ):
        with pytest.raises(RequestError, match=words):
            og.evolve(mlp, **{"unit": "output:1", "generations": 2, "population": 5, **options})
    path.write_text("{}")
    with pytest.raises(RequestError, match="no archive"):
        og.evolve(mlp, "output:1", generations=2, population=5, archive=str(path))
