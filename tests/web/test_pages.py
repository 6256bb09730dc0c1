"""Every page says what the atlas holds, in HTML and in the same words as JSON."""

import re
from html.parser import HTMLParser

import pytest

import optogram.atlas
from tests.atlas.synthetic import write_atlas
from tests.web.conftest import HERE

PAGES = [
    "/", "/layer/conv1", "/layer/fc?sort=maximum&show=alive", "/unit/conv1:3", "/unit/fc:2",
    "/images", "/compare", "/compare?a=conv1:1&b=conv1:2", "/search?q=label+3", "/search", "/notes",
    "/jobs",
]  # fmt: skip


def twin(page: str) -> str:
    path, mark, query = page.partition("?")
    return f"{path}index.json" if path == "/" else f"{path}.json{mark}{query}"


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.scripts, self.styles = [], [], []

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.found += [known[name] for name in ("href", "src", "action") if known.get(name)]
        if tag == "script":
            self.scripts.append(known.get("src"))
        self.styles += [known["style"]] if "style" in known else []
        assert not [name for name in known if name.startswith("on")], f"a handler in <{tag}>"


def links(html: str) -> Links:
    parser = Links()
    parser.feed(html)
    return parser


@pytest.mark.parametrize("page", PAGES)
def test_a_page_and_its_twin_are_there(visitor, page):
    html, data = visitor.get(page), visitor.get(twin(page))
    assert (html.status_code, data.status_code) == (200, 200)
    assert html.headers["content-type"].startswith("text/html")
    assert isinstance(data.json(), dict)
    assert not re.search(r">\s*None\b", html.text), "a value that is not known is shown as None"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_leads_only_to_what_is_there_and_only_here(visitor, page):
    found = links(visitor.get(page).text)
    assert all(found.scripts), "a script in the page itself"
    assert not found.styles, "a style that the content policy forbids"
    for address in sorted(set(found.found)):
        if address.startswith("#") or address.endswith(("/visualise", "/remove")):
            continue
        assert address.startswith("/"), address
        if not address.startswith("//"):
            answer = visitor.get(address.partition("#")[0])
            assert answer.status_code == 200, f"{page} leads to {address}: {answer.text}"


def test_the_network_page_counts_what_the_layers_say(visitor, atlas):
    said = visitor.get("/index.json").json()
    assert [layer["name"] for layer in said["layers"]] == ["conv1", "fc"]
    assert said["totals"]["units"] == 320
    assert said["totals"]["dead"] == sum(layer.counts["dead"] for layer in atlas.layers)


def test_a_layer_is_sorted_and_filtered_as_asked(visitor, atlas):
    said = visitor.get("/layer/conv1.json?sort=maximum").json()
    values = [tile["value"] for tile in said["tiles"]]
    assert values == sorted(values, reverse=True)
    rising = visitor.get("/layer/conv1.json?sort=maximum&order=up").json()
    assert [tile["value"] for tile in rising["tiles"]] == sorted(values)
    dead = visitor.get("/layer/conv1.json?show=dead").json()
    assert dead["count"] == len(dead["tiles"]) == atlas.layer("conv1").counts["dead"]
    assert all(tile["dead"] for tile in dead["tiles"])


def test_a_tile_is_the_cell_of_its_unit_in_the_sheet_of_its_block(visitor):
    tiles = {t["unit"]: t for t in visitor.get("/layer/conv1.json").json()["tiles"]}
    assert tiles[0]["cell"].endswith("-0 c0 r0")
    assert tiles[17]["cell"].endswith("-0 c1 r1")
    assert tiles[255]["cell"].endswith("-0 cf rf")
    assert tiles[256]["cell"].endswith("-1 c0 r0")


