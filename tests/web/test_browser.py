"""The explorer in a real browser: what a visitor does with eyes, hands and keys."""

import re
import shutil
import socket
import threading
from contextlib import contextmanager

import pytest

import optogram.atlas
from optogram.web import export
from optogram.web.app import create
from optogram.web.serving import _listening, _server
from tests.atlas.synthetic import write_atlas
from tests.web.conftest import mnist_folder, png
from tests.web.looking import SEEN

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs the browser chromium, which is not installed"
)
READ = (
    "/", "/layer/fc7", "/unit/fc7:3?technique=maximize", "/images", "/image/0-1?method=occlusion",
    "/compare?a=fc7:1&b=fc7:2", "/compare?with=1", "/search?q=fc7", "/notes", "/jobs", "/no",
)  # fmt: skip
HIDDEN = "[...document.querySelectorAll('[hidden]')].filter(x => x.getClientRects().length).length"


@contextmanager
def served(*folders):
    """An explorer on a free port of loopback, which ends with the block."""
    listener = _listening("127.0.0.1", 0)
    server = _server(create(*(optogram.atlas.open(folder) for folder in folders)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive(), "the server of a test has not ended"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    calm = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=calm)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A large made-up atlas, and one of a network that can be asked."""
    top = tmp_path_factory.mktemp("browsed")
    large = write_atlas(top / "large", layers={"conv1": 4096, "fc": 20}, patches=False)
    return {"large": large, "mnist": mnist_folder(top)}


@pytest.fixture(scope="module")
def site(places):
    with served(places["mnist"], places["large"]) as address:
        yield address


@pytest.fixture
def page(browser, site):
    """A visitor's page; a request elsewhere, or a complaint of the browser, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=site)
    context.set_default_timeout(90_000)
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    yield page
    context.close()
    elsewhere = [url for url in asked if not url.startswith((site, "data:", "blob:"))]
    assert elsewhere == []
    assert complaints == []


def test_four_thousand_tiles_are_there_after_a_fast_scroll(page):
    page.goto("/with/1/layer/conv1")
    assert page.locator(".tile").count() == 4096
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.wait_for_function(SEEN)
    sheets = []
    page.on("request", lambda request: sheets.append(request.url))
    for _ in range(12):
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(30)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function(SEEN)
    assert len(sheets) <= 16, "one request a sheet of 256 tiles, and none a tile"


def test_a_deep_link_leads_to_the_unit_and_the_back_button_back(page):
    page.goto("/layer/fc7")
    page.locator(".tile a").nth(5).click()
    page.wait_for_url("**/unit/fc7:5")
    assert page.locator("h1").inner_text().startswith("fc7:5")
    page.go_back()
    page.wait_for_url("**/layer/fc7")
    page.goto("/unit/fc7:9#notes")
    assert page.locator("h1").inner_text().startswith("fc7:9")
    assert page.locator("#notes").bounding_box()["y"] < 900


def test_sorting_changes_the_address_and_the_order(page):
    page.goto("/layer/fc7")
    page.get_by_label("Sort by").select_option("maximum")
    page.wait_for_url("**sort=maximum**")
    shown = page.locator(".tile span").all_inner_texts()
    values = [float(text.rpartition("·")[2]) for text in shown]
    assert values == sorted(values, reverse=True)
    page.reload()
    assert page.locator(".tile span").all_inner_texts() == shown


def test_keys_go_to_the_next_the_previous_up_and_to_the_search(page):
    page.goto("/unit/fc7:3")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/unit/fc7:4")
    page.keyboard.press("k")
    page.wait_for_url("**/unit/fc7:3")
    page.keyboard.press("u")
    page.wait_for_url("**/layer/fc7")
    page.keyboard.press("/")
    page.keyboard.type("fc8:2")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=fc8%3A2")
    page.get_by_role("link", name="fc8:2").first.click()
    page.wait_for_url("**/unit/fc8:2")
    page.locator("textarea").click()
    page.keyboard.press("ArrowRight")
    assert page.url.endswith("/unit/fc8:2"), "keys that are typed into a note do not lead away"


def test_a_note_survives_a_restart(browser, places):
    for visit in range(2):
        with served(places["mnist"]) as address:
            page = browser.new_page()
            page.set_default_timeout(90_000)
            page.goto(f"{address}/unit/fc7:8")
            if not visit:
                page.get_by_placeholder("What do you see?").fill("a loop, upper left")
                page.get_by_role("button", name="Keep note").click()
                page.wait_for_url("**/unit/fc7:8#notes")
            assert page.get_by_text("a loop, upper left").is_visible()
            page.close()


def test_an_image_is_sent_and_a_map_comes(page):
    page.goto("/images")
    page.locator("input[type=file]").set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": png(seed=3)}
    )
    page.wait_for_url(re.compile("/image/[0-9a-f]{32}"))
    assert page.get_by_text("The network says").is_visible()
    page.get_by_label("Technique").select_option("occlusion")
    page.wait_for_url("**method=occlusion**")
    slider = page.locator("[data-patch]")
    slider.fill("7")
    assert page.locator("output[for=patch]").inner_text() == "7 pixels"
    mark, photo = (page.locator(f".slider {part}").bounding_box() for part in (".mark", "img"))
    assert mark["width"] / photo["width"] == pytest.approx(7 / 28, abs=0.02)
    page.get_by_role("button", name="Make the map").click()
    page.locator(".maps figure").wait_for(timeout=120_000)
    assert page.locator(".maps .badge").count() == 1


