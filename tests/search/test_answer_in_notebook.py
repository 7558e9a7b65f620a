"""An answer as a table of pandas and GeoPandas, and as HTML with pictures in a notebook."""

from __future__ import annotations

import base64
import io
import pickle
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from markdown_it import MarkdownIt
from PIL import Image

from rasterembed.errors import UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.search import answer_table
from rasterembed.search.answer import Answer
from rasterembed.search.answer_markdown import answer_markdown
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import search
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import SIDE, blank_raster, checkpoint, write_dataset

COLOURS = np.array([[250, 20, 20], [20, 220, 20], [20, 20, 240], [200, 200, 30]], np.uint8)
"""Colour of each tile, shape (tiles, 3)."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a store with a dataset whose four tiles have one colour each."""
    raster = blank_raster(tmp_path / "r.tif", 2, 2, when="2024:07:03 09:41:00")
    with rasterio.open(raster, "r+") as target:
        target.write(COLOURS.T.reshape(3, 2, 2).repeat(SIDE, 1).repeat(SIDE, 2))
    vectors = np.random.default_rng(6).standard_normal((4, 8)).astype(np.float32)
    store = ObjectStore(root=str(tmp_path / "store"))
    write_dataset(store, "made", raster, Dinov3(model=str(checkpoint(tmp_path / "model", 8))), vectors)
    return tmp_path


@pytest.fixture
def answer(folder: Path) -> Answer:
    return search(ObjectStore(root=str(folder / "store")), ["made"], Query(tile="r000000_c000000"), k=3)


class Page(HTMLParser):
    """The cells and pictures of an answer's HTML."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.pictures: list[Image.Image] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")
        elif tag == "img":
            kind, _, data = str(dict(attrs)["src"]).partition(";base64,")
            assert kind == "data:image/webp"
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_a_frame_has_a_row_for_each_tile(answer: Answer) -> None:
    frame = answer.to_dataframe()
    assert frame["rank"].tolist() == [1, 2, 3]
    assert frame["dataset_id"].tolist() == ["made"] * 3
    for name in ("tile_id", "distance", "lon", "lat", "row", "col", "width", "valid_fraction"):
        assert frame[name].tolist() == [getattr(hit, name) for hit in answer.hits]
    assert frame["model"].unique().tolist() == [answer.model]
    assert frame["acquired"].dt.strftime("%Y-%m-%dT%H:%M%z").unique().tolist() == ["2024-07-03T09:41+0000"]


def test_a_geodataframe_has_the_footprints(answer: Answer, folder: Path) -> None:
    frame = answer.to_geodataframe()
    assert frame.crs.to_authority() == ("OGC", "CRS84")
    for hit, geometry in zip(answer.hits, frame.geometry, strict=True):
        assert geometry.equals(shapely.from_wkb(hit.geometry))
    empty = search(
        ObjectStore(root=str(folder / "store")), ["made"], Query(tile="r000000_c000000"), Where(bbox=(0, 0, 1, 1))
    )
    assert len(empty.to_geodataframe()) == 0
    assert empty.to_dataframe().columns.tolist() == answer.to_dataframe().columns.tolist()


def test_without_pandas_the_error_says_what_to_install(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pandas is not installed: pip install pandas"):
        answer.to_dataframe()


def test_html_shows_each_tile_in_its_colour(answer: Answer) -> None:
    page = Page(answer._repr_html_())
    assert [row[3] for row in page.rows[1:]] == [hit.tile_id for hit in answer.hits]
    assert [row[2] for row in page.rows[1:]] == ["made"] * 3
    for hit, picture in zip(answer.hits, page.pictures, strict=True):
        middle = np.asarray(picture.convert("RGB"))[40:56, 40:56].mean(axis=(0, 1))
        np.testing.assert_allclose(middle, COLOURS[2 * hit.row + hit.col], atol=12)  # WebP loses a little.


def test_a_raster_that_is_gone_leaves_rows_without_pictures(answer: Answer, folder: Path) -> None:
    (folder / "r.tif").unlink()
    html = answer._repr_html_()
    page = Page(html)
    assert page.pictures == []
    assert [row[3] for row in page.rows[1:]] == [hit.tile_id for hit in answer.hits]
    assert f"no picture of the tiles of made: {folder}/r.tif: there is no such file" in html


def test_pictures_and_rows_are_bounded(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_table, "MAX_PICTURES", 1)
    monkeypatch.setattr(answer_table, "MAX_ROWS", 2)
    html = answer._repr_html_()
    page = Page(html)
    assert len(page.pictures) == 1
    assert len(page.rows) == 1 + 2
    assert "2 of 3 tiles are shown" in html


def test_html_shows_texts_letter_by_letter(answer: Answer) -> None:
    hostile = '<script>alert(1)</script><img src="http://evil.example/x.png">'
    hits = tuple(hit.model_copy(update={"dataset_id": hostile, "tile_id": hostile}) for hit in answer.hits)
    page = Page(answer.model_copy(update={"model": hostile, "query": hostile, "hits": hits})._repr_html_())
    assert "script" not in page.tags
    assert page.pictures == []
    assert page.rows[1][2] == hostile


def test_a_stored_answer_holds_no_key_of_the_store(folder: Path) -> None:
    store = ObjectStore(root=str(folder / "store"), access_key="a", secret_key="very-secret")
    answer = search(store, ["made"], Query(tile="r000000_c000000"), k=3)
    stored = pickle.dumps(answer)
    assert b"very-secret" not in stored
    assert "very-secret" not in answer.model_dump_json() + repr(answer)
    assert pickle.loads(stored) == answer
    assert pickle.loads(stored)._repr_html_().count("<img") == 0


def test_markdown_shows_texts_letter_by_letter(answer: Answer) -> None:
    """Prefect's pages show this Markdown, and its texts come from files."""
    evil = "<img src=x> ![x](http://host/y.png) | `a` [b](c)"
    hits = [hit.model_copy(update={"tile_id": evil}) for hit in answer.hits]
    page = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(answer_markdown(answer.model_copy(update={"query": evil, "hits": tuple(hits)}), []))
    )
    assert Page(page).tags == {"p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert [row[3] for row in Page(page).rows[1:]] == [evil] * 3


@pytest.mark.parametrize(
    ("distance", "text"), [(0.0, "0"), (3.14159e-7, "0.000000314"), (1.2345678e-4, "0.000123"), (1.5, "1.500000")]
)
def test_distances_of_close_tiles_differ_in_their_text(distance: float, text: str, answer: Answer) -> None:
    assert answer.hits[0].model_copy(update={"distance": distance}).distance_text() == text
