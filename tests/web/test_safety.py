"""What somebody who means harm may try, and that none of it works."""

import struct
import zlib
from io import BytesIO
from urllib.parse import quote

import pytest
from PIL import Image

from optogram.web.safety import COOKIE, Limits, hostname
from tests.web.conftest import png, send

TOKEN = "a-token-of-some-length"
EVIL = [
    "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/etc/passwd", "....//....//etc/passwd", "..\\..\\..\\etc\\passwd", "%00", "a%00b", "~root",
    "file:///etc/passwd", "%252e%252e%252fetc%252fpasswd", "atlas.json", "notes.jsonl", "x" * 5000,
    "-1", "1e9", "99999999999999999999", "0x10", "NaN", "' OR 1=1 --", '"; DROP TABLE units; --',
    "%ff%fe", "%f0%9f%90%b6", "<script>alert(1)</script>", "{{7*7}}", "%0d%0aSet-Cookie:%20a=b",
]  # fmt: skip
PLACES = [
    "/layer/{}", "/layer/{}.json", "/unit/{}", "/unit/conv1:{}", "/unit/{}:1", "/unit/{}/visualise",
    "/image/{}", "/image/0-{}", "/image/{}-0", "/media/data/0/{}.webp", "/media/data/{}/0.webp",
    "/media/image/{}.webp", "/media/{}/1/1/picture0.webp", "/media/abc/{}/1/picture0.webp",
    "/media/abc/1/{}/picture0.webp", "/media/abc/1/1/{}.webp", "/sheets/{}/1/0.webp",
    "/sheets/abc/{}/0.webp", "/sheets/abc/1/{}.webp", "/jobs/{}", "/jobs/{}/events",
    "/jobs/1/{}.webp", "/notes/{}/remove", "/static/{}", "/with/{}/", "/{}",
    "/layer/conv1?sort={}", "/layer/conv1?show={}", "/layer/conv1?cluster={}",
    "/layer/conv1?page={}", "/images?data={}", "/images?start={}", "/compare?with={}",
    "/compare?a={}&b=conv1:1", "/unit/conv1:1?technique={}",
]  # fmt: skip
FREE = ["/layer/conv1?label={}", "/search?q={}", "/search.json?q={}"]


@pytest.mark.parametrize("place", PLACES + FREE)
def test_no_parameter_leads_out_of_the_atlas(visitor, place):
    for evil in EVIL:
        answer = visitor.get(place.format(evil))
        assert answer.status_code < 500, f"{place.format(evil)[:80]}: {answer.text}"
        assert "root:" not in answer.text
        if "html" in answer.headers.get("content-type", "html"):
            assert "<script>alert" not in answer.text
        assert "set-cookie" not in answer.headers
        if "webp" in place:
            assert answer.status_code in (200, 404, 422)
        if place.startswith("/static"):
            assert answer.status_code == 404


def test_a_link_out_of_the_static_folder_is_not_followed(visitor):
    assert visitor.get("/static/").status_code == 404
    assert visitor.get("/static/../app.py").status_code == 404
    assert visitor.get("/static/%2e%2e/app.py").status_code == 404


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8411", "127.0.0.1.evil.example", "localhost@evil.example",
     "127.0.0.1, evil.example", "", "[::2]", "127.0.0.1:port", "127.0.0.1/..", "evil.example#"],
)  # fmt: skip
def test_a_foreign_name_is_refused(visitor, host):
    answer = visitor.get("/", headers={"host": host})
    assert answer.status_code == 400
    assert "conv1" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8411", "LOCALHOST", "[::1]:80"])
def test_loopback_by_any_name_is_ours(visitor, host):
    assert visitor.get("/", headers={"host": host}).status_code == 200


def test_a_host_is_read_as_browsers_read_it():
    assert hostname("LocalHost:80") == "localhost"
    assert hostname("[::1]") == "::1"
    assert hostname("a:b:c") == ""


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://evil.example:8411"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "ftp://127.0.0.1:8411"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    "place", ["/notes", "/images", "/unit/conv1:1/visualise", "/jobs/1/cancel", "/image/0-1/maps"]
)
def test_what_changes_something_must_come_from_our_own_pages(visitor, place, headers):
    assert visitor.post(place, headers=headers).status_code == 403


def test_our_own_pages_and_programs_may_change_something(visit, own_atlas):
    visitor, note = visit(own_atlas), {"address": "fc:1", "text": "x"}
    ours = {"origin": "http://127.0.0.1:8411", "sec-fetch-site": "same-origin"}
    assert visitor.post("/notes", data=note, headers=ours).status_code == 303
    assert visitor.post("/notes", data=note).status_code == 303


@pytest.mark.parametrize("page", ["/", "/nowhere", "/static/style.css", "/unit/conv1:1.json"])
def test_every_answer_says_what_a_browser_may_do(visitor, page):
    headers = visitor.get(page).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_a_refusal_says_it_too(visitor):
    for headers in ({"host": "evil.example"}, {"content-length": "999999999"}):
        answer = visitor.get("/", headers=headers)
        assert "content-security-policy" in answer.headers


def test_the_allowance_for_a_page_s_own_style_is_new_every_time(visitor):
    policies = {visitor.get("/").headers["content-security-policy"] for _ in range(3)}
    assert len(policies) == 3


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_script_in_notes_and_names_stays_text(visit, own_atlas, text):
    visitor = visit(own_atlas)
    for kind in ("note", "label"):
        visitor.post("/notes", data={"address": "conv1:4", "text": text, "kind": kind})
    for page in ("/unit/conv1:4", "/notes", "/layer/conv1", "/search?q=alert", "/"):
        html = visitor.get(page).text
        assert text not in html
        assert "<img src=x" not in html
    assert visitor.get("/notes.json").headers["content-type"] == "application/json"


