"""Wrong requests are clear problems, and no request causes unbounded work."""

from __future__ import annotations

import io
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from rasterio.windows import Window
from starlette.testclient import TestClient

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError, StoreUnavailableError
from rasterembed.explorer.imagery import open_rasters
from rasterembed.explorer.imagery.drawing import Drawing, draw
from rasterembed.explorer.imagery.open_rasters import MOST_OF_ONE, OpenRasters
from rasterembed.explorer.imagery.reading import MAX_DECODED_BYTES
from rasterembed.explorer.imagery.view_imagery import imagery_of
from rasterembed.explorer.map_tile import MapTile
from rasterembed.explorer.views import ViewKind, Views
from rasterembed.raster.grid import Grid
from rasterembed.raster.pixels import Pixels
from rasterembed.search.thumbnails import thumbnails
from rasterembed.search.tile_lookup import Tile
from rasterembed.store import https
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.server_settings import SourceStore
from tests.explorer.imagery.conftest import Store, path_of, tile_at
from tests.store.test_source_store import archive
from tests.support.rasters import write
from tests.support.web_server import make_certificate, set_names, web_server

PLACE = Affine(10, 0, 500_000, 0, -10, 6_700_000)

INSIDE = tile_at(27.01, 60.43, 12)
"""A map tile that shows the raster `noise`."""


@pytest.fixture(scope="module")
def noise(made: Store) -> Path:
    """Write the dataset `noise`, and return its raster."""
    pixels = np.random.default_rng(0).integers(1, 256, (3, 128, 160)).astype(np.uint8)
    pixels[:, :40, :40] = 0
    path = write(made.folder / "noise.tif", pixels, transform=PLACE, nodata=0)
    made.add("noise", path, Grid(size=64))
    return path


def problem(service: TestClient, path: str, **parameters: Any) -> tuple[int, str]:
    """Return status and type of a problem."""
    answer = service.get(path, params=parameters)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert "\n" not in answer.json()["detail"]
    return answer.status_code, answer.json()["type"]


@pytest.mark.parametrize(
    "tile",
    [
        *("25/0/0", "-1/0/0", "3/8/0", "3/0/8", "3/-1/0", "0/0/1", "24/16777216/0", "3/1e0/0"),
        "9" * 40 + "/0/0",
        "3/" + "9" * 4000 + "/0",
    ],
    ids=range(10),
)
def test_map_tiles_that_do_not_exist_are_refused(noise: Path, service: TestClient, tile: str) -> None:
    assert problem(service, f"/api/datasets/noise/imagery/{tile}.webp") == (422, "wrong-request")


@pytest.mark.parametrize("times", [{"since": "yesterday"}, {"until": "2024-13-01"}, {"since": "9" * 100}])
def test_wrong_times_are_refused(noise: Path, service: TestClient, times: dict[str, str]) -> None:
    assert problem(service, "/api/datasets/noise/imagery/0/0/0.webp", **times) == (422, "wrong-request")


@pytest.mark.parametrize(
    "tile_id", ["r000009_c000000", "r0_c0", "x+000001_y+000001", "..%2Fmanifest", "r000000_c000000%00"]
)
def test_unknown_tiles_are_not_found(noise: Path, service: TestClient, tile_id: str) -> None:
    status, _ = problem(service, f"/api/datasets/noise/thumbnails/noise/{tile_id}.webp")
    assert status == 404


def test_wrong_names_and_sizes_are_refused(noise: Path, service: TestClient) -> None:
    good = "/api/datasets/noise/thumbnails/noise/r000000_c000000.webp"
    assert problem(service, good, side=100_000) == (422, "wrong-request")
    assert problem(service, good, side=0) == (422, "wrong-request")
    assert problem(service, "/api/datasets/noise/thumbnails/other/r000000_c000000.webp") == (404, "unknown-tile")
    assert problem(service, "/api/datasets/other/imagery/0/0/0.webp") == (404, "unknown-view")


def test_map_tiles_beside_the_raster_are_transparent(noise: Path, service: TestClient) -> None:
    for tile in ("20/0/0", "24/16777215/16777215", "24/0/16777215"):
        answer = service.get(f"/api/datasets/noise/imagery/{tile}.webp")
        assert answer.status_code == 200
        image = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))
        assert image.shape == (512, 512, 4)
        assert not image[..., 3].any()


def test_a_dataset_without_a_time_is_not_drawn_if_times_are_asked_for(noise: Path, service: TestClient) -> None:
    answer = service.get(f"/api/datasets/noise/imagery/{path_of(INSIDE)}.webp", params={"since": "2020-01-01"})
    assert not np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))[..., 3].any()


