"""What is asked of the network itself: predictions, maps, pictures; and visitors do not mix."""

import json
import threading
import time

import pytest
import torch

import optogram as og
from optogram.web.safety import Limits
from tests.web.conftest import png, send

JSON = {"accept": "application/json"}


def ended(visitor, number, seconds=120):
    limit = time.monotonic() + seconds
    while True:
        job = visitor.get(f"/jobs/{number}.json").json()["job"]
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        assert time.monotonic() < limit, job
        time.sleep(0.05)


def ask(visitor, where, **entered):
    answer = visitor.post(where, data=entered, headers=JSON)
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_an_image_is_sent_and_the_network_says_what_it_would_say_in_python(visit, mnist):
    visitor, content = visit(mnist), png(seed=5)
    where = send(visitor, content).headers["location"]
    said = visitor.get(f"{where}.json").json()
    expected = og.load("mnist-mlp")(og.image(content)[None])[0].softmax(0)
    best = said["predictions"][0]
    assert best["unit"] == f"output:{int(expected.argmax())}"
    assert best["value"] == pytest.approx(float(expected.max()), rel=1e-4)
    assert visitor.get(where).status_code == 200


def test_a_map_is_made_with_its_trust_badge(visit, mnist):
    visitor = visit(mnist)
    where = send(visitor, png(seed=5)).headers["location"]
    started = ask(visitor, f"{where}/maps", technique="saliency", unit="output:3", checks="true")
    job = ended(visitor, started["number"])
    assert job["state"] == "done", job["error"]
    assert job["result"]["map"]["badge"] in ("pass", "weak", "fail")
    image = og.image(png(seed=5))
    made = og.saliency(og.load("mnist-mlp"), image, "output:3")
    assert job["result"]["recipe"]["result"] == made.recipe["result"]
    page = visitor.get(where).text
    assert job["result"]["map"]["badge_says"] in page
    for name in job["media"]:
        assert visitor.get(f"/jobs/{job['number']}/{name}.webp").content[:4] == b"RIFF"


def test_occlusion_takes_the_patch_of_the_slider(visit, mnist):
    visitor = visit(mnist)
    where = send(visitor, png(seed=6)).headers["location"]
    form = visitor.get(f"{where}?method=occlusion").text
    assert 'type="range"' in form
    started = ask(visitor, f"{where}/maps", technique="occlusion", unit="output:1", patch="7")
    job = ended(visitor, started["number"])
    assert job["state"] == "done", job["error"]
    assert job["result"]["recipe"]["arguments"]["patch"] == 7
    assert job["result"]["map"]["badge"] is None


def test_a_picture_of_a_unit_is_made_told_and_kept_and_can_be_replayed(visit, mnist):
    visitor = visit(mnist)
    before = len(visitor.get("/unit/fc7:3.json").json()["pictures"])
    started = ask(visitor, "/unit/fc7:3/visualise", technique="maximize", steps="4", seed="7")
    with visitor.stream("GET", f"/jobs/{started['number']}/events") as stream:
        text = "".join(stream.iter_text())
    told = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert told[-1]["state"] == "done"
    assert told[-1]["preview"].startswith(f"/jobs/{started['number']}/preview.webp")
    kept = visitor.get("/unit/fc7:3.json").json()["pictures"]
    assert len(kept) == before + 1
    recipe = ended(visitor, started["number"])["result"]["recipe"]
    assert recipe["arguments"]["seed"] == 7
    assert og.replay(recipe).identical
    again = visitor.get(
        f"/jobs/{started['number']}/events", headers={"last-event-id": str(told[-1]["version"])}
    )
    assert again.status_code == 204


def test_a_picture_is_cancelled_and_nothing_is_kept(visit, mnist):
    visitor = visit(mnist)
    before = visitor.get("/unit/fc7:4.json").json()["pictures"]
    started = ask(visitor, "/unit/fc7:4/visualise", technique="maximize", steps="20000")
    visitor.post(f"/jobs/{started['number']}/cancel")
    assert ended(visitor, started["number"])["state"] == "cancelled"
    assert visitor.get("/unit/fc7:4.json").json()["pictures"] == before


@pytest.mark.parametrize(
    ("entered", "sentence"),
    [
        ({"technique": "saliency"}, "makes no picture"),
        ({"technique": "nonsense"}, "makes no picture"),
        ({"steps": "many"}, "whole number"),
        ({"steps": "1e3"}, "whole number"),
        ({"steps": "999999"}, "at most 20000"),
        ({"facets": "4000"}, "at most 16"),
        ({"lr": "inf"}, "is a number"),
        ({"lr": "nan"}, "is a number"),
        ({"preset": "mine"}, "is none of"),
        ({"relative": "perhaps"}, "true or false"),
        ({"param": "x" * 501}, "at most 500"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_work(visit, mnist, entered, sentence):
    answer = visit(mnist).post("/unit/fc7:1/visualise", data=entered, headers=JSON)
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]


def test_an_expression_that_would_run_code_fails(visit, mnist):
    visitor = visit(mnist)
    evil = "__import__('os').system('true')"
    answer = visitor.post("/unit/fc7:1/visualise", data={"param": evil}, headers=JSON)
    if answer.status_code == 202:
        assert ended(visitor, answer.json()["number"])["state"] == "failed"
    else:
        assert answer.status_code == 422


def test_a_map_without_a_unit_is_refused_and_of_an_unknown_one_fails(visit, mnist):
    visitor = visit(mnist)
    assert visitor.post("/image/0-1/maps", data={}, headers=JSON).status_code == 422
    job = ended(visitor, ask(visitor, "/image/0-1/maps", unit="conv9:1")["number"])
    assert job["state"] == "failed"
    assert "no layer called 'conv9'" in job["error"]


def test_a_full_queue_says_so(visit, mnist):
    visitor = visit(mnist, limits=Limits(jobs=1))
    numbers, answer = [], None
    for _ in range(4):
        answer = visitor.post("/unit/fc7:1/visualise", data={"steps": "20000"}, headers=JSON)
        if answer.status_code == 503:
            break
        numbers.append(answer.json()["number"])
    assert answer.status_code == 503
    for number in numbers:
        visitor.post(f"/jobs/{number}/cancel")


def test_eight_visitors_at_once_do_not_mix(visit, mnist):
    visitor = visit(mnist)
    network = og.load("mnist-mlp")
    images = [png(seed=100 + n) for n in range(8)]
    expected = [network(og.image(content)[None])[0].softmax(0) for content in images]
    maps = [
        og.saliency(network, og.image(content), f"output:{n}").recipe["result"]
        for n, content in enumerate(images)
    ]
    wrong, start = [], threading.Barrier(8)

    def come(n):
        try:
            start.wait(30)
            where = send(visitor, images[n], f"{n}.png").headers["location"]
            started = ask(visitor, f"{where}/maps", technique="saliency", unit=f"output:{n}")
            said = visitor.get(f"{where}.json").json()
            values = {row["unit"]: row["value"] for row in said["predictions"]}
            best = expected[n].max()
            if not torch.isclose(torch.tensor(max(values.values())), best, rtol=1e-4):
                wrong.append((n, "other predictions"))
            if said["name"] != f"{n}.png":
                wrong.append((n, "another name"))
            if ended(visitor, started["number"])["result"]["recipe"]["result"] != maps[n]:
                wrong.append((n, "another map"))
            shown = visitor.get(f"{where}.json").json()["maps"]
            if [row["unit"] for row in shown] != [f"output:{n}"]:
                wrong.append((n, "maps of others"))
        except BaseException as problem:
            wrong.append((n, repr(problem)))

    threads = [threading.Thread(target=come, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []
