"""Downloads hold exactly the tiles that the page shows, and the program gives the same answer when it runs."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from pydantic import SecretStr
from starlette.testclient import TestClient

from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.asking.requests import SearchRequest
from rasterembed.explorer.asking.snippet import search_program
from rasterembed.explorer.views import ViewKind, open_view
from rasterembed.store.object_store import ObjectStore
from tests.explorer.asking.test_search import BOX, TRIANGLE, tile_names
from tests.explorer.asking.test_search_by_image import chip, pairs, upload

PROJECT = Path(__file__).parents[3]

RUN = """
import json, sys
source = sys.stdin.read()
names = {}
exec(compile(source, "snippet", "exec"), names)
hits = [(f"{hit.dataset_id}/{hit.tile_id}", hit.distance) for hit in names["answer"].hits]
print("\\n" + json.dumps(hits))
"""


def run(program: str, folder: Path) -> list[tuple[str, float]]:
    """Run a program in a process of its own and return the tiles and distances of its answer."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=program, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [(name, distance) for name, distance in json.loads(done.stdout.splitlines()[-1])]


def body_with_everything(store: ObjectStore) -> dict[str, Any]:
    tiles = tile_names(store, "first")
    return {
        "query": {"tile": tiles[3], "like": tiles[5:7], "unlike": [tiles[9]]},
        "where": {
            "bbox": BOX,
            "polygon": {"type": "Polygon", "coordinates": [TRIANGLE]},
            "min_valid_fraction": 0.3,
            "since": "2025-01-01",
            "until": "2026-06-30",
            "scenes": ["first", "sec*"],
            "pick": "latest",
        },
        "k": 30,
    }


def export(service: TestClient, view: str, body: dict[str, Any], file_format: str) -> Any:
    response = service.post(f"/api/{view}/export", json={**body, "format": file_format})
    assert response.status_code == 200, response.text
    return response


@pytest.fixture(params=["datasets/first", "collections/survey", "datasets/dateline"])
def asked(request: pytest.FixtureRequest, service: TestClient, store: ObjectStore) -> tuple[str, dict[str, Any], Any]:
    """Return a view, the body of a question, and the answer that the page shows."""
    view: str = request.param
    if view == "collections/survey":
        body = body_with_everything(store)
    else:
        body = {"query": {"tile": tile_names(store, view.partition("/")[2])[1]}, "k": 9}
    return view, body, service.post(f"/api/{view}/search", json=body).json()


def test_geojson_has_the_tiles_of_the_page(service: TestClient, asked: tuple[str, dict[str, Any], Any]) -> None:
    view, body, answer = asked
    response = export(service, view, body, "geojson")
    assert response.headers["content-type"] == "application/geo+json"
    name = view.partition("/")[2]
    assert response.headers["content-disposition"] == f'attachment; filename="{name}-nearest.geojson"'
    frame = geopandas.read_file(io.BytesIO(response.content))
    assert list(zip(frame["dataset_id"] + "/" + frame["tile_id"], frame["distance"], strict=True)) == pairs(answer)
    assert len(frame) > 5
    shown = shapely.from_geojson([json.dumps(feature["geometry"]) for feature in answer["features"]])
    assert shapely.equals(frame.geometry.to_numpy(), shown).all()


def test_geoparquet_has_the_tiles_of_the_page(service: TestClient, asked: tuple[str, dict[str, Any], Any]) -> None:
    view, body, answer = asked
    response = export(service, view, body, "geoparquet")
    assert response.headers["content-type"] == "application/vnd.apache.parquet"
    assert response.headers["content-disposition"].endswith('-nearest.parquet"')
    table = pq.read_table(io.BytesIO(response.content))
    names = [f"{row['dataset_id']}/{row['tile_id']}" for row in table.select(["dataset_id", "tile_id"]).to_pylist()]
    assert list(zip(names, table["distance"].to_pylist(), strict=True)) == pairs(answer)
    frame = geopandas.read_parquet(io.BytesIO(response.content))
    assert frame.crs == "OGC:CRS84"
    shown = shapely.from_geojson([json.dumps(feature["geometry"]) for feature in answer["features"]])
    assert shapely.equals(frame.geometry.to_numpy(), shown).all()


