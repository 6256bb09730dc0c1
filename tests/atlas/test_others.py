"""What other programs make of an atlas as it lies."""

import sys

import pytest

import optogram.atlas
from tests.atlas.synthetic import write_atlas


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    return optogram.atlas.open(write_atlas(tmp_path_factory.mktemp("made up") / "atlas"))


def stats_of(atlas, layer):
    recipe = next(r.id for r in atlas.recipes if r.kind == "stats")
    return f"{atlas.folder}/data/{atlas.layer(layer).id}/{recipe}/*.parquet"


def test_duckdb_reads_the_rows_as_they_lie(atlas):
    duckdb = pytest.importorskip("duckdb")
    query = f"SELECT unit, maximum FROM '{stats_of(atlas, 'conv1')}' ORDER BY maximum DESC LIMIT 10"
    found = duckdb.sql(query).fetchall()
    top = atlas.top("conv1", "maximum", 10)
    assert [unit for unit, _ in found] == [row.unit for row in top]
    assert [value for _, value in found] == pytest.approx([row.maximum for row in top])


def test_duckdb_opens_the_list_of_strongest_images(atlas):
    duckdb = pytest.importorskip("duckdb")
    rows = stats_of(atlas, "fc")
    query = f"SELECT unnest(images) AS image, unnest(values) AS value FROM '{rows}' WHERE unit = 3"
    patches = atlas.unit("fc", 3).patches
    found = duckdb.sql(query).fetchall()
    assert [image for image, _ in found] == [patch.image for patch in patches]
    assert [value for _, value in found] == pytest.approx([patch.value for patch in patches])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_data_frame_is_that_of_the_library_that_is_there(atlas, library, monkeypatch):
    frames = pytest.importorskip(library)
    for other in {"pandas", "polars"} - {library}:
        monkeypatch.setitem(sys.modules, other, None)
    found = atlas.frame("conv1")
    assert isinstance(found, frames.DataFrame)
    assert len(found) == 300
    assert list(found["unit"]) == list(range(300))
    assert list(found["maximum"])[7] == pytest.approx(atlas.unit("conv1", 7).stats.maximum)
    assert len(atlas.frame()) == 320


def test_without_either_it_is_a_table_of_arrow(atlas, monkeypatch):
    import pyarrow

    for library in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, library, None)
    found = atlas.frame("fc")
    assert isinstance(found, pyarrow.Table)
    assert found.num_rows == 20
