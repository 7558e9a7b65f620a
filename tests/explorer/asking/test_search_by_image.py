"""A dropped image is the example of a search, and its answer is that of the library."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from starlette.testclient import TestClient

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.app import create_app
from rasterembed.explorer.settings import ExplorerSettings, Limits
from rasterembed.search.chip import MAX_SIDE
from rasterembed.search.query import Query
from rasterembed.store.object_store import ObjectStore
from tests.explorer.asking.conftest import PHOTO_SIDE, photo_pixels

TILE = "r000002_c000001"


def chip(kind: str, side: int = PHOTO_SIDE, **options: Any) -> bytes:
    """Return the pixels of `TILE`, and of tiles around it if `side` is larger, as a picture."""
    row, col = 2 * PHOTO_SIDE, PHOTO_SIDE
    pixels = photo_pixels()[:, row : row + side, col : col + side]
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1))).save(data, kind, **options)
    return data.getvalue()


def upload(service: TestClient, data: bytes, kind: str = "datasets", id: str = "photo") -> Any:
    return service.post(f"/api/{kind}/{id}/images", content=data, headers={"Content-Type": "image/png"})


def pairs(answer: Any) -> list[tuple[str, float]]:
    return [(feature["id"], feature["properties"]["distance"]) for feature in answer["features"]]


@pytest.mark.parametrize("kind", ["datasets", "collections"])
@pytest.mark.parametrize("file", ["PNG", "JPEG", "TIFF"])
def test_an_image_has_the_answer_of_the_library(
    service: TestClient, photo: Dataset, tmp_path: Path, kind: str, file: str
) -> None:
    id = "photo" if kind == "datasets" else "photos"
    data = chip(file)
    uploaded = upload(service, data, kind, id)
    assert uploaded.status_code == 200, uploaded.text
    digest = hashlib.sha256(data).hexdigest()
    assert uploaded.json() == {"image": digest, "width": PHOTO_SIDE, "height": PHOTO_SIDE, "remark": ""}

    query = {"image": digest, "unlike": ["photo/r000000_c000000"]}
    answer = service.post(f"/api/{kind}/{id}/search", json={"query": query, "k": 5}).json()
    path = tmp_path / "chip"
    path.write_bytes(data)
    view = photo if kind == "datasets" else Collection.open(photo.store, id)
    wanted = view.search(Query(image=str(path), unlike=("photo/r000000_c000000",)), k=5)
    assert pairs(answer) == [(f"{hit.dataset_id}/{hit.tile_id}", hit.distance) for hit in wanted.hits]
    assert answer["query"] == f"image {digest[:12]}; unlike photo/r000000_c000000"
    assert answer["examples"][0] == {"role": "query", "tile": None, "image": digest, "lonlat": None, "remark": ""}
    assert str(tmp_path) not in str(answer)


def test_a_webp_chip_finds_its_own_tile(service: TestClient, photo: Dataset) -> None:
    digest = upload(service, chip("WEBP", lossless=True, exact=True)).json()["image"]
    answer = service.post("/api/datasets/photo/search", json={"query": {"image": digest}, "k": 1}).json()
    assert answer["features"][0]["id"] == f"photo/{TILE}"
    assert answer["features"][0]["properties"]["distance"] == pytest.approx(0, abs=1e-6)


def test_a_restarted_service_knows_the_image(service: TestClient, photo: Dataset, store: ObjectStore) -> None:
    body = {"query": {"image": upload(service, chip("PNG")).json()["image"]}}
    settings = ExplorerSettings.read(store=store, device="cpu")
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as restarted:
        again = restarted.post("/api/datasets/photo/search", json=body).json()
    assert pairs(again) == pairs(service.post("/api/datasets/photo/search", json=body).json())


def test_the_page_does_not_show_the_paths_of_the_service(
    service: TestClient, photo: Dataset, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = own_cache / "rasterembed/explorer/images"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(own_cache)
    response = service.post("/api/datasets/photo/images", content=chip("PNG"))
    assert (response.status_code, response.json()["type"]) == (502, "store-refused")
    assert response.json()["detail"].startswith("<cache folder>/explorer/images: it is not a folder of this user")
    assert str(folder) in caplog.text


def test_an_image_that_is_gone_is_a_problem_that_asks_for_it_again(
    service: TestClient, photo: Dataset, own_cache: Path
) -> None:
    digest = upload(service, chip("PNG")).json()["image"]
    os.unlink(own_cache / "rasterembed/explorer/images" / digest)
    response = service.post("/api/datasets/photo/search", json={"query": {"image": digest}})
    assert (response.status_code, response.json()["type"]) == (404, "unknown-image")
    assert "send the image again" in response.json()["detail"]


def test_a_much_larger_image_has_a_remark(service: TestClient, photo: Dataset) -> None:
    large = io.BytesIO()
    Image.effect_noise((200, 150), 50).convert("RGB").save(large, "PNG")
    uploaded = upload(service, large.getvalue()).json()
    assert (uploaded["width"], uploaded["height"]) == (200, 150)
    assert "only the central square of 150 px was used" in uploaded["remark"]
    answer = service.post("/api/datasets/photo/search", json={"query": {"image": uploaded["image"]}}).json()
    assert answer["examples"][0]["remark"] == uploaded["remark"]
    assert f"{uploaded['image'][:12]}: {uploaded['remark']}" in answer["notes"]


def test_weights_that_cannot_be_loaded_are_one_clear_line(service: TestClient, store: ObjectStore) -> None:
    uploaded = upload(service, chip("PNG"), "datasets", "first")
    body = {"query": {"image": uploaded.json()["image"]}}
    response = service.post("/api/datasets/first/search", json=body)
    assert response.status_code == 409, response.text
    detail = response.json()["detail"]
    assert "\n" not in detail
    assert "model" in detail


def tiff(width: int, height: int, dtype: str = "uint8") -> bytes:
    """Return a TIFF without blocks. It is small, however many pixels it says it has."""
    with rasterio.MemoryFile() as memory:
        blocks = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "sparse_ok": True}
        place = Affine(10, 0, 360_000, 0, -10, 6_720_000)
        with memory.open(
            driver="GTiff", width=width, height=height, count=3, dtype=dtype, transform=place, **blocks
        ) as file:
            file.update_tags(note="no block is written")
        return bytes(memory.read())


def png(width: int, height: int) -> bytes:
    """Return the beginning of a PNG of any size. Its pixels are all zero, and compress to almost nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    pixels = zlib.compress(bytes(2**20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "not an image"),
    "a text": (b"hello, world, how are you", "not an image"),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "not an image"),
    "a VRT": (b"<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>", "not an image"),
    "half a PNG": (lambda: chip("PNG")[:200], "cannot be read"),
    "half a JPEG": (lambda: chip("JPEG")[:100], "not a raster"),
    "a PNG of two billion pixels": (lambda: png(50_000, 50_000), "the dropped image: the header declares 50000x50000"),
    "a TIFF of ten billion pixels": (
        lambda: tiff(100_000, 100_000),
        "the dropped image: the header declares 100000x100000",
    ),
    "a TIFF of many pixels": (lambda: tiff(MAX_SIDE + 1, 8), "too large"),
    "a TIFF of other values": (lambda: tiff(32, 32, "float32"), "its pixels are float32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_no_example_is_refused_in_one_line(
    service: TestClient, photo: Dataset, own_cache: Path, case: str
) -> None:
    data, words = REFUSED[case]
    response = upload(service, data if isinstance(data, bytes) else data())
    assert response.status_code == 422, response.text
    detail = response.json()["detail"]
    assert words in detail
    assert "\n" not in detail
    assert str(own_cache) not in detail
    assert [path for path in own_cache.rglob("explorer/images/*") if path.is_file()] == []


