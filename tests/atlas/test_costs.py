"""What a plan says a build would do is what the build then does."""

import json

import pytest

import optogram as og
from optogram.atlas.store import markers
from tests.survey.small import images, network

ASKED = {
    "layers": ["conv1", "conv2", "fc1", "output"],
    "pictures": [],
    "recipes": [
        {"name": "positive", "arguments": {"steps": 4}},
        {"name": "facets", "arguments": {"steps": 4, "facets": 2}},
    ],
}
MANY = 600
"""Images enough for several shards of a survey, and of whole images."""


def held(folder, recipe):
    paths = list(folder.glob(f"data/*/{recipe}/*"))
    return sum(path.stat().st_size for path in paths)


def ids(folder):
    return {r["name"]: r["id"] for r in map(read, folder.glob("recipes/*.json"))}


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned") / "a"
    plan = og.atlas.plan(network(), images(MANY), folder, **ASKED)
    assert not folder.exists(), "a plan writes nothing"
    og.atlas.build(network(), images(MANY), folder, **ASKED)
    return plan, folder


def test_shards_are_those_that_a_build_publishes(planned):
    plan, folder = planned
    made = {}
    for marker in markers(folder):
        made[marker.recipe] = made.get(marker.recipe, 0) + 1
    names = {id: name for name, id in ids(folder).items()}
    said = {cost.name: cost.shards for cost in plan.costs}
    assert {names[id]: count for id, count in made.items()} == {
        name: count for name, count in said.items() if name != "survey"
    }
    assert plan.shards == sum(made.values()) + said["survey"]
    assert said["survey"] == 1  # 600 images of this size are one piece of work
    units = {cost.name: cost.units for cost in plan.costs}
    assert (units["survey"], units["images"], units["statistics"]) == (MANY, MANY, 18)


def test_bytes_are_those_that_a_build_writes_to_a_quarter(planned):
    plan, folder = planned
    recipes = ids(folder)
    for cost in plan.costs:
        if cost.kind == "survey":
            wrote = sum(p.stat().st_size for p in (folder / "scan").rglob("*") if p.is_file())
        else:
            wrote = held(folder, recipes[cost.name])
        assert cost.bytes == pytest.approx(wrote, rel=0.25), cost.name
    wrote = sum(held(folder, id) for name, id in recipes.items() if name != "statistics")
    assert plan.picture_bytes == pytest.approx(wrote, rel=0.25)


def test_hours_are_told_of_everything(planned):
    plan, _ = planned
    assert all(cost.hours > 0 for cost in plan.costs)
    assert plan.hours == pytest.approx(sum(cost.hours for cost in plan.costs))
    assert (plan.device, plan.seconds > 0) == ("cpu", True)


def test_of_what_is_there_only_the_rest_is_planned(planned):
    _, folder = planned
    before = sorted(path for path in folder.rglob("*"))
    assert og.atlas.plan(network(), images(MANY), folder, **ASKED).costs == ()
    more = {**ASKED, "recipes": [{"name": "other", "arguments": {"steps": 3}}], "units": "fc1:0-2"}
    (cost,) = og.atlas.plan(network(), images(MANY), folder, **more).costs
    assert (cost.name, cost.shards, cost.units) == ("other", 1, 3)
    assert sorted(path for path in folder.rglob("*")) == before


def test_pictures_that_take_long_are_not_waited_for(tmp_path):
    slow = {
        "layers": "fc1",
        "pictures": [],
        "recipes": [{"name": "s", "arguments": {"steps": 9999}}],
    }
    plan = og.atlas.plan(network(), images(30), tmp_path / "a", seconds=0.05, **slow)
    cost = next(cost for cost in plan.costs if cost.kind == "pictures")
    assert plan.seconds < cost.hours * 3600  # extrapolated from some of its steps
    assert cost.bytes > 0