def test_an_answer_without_tiles_can_be_downloaded(service: TestClient, store: ObjectStore) -> None:
    body = {"query": {"tile": tile_names(store, "first")[0]}, "where": {"bbox": [0, 0, 1, 1]}}
    assert json.loads(export(service, "datasets/first", body, "geojson").content)["features"] == []
    assert pq.read_table(io.BytesIO(export(service, "datasets/first", body, "geoparquet").content)).num_rows == 0


@pytest.mark.parametrize("view", [pytest.param("datasets/first", marks=pytest.mark.slow), "collections/survey"])
def test_the_program_gives_the_same_answer(service: TestClient, store: ObjectStore, tmp_path: Path, view: str) -> None:
    body = body_with_everything(store)
    if view == "datasets/first":
        body["where"]["pick"] = "all"
    response = export(service, view, body, "python")
    assert response.headers["content-type"] == "text/x-python; charset=utf-8"
    assert response.headers["content-disposition"].endswith('-nearest.py"')
    shown = pairs(service.post(f"/api/{view}/search", json=body).json())
    assert len(shown) > 3
    assert run(response.text, tmp_path) == shown
    assert list(tmp_path.rglob("*.geojson")) == []


@pytest.mark.slow
def test_the_program_of_an_image_gives_the_same_answer(service: TestClient, photo: Dataset, tmp_path: Path) -> None:
    body = {"query": {"image": upload(service, chip("JPEG", quality=60)).json()["image"]}, "k": 6}
    shown = pairs(service.post("/api/datasets/photo/search", json=body).json())
    found = run(export(service, "datasets/photo", body, "python").text, tmp_path)
    assert [name for name, _ in found] == [name for name, _ in shown]
    # The service and the program compute the vector in processes with other numbers of threads.
    np.testing.assert_allclose([far for _, far in found], [far for _, far in shown], atol=1e-6)


HOSTILE = [
    '"); import os; os._exit(7) #',
    "'); import os; os._exit(7) #",
    '"""\nimport os; os._exit(7)\n"""',
    "\\",
    "\\'\n",
    "{os._exit(7)}",
    "\u202e\u2028\x00\x1b[31m",
    "%s%n",
]
"""Texts that would be code if they were not written as literals."""


def test_hostile_texts_stay_texts_in_the_program(store: ObjectStore) -> None:
    request = SearchRequest.model_validate(
        {"query": {"tile": tile_names(store, "first")[0]}, "where": {"scenes": [*HOSTILE, "first"]}, "k": 2}
    )
    view = open_view(store, ViewKind.COLLECTIONS, "survey", "1")
    program = search_program(view, request, None)
    assert program.isascii()
    calls = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)]
    where = next(call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Where")
    assert ast.literal_eval(where.keywords[0].value) == [*HOSTILE, "first"]
    assert sorted(ast.unparse(call.func) for call in calls) == [
        "CollectionSearcher", "ObjectStore", "Query", "Where", "print", "searcher.ask",
    ]  # fmt: skip
    names: dict[str, Any] = {}
    exec(compile(program, "program", "exec"), names)  # If a text were code, it would end this process.
    assert len(names["answer"].hits) == 2


def test_the_program_of_a_store_on_s3_holds_no_key(store: ObjectStore) -> None:
    secret = "the-secret-key"
    remote = ObjectStore(
        root="s3://bucket/it's",
        endpoint_url="http://localhost:9",
        region="eu-1",
        access_key=SecretStr("me"),
        secret_key=SecretStr(secret),
    )
    request = SearchRequest.model_validate({"query": {"tile": "r000000_c000000"}})
    view = open_view(store, ViewKind.DATASETS, "first", "1")
    view.store = remote
    program = search_program(view, request, None)
    assert secret not in program
    assert "AWS_SECRET_ACCESS_KEY" in program
    names: dict[str, Any] = {}
    line = next(line for line in program.splitlines() if line.startswith("store = "))
    exec(f"from rasterembed import ObjectStore\n{line}", names)
    assert names["store"] == remote.model_copy(update={"access_key": None, "secret_key": None})


def test_a_question_with_an_error_gives_no_program(service: TestClient) -> None:
    body = {"query": {"tile": "r999999_c999999"}, "format": "python"}
    assert service.post("/api/datasets/first/export", json=body).status_code == 422


def test_an_unknown_format_is_a_problem(service: TestClient, store: ObjectStore) -> None:
    body = {"query": {"tile": tile_names(store, "first")[0]}, "format": "exe"}
    problem = service.post("/api/datasets/first/export", json=body).json()
    assert problem["status"] == 422
    assert "format" in problem["detail"]
