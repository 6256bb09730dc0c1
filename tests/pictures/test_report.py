"""Reports: read by Python's parser and by a real browser, they ask nobody for anything."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from optogram.pictures import Attribution, Picture, Report, RequestError, Sheet, contact

EVIL = '<script>alert("1")</script>"\' onload=alert(2) <img src=http://evil.example/a.png>'


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} was not the last one opened"

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(unit: str = "fc:1", verdict: str | None = "failed") -> Picture:
    return Picture(torch.rand(1, 8, 8), unit, 1.5, torch.arange(5.0), verdict, recipe={"a": EVIL})


def attribution(**others) -> Attribution:
    return Attribution(torch.randn(8, 8), torch.rand(3, 8, 8), EVIL, 2.0, **others)


def full_report() -> Report:
    report = Report(EVIL, f"{EVIL}\n\nsecond", {"title": EVIL})
    first = report.section(EVIL, EVIL).text(EVIL)
    first.pictures([picture(EVIL), attribution(unit_of_values=EVIL, checks={EVIL: EVIL})])
    first.pictures(Sheet([picture()], EVIL)).image(np.zeros((9, 9)), EVIL, EVIL)
    second = report.section("Numbers").table([EVIL, "b"], [[EVIL, 1.23456], [None, True]], EVIL)
    second.curve([1, 2, float("nan"), 3], EVIL)
    return report


def pages() -> dict[str, str]:
    results = [picture(EVIL), attribution(), attribution().over(), Sheet([picture(EVIL)], EVIL)]
    made = {f"{type(result).__name__}": result._html().decode() for result in results}
    return {"Report": full_report().html(), **made}


@pytest.mark.parametrize("name", ["Report", "Picture", "Attribution", "Overlay", "Sheet"])
def test_a_page_asks_nobody_for_anything(name):
    page = Page(pages()[name])
    assert page.open == []  # every tag was closed
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "audio", "video")
        assert not [key for key in attributes if key.startswith("on") or key == "srcset"]
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/webp;base64,"))
    assert [attributes["type"] for attributes in page.of("script")] == ["application/json"]
    styles = re.findall(r"<style>(.*?)</style>", pages()[name], re.S)
    assert "url(" not in styles[0]
    assert "@import" not in styles[0]
    policies = [tag["content"] for tag in page.of("meta") if "http-equiv" in tag]
    assert "default-src 'none'" in policies[0]


def test_every_image_has_words_for_those_who_cannot_see_it():
    images = Page(full_report().html()).of("img")
    assert len(images) == 6
    assert all(image["alt"].strip() for image in images)


def test_what_was_put_in_can_be_read_as_it_was():
    page = Page(full_report().html())
    told = [text.strip() for text in page.texts]
    assert told.count(EVIL) >= 8
    assert "1.23" in told
    assert "–" in told
    assert "yes" in told


def test_the_pixels_are_inside_without_loss():
    made = picture()
    report = Report("title")
    report.section("one").pictures([made])
    source = Page(report.html()).of("img")[0]["src"]
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as opened:
        pixels = np.asarray(opened.convert("L"))
    assert (pixels == np.rint(made.image[0].numpy() * 255)).all()


def test_small_images_are_enlarged_with_hard_edges():
    report = Report("title")
    report.section("one").pictures([picture()])
    tag = Page(report.html()).of("img")[0]
    assert tag["class"] == "pixelated"
    assert int(tag["width"]) % 8 == 0


def test_patches_of_a_unit_are_enlarged_alike_and_stand_in_the_columns_asked_for():
    """A patch that the image's edge cut is shown as small as it is; another unit sees less."""

    def patch(unit: str, height: int, width: int) -> Picture:
        return Picture(
            image=torch.rand(1, height, width), unit=unit, score=1.0, history=torch.zeros(0)
        )

    items = (patch("a:1", 20, 20), patch("a:1", 9, 20), patch("a:1", 9, 9), patch("b:1", 5, 5))
    report = Report("patches")
    report.section("all").pictures(Sheet(items, columns=2))
    widths = [int(width) for width in re.findall(r'<img src="[^"]*" width="(\d+)"', report.html())]
    assert widths[0] == widths[1] == 20 * (widths[2] // 9)
    assert widths[3] // 5 > widths[0] // 20
    assert "repeat(2, max-content)" in report.html()
    wide = Report("too wide").section("all").pictures(Sheet(items * 10, columns=30))
    assert wide.blocks[0]["columns"] is None
    drawn = [tile.picture.width for tile in contact._tiles(Sheet(items))]
    assert drawn[0] == drawn[1] == 20 * (drawn[2] // 9)
    assert drawn[3] // 5 > drawn[0] // 20


def test_the_contents_lead_to_every_section():
    page = Page(full_report().html())
    targets = {attributes["id"] for attributes in page.of("section")}
    assert {link["href"][1:] for link in page.of("a")} == targets
    assert len(targets) == 2


@pytest.mark.parametrize(
    "verdict",
    ["excited", "below data", "failed", "dead", "fooled", "natural", "adversarial", "fooling"],
)
def test_a_verdict_is_said_in_words_and_explained(verdict):
    report = Report("title")
    report.section("one").pictures([picture(verdict=verdict)])
    assert [text.strip() for text in Page(report.html()).texts].count(verdict) == 2


def test_maps_in_one_grid_share_their_scale():
    weak = Attribution(torch.full((4, 4), 0.25), torch.rand(1, 4, 4), "a", 1.0)
    strong = Attribution(torch.full((4, 4), 8.0), torch.rand(1, 4, 4), "b", 1.0)
    report = Report("title")
    report.section("one").pictures([weak, strong])
    texts = [text.strip() for text in Page(report.html()).texts]
    assert texts.count("8") == 2
    assert "0.25" not in texts


def captions(report: Report) -> list[str]:
    return re.findall(r"<figcaption>\s*<span>(.*?)</span>", report.html())


def test_maps_of_one_image_show_it_once():
    image = torch.rand(3, 8, 8)
    maps = [Attribution(torch.randn(8, 8), image, f"fc:{unit}", 2.0) for unit in range(3)]
    together, apart = Report("title"), Report("title")
    together.section("one").pictures(maps)
    apart.section("one").pictures([*maps, attribution()])
    alts = [attributes["alt"] for attributes in Page(together.html()).of("img")]
    assert alts.count("The image that was explained") == 1
    assert len([alt for alt in alts if alt.startswith("Map for fc:")]) == 3
    assert captions(together)[0] == "the image"
    alts = [attributes["alt"] for attributes in Page(apart.html()).of("img")]
    assert alts.count("The image that was explained") == 4


def test_a_grid_of_maps_keeps_the_image_in_every_row():
    image = torch.rand(3, 8, 8)
    maps = [Attribution(torch.randn(8, 8), image, f"fc:{unit}", 2.0) for unit in range(4)]
    report = Report("title")
    report.section("one").pictures(Sheet(maps, columns=2))
    alts = [attributes["alt"] for attributes in Page(report.html()).of("img")]
    assert alts.count("The image that was explained") == 4


def test_an_image_and_its_words_are_a_figure():
    shown = torch.rand(3, 8, 8)
    report = Report("title")
    report.section("one").pictures([(shown, "a patch")])
    found = Page(report.html()).of("img")
    assert [attributes["alt"] for attributes in found] == ["a patch"]
    assert captions(report) == ["a patch"]


@pytest.mark.parametrize(
    ("largest", "ticks"),
    [(0.25, ["-0.25", "0", "0.25"]), (0.000123456, ["-0.00012", "0", "0.00012"])],
)
def test_the_numbers_of_a_colour_bar_fit_under_a_small_map(largest, ticks):
    report = Report("title")
    values = torch.zeros(4, 4)
    values[0, 0] = largest
    report.section("one").pictures([Attribution(values, torch.rand(1, 4, 4), "a", 1.0)])
    bar = re.search(r'class="ticks">(.*?)</div>', report.html(), re.DOTALL)
    assert re.findall(r">([^<>\s]+)<", bar[1]) == ticks


def test_a_table_needs_a_cell_for_every_column():
    with pytest.raises(RequestError, match="2 columns has a row of 1"):
        Report("title").section("one").table(["a", "b"], [[1]])


def test_what_is_no_result_is_refused():
    with pytest.raises(RequestError, match="not a str"):
        Report("title").section("one").pictures(["a"])


def test_a_report_is_html(tmp_path):
    with pytest.raises(RequestError, match=r"\.html"):
        Report("title").save(tmp_path / "a.pdf")
    assert Report("half \ud800 a pair").save(tmp_path / "a.html").exists()


def test_a_long_curve_keeps_its_peaks():
    values = np.zeros(10_000)
    values[7_777] = 5.0
    report = Report("title")
    report.section("one").curve(values, "curve")
    (line,) = Page(report.html()).of("polyline")
    points = [tuple(map(float, point.split(","))) for point in line["points"].split()]
    assert len(points) <= 600
    top = min(points, key=lambda point: point[1])
    assert top[0] == pytest.approx(2 + 596 * 0.7777, abs=2)


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
def test_a_browser_shows_the_page_and_runs_nothing_of_it(tmp_path):
    path = full_report().save(tmp_path / "a.html")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "Content Security Policy" not in run.stderr
    assert run.stdout.count("<script") == 1
    assert "</html>" in run.stdout