@pytest.mark.parametrize("query", ["", "?sort=maximum", "?sort=maximum&order=up&show=alive"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_layer_is_sent_in_parts_that_are_all_of_it(visitor, query, coding):
    html = visitor.get(f"/layer/conv1{query}", headers={"accept-encoding": coding}).text
    said = visitor.get(f"/layer/conv1.json{query}").json()["tiles"]
    assert re.findall(r'<i class="([^"]*)">', html) == [tile["cell"] for tile in said]
    for name in {tile["cell"].partition(" ")[0] for tile in said}:
        rule = f".{name}{{background-image:"
        assert html.count(rule) == 1
        assert html.index(rule) < html.index(f'<i class="{name} ')
    assert html.endswith("</html>")


def test_a_unit_page_says_all_that_the_atlas_knows_of_it(visitor, atlas):
    record, said = atlas.unit("conv1", 3), visitor.get("/unit/conv1:3.json").json()
    assert said["statistics"]["maximum"] == pytest.approx(record.stats.maximum)
    assert [patch["value"] for patch in said["patches"]] == [p.value for p in record.patches]
    assert [made["verdict"] for made in said["pictures"]] == [m.verdict for m in record.pictures]
    assert [near["unit"] for near in said["neighbours"]] == [n.unit for n in record.neighbours]
    assert said["histogram"]["counts"] == record.histogram.counts


def test_pictures_come_from_their_pack_and_are_asked_for_once(visitor, atlas):
    made = atlas.unit("conv1", 3).pictures[0]
    address = f"/media/{made.recipe}/{atlas.layer('conv1').id}/3/{made.kind}.webp"
    first = visitor.get(address)
    assert first.content == atlas.tile(made.recipe, "conv1", 3, made.kind)
    assert "immutable" in first.headers["cache-control"]
    again = visitor.get(address, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("page", "status", "sentence"),
    [
        ("/layer/conv9", 404, "no layer 'conv9'"),
        ("/unit/conv1:300", 404, "units 0 to 299"),
        ("/unit/conv1", 404, "is no unit"),
        ("/unit/conv1:-1", 404, "is no number"),
        ("/unit/conv1:%D9%A1", 404, "is no number"),
        ("/layer/conv1?sort=colour", 422, "sorted by"),
        ("/layer/conv1?cluster=x", 422, "whole number"),
        ("/compare?a=conv1:1&b=nope:2", 404, "no layer 'nope'"),
        ("/compare?with=7", 404, "no network 7"),
        ("/jobs/9", 422, "no job 9"),
        ("/nowhere", 404, "nothing at this address"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(visitor, page, status, sentence):
    html, data = visitor.get(page), visitor.get(twin(page))
    assert (html.status_code, data.status_code) == (status, status)
    assert sentence in data.json()["error"]
    shown = visitor.get(page, headers={"accept": "text/html"}).text
    assert "<h1>" in shown
    assert "Traceback" not in shown


def test_units_whose_patches_were_not_cut_out_are_compared_by_whole_images(visit, tmp_path):
    folder = write_atlas(tmp_path / "bare", layers={"conv1": 6, "fc": 3}, patches=False)
    visitor = visit(optogram.atlas.open(folder))
    page = visitor.get("/compare?a=conv1:1&b=conv1:2").text
    shown = re.findall(r'src="(/media/data/0/[0-9]+\.webp)[^"]*"', page)
    assert len(shown) == 18
    assert visitor.get(shown[0]).status_code == 200


def test_two_networks_are_compared_layer_by_layer(visit, atlas, own_atlas):
    both = visit(atlas, own_atlas)
    said = both.get("/compare.json?with=1").json()
    assert [row["name"] for row in said["layers"]] == ["conv1", "fc"]
    assert [total["units"] for total in said["totals"]] == [320, 23]
    assert both.get("/with/1/index.json").json()["totals"]["units"] == 23
    units = both.get("/compare.json?a=conv1:5&b=conv1:6&with=1").json()
    assert (units["first"]["address"], units["second"]["address"]) == ("conv1:5", "conv1:6")
    assert "/with/1/media/" in both.get("/compare?a=conv1:5&b=conv1:6&with=1").text


def test_a_note_is_kept_shown_found_and_taken_away(visit, own_atlas):
    visitor = visit(own_atlas)
    note = {"address": "conv1:4", "text": "like a zebra"}
    assert visitor.post("/notes", data=note).headers["location"] == "/unit/conv1:4#notes"
    assert "like a zebra" in visitor.get("/unit/conv1:4").text
    assert "like a zebra" in visitor.get("/notes").text
    hits = visitor.get("/search.json?q=zebra").json()["hits"]
    assert [(hit["address"], hit["what"]) for hit in hits] == [("conv1:4", "note")]
    key = visitor.get("/unit/conv1:4.json").json()["notes"][0]["id"]
    visitor.post(f"/notes/{key}/remove", data={"back": "conv1:4"})
    assert visitor.get("/notes.json").json()["notes"] == []


def test_a_name_is_shown_where_the_unit_is(visit, own_atlas):
    visitor = visit(own_atlas)
    visitor.post("/notes", data={"address": "conv1:4", "text": "zebra", "kind": "label"})
    assert visitor.get("/layer/conv1.json").json()["tiles"][4]["name"] == "zebra"
    assert "zebra" in visitor.get("/unit/conv1:4").text


@pytest.mark.parametrize(
    ("note", "sentence"),
    [
        ({"address": "conv1:4", "text": " "}, "empty"),
        ({"address": "conv1:4", "text": "x" * 4001}, "too long"),
        ({"address": "conv1:4", "text": "x" * 81, "kind": "label"}, "too long"),
        ({"address": "conv1:99", "text": "x"}, "units 0 to 19"),
        ({"text": "x"}, "is no unit"),
        ({"address": "conv1:4", "text": "x", "kind": "order"}, "a note or a label"),
    ],
)
def test_a_note_that_cannot_be_kept_is_refused(visit, own_atlas, note, sentence):
    answer = visit(own_atlas).post("/notes", data=note)
    assert answer.status_code in (404, 422)
    assert sentence in answer.json()["error"]
    assert own_atlas.notes() == ()


def test_a_read_only_explorer_takes_nothing(visit, own_atlas):
    visitor = visit(own_atlas, live=False)
    assert visitor.post("/notes", data={"address": "conv1:1", "text": "x"}).status_code == 422
    assert visitor.post("/unit/conv1:1/visualise").status_code == 422
    page = visitor.get("/unit/conv1:1").text
    assert "Visualise" not in page
    assert "Keep note" not in page
    assert own_atlas.notes() == ()


def test_a_page_names_its_twin(visitor):
    assert f'href="{twin("/unit/conv1:3")}"' in visitor.get("/unit/conv1:3").text
    assert HERE not in visitor.get("/unit/conv1:3").text
