"""The examples of Sentinel-2, Landsat, NAIP and a drone orthomosaic give the values that the sensors' documents say."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio

from examples.scenes import drone, landsat, naip, sentinel2
from examples.scenes.command import run
from examples.scenes.generated import ITEMS, SIDE, reflectances
from rasterembed import Dataset, Dinov3, EmbedResult, ObjectStore, Query
from rasterembed.dataset.manifest import ALL_STATES, set_state
from rasterembed.raster.stac_item_file import parse_item
from rasterembed.search.thumbnails import thumbnails
from tests.support.stac_schemas import check

TILE = 32


@pytest.fixture
def quick(tiny_vit: Path) -> dict[str, Any]:
    """Options for a quick run."""
    return {"model": Dinov3(model=str(tiny_vit), device="cpu"), "quality_checks": False}


def tiles(folder: Path, result: EmbedResult) -> dict[str, dict[str, Any]]:
    """Return the rows of a dataset by tile id."""
    dataset = Dataset.open(ObjectStore(root=str(folder / "store")), result.manifest.dataset_id, ALL_STATES)
    rows = [row for batch in dataset.batches() for row in batch.to_pylist()]
    return {row["tile_id"]: row for row in rows}


def stac_item(folder: Path, result: EmbedResult) -> dict[str, Any]:
    """Return the STAC Item of a dataset. It must be valid."""
    return check(json.loads((folder / "store" / result.manifest.stac_item).read_text()))


def picture(folder: Path, result: EmbedResult, tile: str) -> np.ndarray[Any, Any]:
    """Return a tile as a contact sheet shows it: red, green and blue of TILE x TILE px."""
    store = ObjectStore(root=str(folder / "store"))
    dataset = Dataset(store, set_state(store, result.manifest, "ready"))
    hits = dataset.search(Query(tile="r000000_c000000"), k=100).hits
    (hit,) = (hit for hit in hits if hit.tile_id == tile)
    (drawn,) = thumbnails(dataset, [hit], TILE).values()
    return np.asarray(drawn)


def test_sentinel2_scenes_of_both_baselines_get_equal_vectors(tmp_path: Path, quick: dict[str, Any]) -> None:
    before, after = sentinel2.embed(tmp_path, **quick).values()
    assert (before.plan.radiometry.low, before.plan.radiometry.high) == ((0.0,) * 3, (3558.0,) * 3)
    assert (after.plan.radiometry.low, after.plan.radiometry.high) == ((1000.0,) * 3, (4558.0,) * 3)
    vectors = [{name: row["embedding"] for name, row in tiles(tmp_path, each).items()} for each in (before, after)]
    assert len(vectors[0]) == 16
    assert vectors[0] == vectors[1]
    # The ground and the time are those of the Items.
    assert [each.plan.profile.acquired.isoformat() for each in (before, after) if each.plan.profile.acquired] == [
        "2015-07-04T10:10:06.027000+00:00", "2022-06-12T18:29:19.024000+00:00",
    ]  # fmt: skip
    for result, name in ((before, "sentinel2-before-04.00"), (after, "sentinel2-04.00")):
        offset = 0.0 if result is before else -0.1
        item, real = stac_item(tmp_path, result), json.loads((ITEMS / f"{name}.json").read_text())
        assert item["properties"]["eo:cloud_cover"] == real["properties"]["eo:cloud_cover"]
        (band,) = item["assets"]["source-B04"]["raster:bands"]
        assert band == {"data_type": "uint16", "nodata": 0.0, "scale": 0.0001, "offset": offset}
        west, south, east, north = real["bbox"]
        left, bottom, right, top = item["bbox"]
        assert west - 0.5 < left < right < east + 0.5
        assert south - 0.5 < bottom < top < north + 0.5


def test_the_baseline_gives_the_offset_only_if_the_bands_do_not() -> None:
    item = json.loads((ITEMS / "sentinel2-04.00.json").read_text())
    assert [parse_item("/i.json", item).assets[key].bands[0].offset for key in ("B04", "visual", "SCL")] == [
        -0.1,
        None,
        None,
    ]
    item["assets"]["B04"]["raster:bands"] = [{"scale": 0.0002, "offset": -0.3}]
    item["properties"]["s2:processing_baseline"] = "99.99"
    facts = parse_item("/i.json", item).assets
    assert (facts["B04"].bands[0].scale, facts["B04"].bands[0].offset) == (0.0002, -0.3)
    assert (facts["B03"].bands[0].scale, facts["B03"].bands[0].offset) == (0.0001, -0.1)
    item["properties"]["earthsearch:boa_offset_applied"] = True
    assert [band.offset for key in ("B03", "B04") for band in parse_item("/i.json", item).assets[key].bands] == [0, 0]
    item["properties"]["s2:processing_baseline"] = "N0400"
    assert parse_item("/i.json", item).assets["B03"].bands[0].scale is None


def test_landsat_tiles_are_counted_from_the_lattice_and_clouds_are_hidden(
    tmp_path: Path, quick: dict[str, Any]
) -> None:
    (result,) = landsat.embed(tmp_path, **quick).values()
    # Reflectance = 0.0000275 * pixel - 0.2, as the product guide of Collection 2 says.
    np.testing.assert_allclose(np.array(result.plan.radiometry.low) * 0.0000275 - 0.2, 0, atol=1e-9)
    np.testing.assert_allclose(np.array(result.plan.radiometry.high) * 0.0000275 - 0.2, 0.3, atol=1e-9)
    with rasterio.open(tmp_path / "landsat-c2-l2-red.tif") as file:
        left, top = file.transform.c, file.transform.f
        decoded = file.read(1) * 0.0000275 - 0.2
    np.testing.assert_allclose(decoded, reflectances(seed=1)[0], atol=0.0000275)
    with rasterio.open(tmp_path / "landsat-c2-l2-qa.tif") as file:
        visible = file.read(1) == landsat.CLEAR
    found = tiles(tmp_path, result)
    assert found
    # Tiles count eastwards and northwards from the point 15, 15 of the CRS, and rows of pixels southwards.
    first_col, first_row = (left - 15) / 30, (15 - top) / 30
    expected = {}
    for row in range(int(first_row // TILE), int((first_row + SIDE - 1) // TILE) + 1):
        for col in range(int(first_col // TILE), int((first_col + SIDE - 1) // TILE) + 1):
            x, y = int(col * TILE - first_col), int(row * TILE - first_row)
            inside = visible[max(y, 0) : max(y + TILE, 0), max(x, 0) : max(x + TILE, 0)]
            fraction = inside.sum() / TILE**2
            if fraction >= 0.05:
                expected[f"x{col:+07d}_y{-row - 1:+07d}"] = fraction
    assert {name: row["valid_fraction"] for name, row in found.items()} == pytest.approx(expected)
    assert result.manifest.skipped > 0


def test_naip_bands_are_in_the_order_of_the_item(tmp_path: Path, quick: dict[str, Any]) -> None:
    colours, infrared = naip.embed(tmp_path, **quick).values()
    assert (colours.plan.radiometry.bands, infrared.plan.radiometry.bands) == ((1, 2, 3), (4, 1, 2))
    assert colours.plan.profile.descriptions == ("red", "green", "blue", "nir")
    with rasterio.open(tmp_path / "naip-image.tif") as file:
        pixels = file.read(window=((32, 64), (64, 96)))
    for result, bands in ((colours, [0, 1, 2]), (infrared, [3, 0, 1])):
        np.testing.assert_array_equal(picture(tmp_path, result, "r000001_c000002"), pixels[bands].transpose(1, 2, 0))


def test_what_a_drone_did_not_see_is_skipped(tmp_path: Path, quick: dict[str, Any]) -> None:
    (result,) = drone.embed(tmp_path, **quick).values()
    seen = drone.flown_area().reshape(SIDE // TILE, TILE, SIDE // TILE, TILE).mean(axis=(1, 3))
    expected = {
        f"r{row:06d}_c{col:06d}": seen[row, col] for row, col in np.ndindex(seen.shape) if seen[row, col] >= 0.05
    }
    assert {name: row["valid_fraction"] for name, row in tiles(tmp_path, result).items()} == pytest.approx(expected)
    assert result.manifest.skipped == seen.size - len(expected) > 0
    # 128 px of 2 cm are 2.56 m.
    west, south, east, north = stac_item(tmp_path, result)["bbox"]
    assert (north - south) * 111_320 == pytest.approx(2.56, rel=0.05)
    assert east - west > 0


def test_an_example_prints_a_line_for_each_dataset(
    tmp_path: Path, quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["naip", str(tmp_path / "new")])
    run(naip.__doc__, partial(naip.embed, **quick))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["naip: embedded", "naip-infrared: embedded"]
    assert "16 tiles, 0 skipped, bands (4, 1, 2), black (0.0, 0.0, 0.0), white (255.0, 255.0, 255.0)" in lines[1]


@pytest.mark.parametrize("module", [sentinel2, landsat, naip, drone], ids=lambda module: module.__name__)
def test_each_example_says_how_it_is_run(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["example", "--help"])
    with pytest.raises(SystemExit) as end:
        run(module.__doc__, module.embed)
    assert end.value.code == 0
    assert f"python -m {module.__name__} [FOLDER]" in capsys.readouterr().out