def test_a_job_is_watched_to_its_end(page):
    page.goto("/unit/fc7:2?technique=maximize")
    before = page.locator(".made figure").count()
    page.get_by_label("steps", exact=True).fill("150")
    page.get_by_role("button", name="Visualise").click()
    page.wait_for_function(
        f"() => document.querySelectorAll('.made figure').length > {before}", timeout=120_000
    )
    page.goto("/jobs")
    assert page.locator(".badge.done").count() >= 1


def test_a_job_is_cancelled_while_its_picture_grows(page):
    page.goto("/unit/fc7:6?technique=maximize")
    page.get_by_label("steps", exact=True).fill("20000")
    page.get_by_role("button", name="Visualise").click()
    panel = page.locator("[data-job]")
    panel.locator("img.growing").wait_for(state="visible", timeout=120_000)
    first = panel.locator("img.growing").get_attribute("src")
    page.wait_for_function(
        "(first) => document.querySelector('img.growing').getAttribute('src') !== first", arg=first
    )
    panel.get_by_role("button", name="Cancel").click()
    panel.locator(".badge.cancelled").wait_for()


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_pages_can_be_read_by_everyone(browser, site, look):
    """axe-core's rules of WCAG 2 A and AA; in the dark contrast, on a phone no sideways scroll."""
    from axe_playwright_python.sync_playwright import Axe

    size = {"width": 390, "height": 844} if look == "phone" else {"width": 1280, "height": 900}
    scheme = "dark" if look == "dark" else "light"
    context = browser.new_context(viewport=size, color_scheme=scheme, base_url=site)
    context.set_default_timeout(90_000)
    page = context.new_page()
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    asked = {"light": rules, "dark": ["color-contrast"], "phone": ["target-size"]}[look]
    faults = []
    for address in READ:
        page.goto(address)
        found = Axe().run(page, options={"runOnly": asked}).response["violations"]
        faults += [(address, f["id"], f["nodes"][0]["html"][:160]) for f in found]
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        faults += [(address, "wider than the screen by", wide)] if wide > 0 else []
        faults += [(address, "hidden and seen")] if page.evaluate(HIDDEN) else []
    context.close()
    assert faults == []


def test_an_export_opens_from_the_disk_with_no_network(browser, tmp_path):
    folder = write_atlas(tmp_path / "small", layers={"conv1": 20, "fc": 3})
    first = export(optogram.atlas.open(folder), tmp_path / "out")
    context = browser.new_context(offline=True)
    context.set_default_timeout(90_000)
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(first.as_uri())
    page.get_by_role("link", name="conv1", exact=True).click()
    page.locator(".tile a").nth(3).click()
    assert page.locator("h1").inner_text().startswith("conv1:3")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/4.html")
    broken = "() => [...document.images].filter((i) => i.complete && !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.locator(".large img").evaluate("(image) => image.naturalWidth") == 28
    context.close()
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert complaints == []


def test_the_test_s_server_listens_on_this_machine_alone_and_ends(places):
    with served(places["mnist"]) as address:
        port = int(address.rpartition(":")[2])
        assert address.startswith("http://127.0.0.1:")
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
