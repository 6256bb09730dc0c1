"""Whatever is typed into the address bar or a form, the explorer answers and does not fall."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from optogram.web.app import create
from tests.web.conftest import HERE

WORDS = st.one_of(
    st.sampled_from(
        ["conv1", "fc", "conv1:1", "fc:19", "0", "1", "0-1", "7", "picture0", "patch8", "..", ".",
         "output", "layer", "unit", "media", "jobs", "index", "conv1.json", "0.webp", "%00"]
    ),
    st.text(max_size=12),
    st.integers().map(str),
)  # fmt: skip
HEADS = st.sampled_from(
    ["layer", "unit", "image", "images", "media", "sheets", "jobs", "notes", "compare", "search",
     "static", "with", ""]
)  # fmt: skip
NAMES = st.sampled_from(
    ["sort", "show", "order", "label", "cluster", "page", "q", "a", "b", "with", "data", "start",
     "technique", "method", "unit"]
)  # fmt: skip


@pytest.fixture(scope="module")
def anybody(atlas):
    with TestClient(create(atlas), base_url=HERE, follow_redirects=False) as client:
        yield client


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=HEADS,
    rest=st.lists(WORDS, max_size=3),
    ending=st.sampled_from(["", ".json", ".webp", "/"]),
    query=st.dictionaries(NAMES, WORDS, max_size=3),
)
def test_every_address_is_answered(anybody, head, rest, ending, query):
    path = "/" + "/".join([head, *(quote(word, safe="%:@") for word in rest)]) + ending
    if head == "image":
        return  # those ask the network, which test_live does
    asked = urlencode(query)
    answer = anybody.get(f"{path}?{asked}" if asked else path)
    assert answer.status_code in (200, 304, 307, 404, 405, 422)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    if answer.headers.get("content-type") == "application/json":
        assert isinstance(answer.json(), dict)
    assert "Traceback" not in answer.text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.sampled_from(["/notes", "/images", "/jobs/1/cancel", "/notes/x/remove"]),
    body=st.binary(max_size=200),
    kind=st.sampled_from(
        ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
         "multipart/form-data", "application/json", "text/plain", ""]
    ),
)  # fmt: skip
def test_every_body_is_answered(anybody, place, body, kind):
    answer = anybody.post(place, content=body, headers={"content-type": kind})
    assert 300 <= answer.status_code < 500