def test_a_body_above_the_limit_is_refused(store: ObjectStore) -> None:
    settings = ExplorerSettings.read(store=store, limits=Limits(image_bytes=2000))
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as small:
        response = upload(small, chip("PNG", 64))
        assert (response.status_code, response.json()["type"]) == (413, "too-large")


def test_a_slow_upload_keeps_no_search_waiting_and_uploads_are_bounded(store: ObjectStore, photo: Dataset) -> None:
    settings = ExplorerSettings.read(store=store, device="cpu", limits=Limits(uploads=1, searches=1, wait_s=0.2))
    data = chip("PNG")

    async def ask() -> None:
        began, goes_on = asyncio.Event(), asyncio.Event()

        async def slow_body() -> AsyncIterator[bytes]:
            yield data[:50]
            began.set()
            await goes_on.wait()
            yield data[50:]

        transport = httpx.ASGITransport(create_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            path = "/api/datasets/photo"
            slow = asyncio.create_task(client.post(f"{path}/images", content=slow_body()))
            await began.wait()
            refused = await client.post(f"{path}/images", content=data)
            assert (refused.status_code, refused.json()["type"]) == (503, "busy")
            body = {"query": {"tile": f"photo/{TILE}"}}
            assert (await client.post(f"{path}/search", json=body)).status_code == 200
            goes_on.set()
            assert (await slow).status_code == 200

    asyncio.run(ask())