def test_script_in_a_file_name_stays_text(visit, mnist):
    visitor = visit(mnist)
    where = send(visitor, png(), "<script>alert(1)</script>.png").headers["location"]
    html = visitor.get(where).text
    assert "&lt;script&gt;alert(1)" in html
    assert "<script>alert" not in html


def bomb(side: int = 20_000) -> bytes:
    """A PNG of 400 million pixels in about 50 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(b"\0" * (side // 8 + 1)) for _ in range(side)) + rows.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def as_kind(kind: str) -> bytes:
    file = BytesIO()
    Image.new("L", (28, 28)).save(file, kind)
    return file.getvalue()


BAD = {
    "a bomb": bomb,
    "text": lambda: b"hello",
    "nothing": lambda: b"",
    "half a PNG": lambda: png()[:300],
    "a PNG's head alone": lambda: png()[:33],
    "a GIF": lambda: as_kind("GIF"),
    "a TIFF": lambda: as_kind("TIFF"),
    "a BMP": lambda: as_kind("BMP"),
    "an SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "a ZIP": lambda: b"PK\x03\x04" + b"\0" * 200,
    "a pickle": lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "HTML that says it is a PNG": lambda: b"<html><script>alert(1)</script>",
    "noise": lambda: bytes(range(256)) * 40,
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_usable_image_is_refused_in_a_sentence(visitor, what):
    answer = send(visitor, BAD[what]())
    assert answer.status_code == 422
    assert "image" in answer.json()["error"] or "pixels" in answer.json()["error"]


def test_an_upload_without_a_file_is_refused(visitor):
    assert visitor.post("/images").status_code in (400, 422)
    assert visitor.post("/images", data={"file": "text"}).status_code == 422
    two = [("file", ("a.png", png(), "image/png")), ("file", ("b.png", png(), "image/png"))]
    assert visitor.post("/images", files=two).status_code == 400


@pytest.mark.parametrize(
    "body", [b"", b"--x", b"--x\r\nContent-Disposition: form-data\r\n\r\n", b"\xff"]
)
def test_a_malformed_form_is_refused(visitor, body):
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert 400 <= visitor.post("/images", content=body, headers=kind).status_code < 500
    without = {"content-type": "multipart/form-data"}
    assert 400 <= visitor.post("/images", content=body, headers=without).status_code < 500


def test_a_body_that_is_too_long_is_refused_whatever_it_says(visit, atlas):
    visitor = visit(atlas, limits=Limits(body=10_000))
    assert send(visitor, b"x" * 20_000).status_code == 413

    def drip():
        for _ in range(30):
            yield b"x" * 1000

    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert visitor.post("/images", content=drip(), headers=kind).status_code == 413
    for length in ("-5", "9" * 30, "1_000", "x"):
        answer = visitor.post("/notes", headers={"content-length": length})
        assert answer.status_code in (400, 413)


def test_only_so_many_uploads_are_remembered(visit, mnist):
    visitor = visit(mnist, limits=Limits(uploads=2))
    places = [send(visitor, png(seed=n)).headers["location"] for n in range(3)]
    media = [f"/media{place}.webp" for place in places]
    assert [visitor.get(address).status_code for address in media] == [422, 200, 200]


def test_a_stranger_is_told_nothing_and_a_token_opens(visit, atlas):
    visitor = visit(atlas, token=TOKEN, hosts=["here.example"])
    for page in ("/", "/static/style.css", "/unit/conv1:1.json", "/?token=", "/?token=wrong"):
        answer = visitor.get(page)
        assert answer.status_code == 403
        assert "conv1" not in answer.text
    led = visitor.get(f"/layer/conv1?sort=mean&token={TOKEN}")
    assert (led.status_code, led.headers["location"]) == (303, "/layer/conv1?sort=mean")
    cookie = led.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert visitor.get("/", headers={"host": "here.example"}).status_code in (200, 403)
    assert visitor.get("/").status_code == 200


def test_a_token_may_come_as_a_program_sends_it(visit, atlas):
    visitor = visit(atlas, token=TOKEN)
    right, wrong = {"authorization": f"Bearer {TOKEN}"}, {"authorization": "Bearer wrong"}
    assert visitor.get("/", headers=right).status_code == 200
    assert visitor.get("/", headers=wrong).status_code == 403
    assert visitor.get("/", headers={"cookie": f"{COOKIE}=wrong"}).status_code == 403
    assert visitor.post("/notes", params={"token": TOKEN}).status_code == 403


def test_after_a_token_nobody_is_led_elsewhere(visit, atlas):
    visitor = visit(atlas, token=TOKEN)
    led = visitor.get(f"//evil.example/?token={TOKEN}")
    assert not led.headers.get("location", "/").startswith("//")


def test_code_that_an_atlas_names_is_not_run(visit, own_atlas, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    (tmp_path / "net.py").write_text(f"open({str(ran)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    own_atlas.network["name"] = quote("net.py:build", safe=":.")
    visitor = visit(own_atlas)
    answer = visitor.get("/image/0-1.json").json()
    assert "is code in a file" in answer["problem"]
    assert not ran.exists()