def test_thumbnails_are_those_of_the_library(noise: Path, service: TestClient, made: Store) -> None:
    dataset = Dataset.open(made.store, "noise")
    for tile_id, left, top, width in (("r000000_c000000", 0, 0, 64), ("r000001_c000002", 128, 64, 32)):
        answer = service.get(f"/api/datasets/noise/thumbnails/noise/{tile_id}.webp", params={"side": 96})
        assert answer.status_code == 200
        found = Image.open(io.BytesIO(answer.content))
        tile = Tile(dataset_id="noise", tile_id=tile_id, col_off=left, row_off=top, width=width, height=64)
        wanted = thumbnails(dataset, [tile], 96)["noise", tile_id]
        assert found.size == wanted.size == (96, 96)
        difference = np.asarray(found.convert("RGB")).astype(int) - np.asarray(wanted)
        # Of noise, a lossy picture keeps little more than the brightness.
        assert np.abs(difference).mean() < 30


@pytest.fixture(scope="module")
def huge(made: Store) -> Dataset:
    """Write a raster of 40,000 x 40,000 px without overviews. Its file has no blocks."""
    path = made.folder / "huge.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=40_000, height=40_000, count=3, dtype="uint8", crs="EPSG:32635",
        transform=Affine(1, 0, 500_000, 0, -1, 6_700_000), tiled=True, compress="zstd", sparse_ok=True,
    ) as file:  # fmt: skip
        file.write(np.full((3, 512, 512), 77, np.uint8), window=Window(20_000, 20_000, 512, 512))
    return made.add("huge", path, Grid(size=4096))


def test_a_large_raster_without_overviews_is_read_in_bounded_windows(
    huge: Dataset, service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Window] = []
    read = Pixels.read_by_band

    def recorded(self: Pixels, bands: Any, window: Window, shape: Any = None) -> Any:
        reads.append(window)
        assert shape[0] * shape[1] <= 3 * 1024**2
        return read(self, bands, window, shape)

    monkeypatch.setattr(Pixels, "read_by_band", recorded)
    details = service.get("/api/datasets/huge").json()
    lon, lat = huge.lonlat(20_000, 20_000) or (0.0, 0.0)
    drawn = {}
    for zoom in range(details["max_zoom"] + 3):
        reads.clear()
        answer = service.get(f"/api/datasets/huge/imagery/{path_of(tile_at(lon, lat, zoom))}.webp")
        assert answer.status_code == 200
        drawn[zoom] = bool(np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))[..., 3].any())
        assert all(3 * window.width * window.height <= MAX_DECODED_BYTES for window in reads)
    assert 0 < details["min_zoom"] < details["max_zoom"]
    assert all(drawn[zoom] for zoom in range(details["min_zoom"], len(drawn)))
    # At zoom 0, the raster is smaller than a pixel, and only this pixel is read.
    assert not any(drawn[zoom] for zoom in range(1, details["min_zoom"] - 2)), drawn


def test_overviews_that_a_plan_only_claims_are_not_trusted(huge: Dataset) -> None:
    profile = huge.plan.profile.model_copy(update={"overviews": (2, 4, 8, 16, 32, 64, 128)})
    claimed = Dataset(huge.store, huge.manifest)
    claimed.__dict__["plan"] = huge.plan.model_copy(update={"profile": profile})
    rasters = OpenRasters()
    with rasters.use(claimed, on_grid=False) as raster:
        lon, lat = huge.lonlat(20_000, 20_000) or (0.0, 0.0)
        assert not draw(raster, tile_at(lon, lat, 5)).valid.any()
        assert draw(raster, tile_at(lon, lat, 15)).valid.any()
    rasters.close()


def test_a_raster_that_is_gone_or_changed_is_a_clear_problem(made: Store, service: TestClient) -> None:
    pixels = np.random.default_rng(1).integers(1, 256, (3, 64, 64)).astype(np.uint8)
    path = write(made.folder / "moving.tif", pixels, transform=PLACE)
    made.add("moving", path, Grid(size=64))

    def tile(zoom: int) -> str:
        return f"/api/datasets/moving/imagery/{path_of(tile_at(27.002, 60.43, zoom))}.webp"

    assert service.get(tile(12)).status_code == 200
    path.rename(path.with_suffix(".away"))
    assert problem(service, tile(14)) == (404, "raster-gone")
    assert problem(service, "/api/datasets/moving/thumbnails/moving/r000000_c000000.webp") == (404, "raster-gone")
    shutil.copy(path.with_suffix(".away"), path)
    assert problem(service, tile(14)) == (404, "raster-gone")
    path.with_suffix(".away").replace(path)
    assert service.get(tile(14)).status_code == 200
    assert service.get("/api/datasets/moving/thumbnails/moving/r000000_c000000.webp").status_code == 200


