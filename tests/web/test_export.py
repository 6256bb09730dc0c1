"""The explorer as a folder: the same pages, every link inside it, nothing fetched."""

import os
import re

import pytest

from optogram.pictures import RequestError
from optogram.web import export
from tests.web.test_pages import links


@pytest.fixture
def exported(own_atlas, tmp_path):
    own_atlas.add_note("conv1", 4, "<script>alert(1)</script> a zebra")
    return export(own_atlas, tmp_path / "out").parent


def test_every_page_is_there_and_leads_only_to_files_of_the_folder(exported):
    pages = sorted(exported.rglob("*.html"))
    assert len(pages) == 2 + 2 + 23
    for page in pages:
        text = page.read_text(encoding="utf-8")
        found = links(text)
        sheets = re.findall(r'url\("([^"]+)"\)', text)
        for address in [*found.found, *sheets]:
            if address.startswith(("data:image/webp;base64,", "#")):
                continue
            assert ":" not in address, address
            assert not address.startswith("/"), address
            assert (page.parent / address).is_file(), f"{page}: {address}"
        assert "alert(1)</script>" not in text
        assert "<form" not in text.replace('<form method="dialog">', "")


def test_a_unit_s_page_says_what_the_explorer_says(exported, own_atlas):
    layer = own_atlas.layer("conv1").id
    text = (exported / "units" / str(layer) / "4.html").read_text(encoding="utf-8")
    assert "a zebra" in text
    assert "What excites it most" in text
    assert text.count("data:image/webp") >= 10


def test_an_earlier_export_is_replaced_and_nothing_else(exported, own_atlas, tmp_path):
    (exported / "stale.html").write_text("old")
    again = export(own_atlas, exported)
    assert again.is_file()
    assert not (exported / "stale.html").exists()
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(RequestError, match="no earlier export"):
        export(own_atlas, other)
    assert os.listdir(other) == ["thesis.txt"]
    with pytest.raises(RequestError, match="there is no folder"):
        export(own_atlas, tmp_path / "no" / "where")


def test_what_is_interrupted_leaves_nothing(own_atlas, tmp_path, monkeypatch):
    place = tmp_path / "new"
    place.mkdir()
    monkeypatch.setattr(
        type(own_atlas), "unit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        export(own_atlas, place / "out")
    assert os.listdir(place) == []
