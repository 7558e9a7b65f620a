"""Hostile texts in the store and in requests: answers are JSON with the text as it is, and problems one clean line."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import set_state
from rasterembed.explorer.app import create_app
from rasterembed.explorer.settings import ExplorerSettings
from tests.support.explorer_stores import HOSTILE, write_hostile_store

REASON = " ".join(HOSTILE.values())
"""The reason why the dataset `named-2` did not pass its quality checks."""

KINDS = ("application/json", "application/geo+json", "application/problem+json", "image/png", "image/webp")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Run the service over a store of hostile texts."""
    store = write_hostile_store(tmp_path_factory.mktemp("hostile")).store
    set_state(store, Dataset.open(store, "named-2").manifest, "failed_qa", REASON)
    app = create_app(ExplorerSettings.read(store=store, device="cpu"))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as service:
        yield service


def check(answer: Any) -> Any:
    """Check that a browser takes an answer for data, whatever it holds."""
    assert answer.headers["content-type"].split(";")[0] in KINDS, answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert not hidden(answer.json()["detail"]), answer.text
    return answer


def hidden(text: str) -> list[str]:
    """Return the characters of a text that control a terminal, or that change the order of letters."""
    return [letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def test_texts_of_the_store_are_json_and_unchanged(hostile: TestClient) -> None:
    content = check(hostile.get("/api/store")).json()
    cards = {card["id"]: card for card in [*content["datasets"], *content["collections"]]}
    assert cards["named"]["raster"].endswith(f"/{HOSTILE['image']}.tif")
    assert cards["named-2"]["raster"].endswith(f"/{HOSTILE['direction']}{HOSTILE['markdown']}.tif")
    assert REASON in cards["named-2"]["qa"]["line"]
    for id, card in cards.items():
        kind = "collections" if card["scenes"] else "datasets"
        details = check(hostile.get(f"/api/{kind}/{id}")).json()
        assert (details["raster"], details["model"]) == (card["raster"], card["model"])


@pytest.mark.parametrize("view", ["datasets/named", "datasets/named-2", "collections/hostile"])
def test_no_answer_about_a_view_is_html(hostile: TestClient, view: str) -> None:
    lon, lat = place_of(check(hostile.get(f"/api/{view}")).json())
    paths = ["legend?colour=qa", "legend?colour=date", "footprints?bbox=-180,-90,180,90", "qa/pca.png"]
    paths += [f"at?lon={lon}&lat={lat}", "tiles/0/0/0.png?colour=validity", "imagery/0/0/0.webp"]
    for path in paths:
        check(hostile.get(f"/api/{view}/{path}"))
    question: dict[str, Any] = {"query": {"lonlat": [lon, lat]}, "k": 3}
    for path, body in (
        ("search", question),
        ("similarity", {"query": question["query"]}),
        ("export", question | {"format": "geojson"}),
    ):
        check(hostile.post(f"/api/{view}/{path}", json=body))
    program = hostile.post(f"/api/{view}/export", json=question | {"format": "python"})
    if program.status_code == 200:
        assert program.headers["content-type"].startswith("text/x-python")
        assert program.headers["content-disposition"].startswith("attachment")
        compile(program.text, "program", "exec")


def place_of(details: dict[str, Any]) -> tuple[float, float]:
    """Return the middle of a view."""
    west, south, east, north = details["bbox"]
    return (west + east) / 2, (south + north) / 2


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts_in_a_request_are_one_clean_line(hostile: TestClient, text: str) -> None:
    name = quote(text, safe="")
    for path in (
        f"/api/datasets/{name}",
        f"/api/{name}/named",
        f"/api/datasets/named/tile/{name}/{name}",
        f"/api/datasets/named/thumbnails/named/{name}.webp",
        f"/api/datasets/named/thumbnails/{name}/r000000_c000000.webp",
        f"/api/datasets/named/qa/{name}",
        f"/api/datasets/named/legend?colour={name}",
        f"/api/datasets/named/footprints?bbox={name}",
        f"/api/datasets/named/imagery/0/0/0.webp?since={name}",
        f"/{name}",
    ):
        assert check(hostile.get(path)).status_code >= 400, path
    for body in (
        {"query": {"tile": text}},
        {"query": {"image": text}},
        {"query": {"tile": "named/r000000_c000000"}, "where": {"scenes": [text]}},
        {"query": {"tile": "named/r000000_c000000"}, text: text},
    ):
        check(hostile.post("/api/datasets/named/search", json=body))
    answer = hostile.get("/sign-in", params={"next": f"?{text}"})
    assert text not in answer.text or "<" not in text
    assert hostile.post("/api/datasets/named/search", content=text.encode("utf-8", "surrogatepass")).status_code == 422