@pytest.mark.parametrize("way", ["overwritten", "replaced", "cut off", "deleted"])
def test_a_raster_that_is_replaced_while_it_is_drawn_is_a_clear_problem(
    made: Store, service: TestClient, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    name = f"replaced-{way.replace(' ', '-')}"
    path, other = made.folder / f"{name}.tif", made.folder / f"{name}-other.tif"
    for number, file in enumerate((path, other)):
        pixels = np.random.default_rng(number).integers(1, 256, (3, 64, 64)).astype(np.uint8)
        write(file, pixels, transform=PLACE)
    assert path.stat().st_size == other.stat().st_size
    made.add(name, path, Grid(size=64))

    def tile(zoom: int) -> str:
        return f"/api/datasets/{name}/imagery/{path_of(tile_at(27.002, 60.43, zoom))}.webp"

    assert service.get(tile(12)).status_code == 200  # The raster is open now.
    drawn = []

    def replace_and_draw(raster: open_rasters.OpenRaster, at: MapTile) -> Drawing:
        match way:
            case "overwritten":
                path.write_bytes(other.read_bytes())
            case "replaced":
                other.replace(path)
            case "cut off":
                os.truncate(path, 500)
            case "deleted":
                path.unlink()
        drawn.append(at)
        return draw(raster, at)

    with monkeypatch.context() as patch:
        patch.setattr("rasterembed.explorer.imagery.view_imagery.draw", replace_and_draw)
        assert problem(service, tile(14)) == (404, "raster-gone")
    assert len(drawn) == 1
    # Nothing of it was kept.
    assert problem(service, tile(14)) == (404, "raster-gone")


def test_a_damaged_block_is_a_problem_that_names_the_raster(made: Store, rasters: Path, service: TestClient) -> None:
    dataset = made.add("corrupt", rasters / "corrupt.tif", Grid(size=512))
    lon, lat = dataset.lonlat(512, 512) or (0.0, 0.0)
    answer = service.get(f"/api/datasets/corrupt/imagery/{path_of(tile_at(lon, lat, 17))}.webp")
    assert (answer.status_code, answer.json()["type"]) == (409, "not-usable")
    assert "corrupt.tif" in answer.json()["detail"]


def test_each_thumbnail_of_a_damaged_block_is_a_problem(made: Store, service: TestClient) -> None:
    """GDAL keeps the wrong pixels of the block, so the raster may not stay open."""
    pixels = np.random.default_rng(3).integers(1, 256, (3, 128, 256)).astype(np.uint8)
    blocks = {"compress": "jpeg", "photometric": "YCbCr", "tiled": True, "blockxsize": 128, "blockysize": 128}
    path = write(made.folder / "damaged.tif", pixels, transform=PLACE, **blocks)
    with rasterio.open(path) as dataset:
        start, size = (int(dataset.get_tag_item(f"BLOCK_{key}_1_0", "TIFF", bidx=1)) for key in ("OFFSET", "SIZE"))
    content = bytearray(path.read_bytes())
    content[start + size // 2 : start + size // 2 + 2] = b"\xff\xd9"  # The marker that ends a JPEG image.
    path.write_bytes(content)
    made.add("damaged", path, Grid(size=64))
    assert service.get("/api/datasets/damaged/thumbnails/damaged/r000001_c000000.webp").status_code == 200
    for tile in ("r000001_c000002", "r000001_c000003", "r000001_c000002"):
        assert problem(service, f"/api/datasets/damaged/thumbnails/damaged/{tile}.webp") == (409, "not-usable")
    assert service.get("/api/datasets/damaged/thumbnails/damaged/r000001_c000001.webp").status_code == 200


def test_a_store_on_s3_may_not_name_local_files(noise: Path, made: Store) -> None:
    dataset = Dataset.open(made.store, "noise")
    plan = dataset.plan
    elsewhere = Dataset(ObjectStore(root="s3://archive/results"), dataset.manifest)
    elsewhere.__dict__["plan"] = plan
    rasters = OpenRasters()
    with (
        pytest.raises(DataError, match="may name local files only with your permission"),
        rasters.use(elsewhere, on_grid=False),
    ):
        pass


def test_a_raster_on_s3_is_opened_once_for_many_map_tiles(made: Store, noise: Path) -> None:
    with archive({"archive/noise.tif": noise.read_bytes()}) as server:
        source = SourceStore(endpoint_url=server.url, anonymous=True)
        remote = Store(made.folder / "remote")
        remote.store = ObjectStore(root=remote.store.root, source_store=source)
        dataset = remote.add("noise", "s3://archive/noise.tif", Grid(size=64))
        rasters, requests = OpenRasters(), []
        for number in range(6):
            with rasters.use(dataset, on_grid=number % 2 == 1) as raster:
                assert draw(raster, tile_at(27.003 + 0.005 * (number % 3), 60.43, 14)).valid.any()
            requests.append(len(server.headers))
        rasters.close()
    # Later map tiles need neither the header nor, because the file is small, any other bytes. Each of them only asks
    # once whether the raster has changed.
    assert requests[0] > 0
    assert requests[-1] == requests[2] + 3


def test_a_web_server_that_fails_while_pixels_are_read_is_named(
    made: Store, noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, certificate = make_certificate(tmp_path, "data.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.setattr(https, "RETRY_DELAYS_S", (0.0,))
    set_names(monkeypatch, {"data.test": [["127.0.0.1"]]})
    with rasterio.open(noise) as file:
        pixels = np.tile(file.read(), (1, 8, 8))
    with web_server(certificate) as site:
        site.files["/a.tif"] = write(
            tmp_path / "a.tif", pixels, transform=PLACE, driver="COG", compress="deflate", blocksize=128
        ).read_bytes()
        source = SourceStore(https_hosts=(f"data.test:{site.port}",), https_private=True)
        remote = Store(tmp_path / "remote")
        remote.store = ObjectStore(root=remote.store.root, source_store=source)
        dataset = remote.add("web", site.url("/a.tif"), Grid(size=256))
        rasters = OpenRasters()
        near, far = tile_at(27.003, 60.43, 15), tile_at(27.15, 60.36, 15)
        with rasters.use(dataset, on_grid=False) as raster:
            assert draw(raster, near).valid.any()

        def draw_while_it_fails() -> None:
            with rasters.use(dataset, on_grid=False) as raster:
                site.scripts["/a.tif"] = lambda handler: handler.send(500, b"")
                draw(raster, far)

        with pytest.raises(StoreUnavailableError, match="does not answer now"):
            draw_while_it_fails()
        del site.scripts["/a.tif"]
        with rasters.use(dataset, on_grid=False) as raster:
            assert draw(raster, far).valid.any()
        rasters.close()
    assert set(site.paths) <= {"/a.tif", "/a.tif.msk"}


def test_few_rasters_stay_open_and_few_threads_read_the_same_one(
    noise: Path, made: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.open(made.store, "noise")
    rasters, before = OpenRasters(), set(threading.enumerate())
    at_once, most, lock = 0, 0, threading.Lock()

    def work(number: int) -> bool:
        nonlocal at_once, most
        with rasters.use(dataset, on_grid=False) as raster:
            with lock:
                at_once += 1
                most = max(most, at_once)
            found = draw(raster, INSIDE)
            with lock:
                at_once -= 1
        return bool(found.valid.any())

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(work, range(32)))) == 1
    assert most <= MOST_OF_ONE
    assert len(rasters._idle) <= MOST_OF_ONE
    monkeypatch.setattr(open_rasters, "MOST_OPEN", 6)
    for number in range(9):
        made.add(f"noise-{number}", noise, Grid(size=64))
        with rasters.use(Dataset.open(made.store, f"noise-{number}"), on_grid=False):
            pass
    assert len(rasters._idle) == 6
    rasters.close()
    own = [thread for thread in set(threading.enumerate()) - before if thread.name == "raster"]
    for thread in own:
        thread.join(120)
    assert not any(thread.is_alive() for thread in own)


def test_a_raster_that_is_read_too_slowly_is_given_up(
    noise: Path, made: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, rasters, answered = Dataset.open(made.store, "noise"), OpenRasters(), threading.Event()
    with rasters.use(dataset, on_grid=False) as first:
        pass
    monkeypatch.setattr(open_rasters, "READ_S", 0.05)
    with pytest.raises(StoreUnavailableError, match="was not read within"), rasters.use(dataset, on_grid=False) as late:
        late.read(lambda _: answered.wait(60))
    assert late is first
    monkeypatch.undo()
    answered.set()
    with rasters.use(dataset, on_grid=False) as other:
        assert other is not first
        assert draw(other, INSIDE).valid.any()
    rasters.close()


def test_the_memory_of_a_view_counts_its_pictures(noise: Path, made: Store) -> None:
    views = Views(made.store)
    with views.use(ViewKind.DATASETS, "noise") as view:
        before = view.nbytes
        size = len(imagery_of(view).map_tile(INSIDE))
        assert view.nbytes >= before + size
    views.close()
