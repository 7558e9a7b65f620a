"""Tile index and shards can be read with pyarrow, geopandas, DuckDB and a GeoParquet validator."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from numpy.typing import NDArray

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.selection import Selection
from rasterembed.dataset.tile_index import write_tile_index
from rasterembed.model.choice import Dinov3, ResolvedModel
from rasterembed.raster.footprints import Footprinter
from rasterembed.raster.grid import Grid
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.radiometry import ResolvedRadiometry
from rasterembed.raster.sharding import plan_shards
from rasterembed.raster.source import Source
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import embed
from tests.support.vectors import SIDE, blank_raster, checkpoint, write_dataset

DIMENSIONS = 8
BBOX = pa.struct([pa.field(name, pa.float64(), nullable=False) for name in ("xmin", "ymin", "xmax", "ymax")])
NUMBERS = ("row", "col", "col_off", "row_off", "width", "height")


def vectors(numbers: NDArray[np.intp]) -> NDArray[np.float32]:
    """Vectors that tell tiles apart, and that float16 holds too."""
    steps = np.arange(DIMENSIONS, dtype=np.float32)
    return ((numbers[:, None] % 97) + steps * 0.25).astype(np.float32)


class Dataset:
    """A dataset in a folder, with its plan."""

    def __init__(self, store: ObjectStore, manifest: Manifest) -> None:
        self.manifest = manifest
        self.plan = Plan.read(store, manifest.dataset_id, manifest.fingerprint)
        self.index = Path(store.uri(manifest.index))
        self.shards = [Path(store.uri(shard.path)) for shard in manifest.shards]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    return ObjectStore(root=str(tmp_path_factory.mktemp("root")))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Dinov3:
    return Dinov3(model=str(checkpoint(tmp_path_factory.mktemp("checkpoint"), DIMENSIONS)))


@pytest.fixture(scope="module")
def scene(store: ObjectStore, model: Dinov3, rasters: Path) -> Dataset:
    """A UTM scene of 45 x 50 tiles in several shards, some tiles skipped."""
    skip = frozenset([0, 1, 777, 2249])
    raster = rasters / "RGB.byte.tif"
    return Dataset(store, write_dataset(store, "scene", raster, model, vectors, skip=skip, shard_tiles=600))


@pytest.fixture(scope="module")
def dateline(store: ObjectStore, model: Dinov3, rasters: Path) -> Dataset:
    """A scene across the antimeridian, float16."""
    raster = rasters / "cog_dateline.tif"
    return Dataset(
        store,
        write_dataset(store, "dateline", raster, model, vectors, shard_tiles=30_000, vector_dtype="float16"),
    )


@pytest.fixture(scope="module")
def unplaced(store: ObjectStore, model: Dinov3, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A raster without a CRS, taken one morning."""
    raster = blank_raster(tmp_path_factory.mktemp("raster") / "r.tif", 3, 4, crs=None, when="2024:05:06 07:08:09")
    return Dataset(store, write_dataset(store, "unplaced", raster, model, vectors))


@pytest.fixture(scope="module")
def empty(store: ObjectStore, model: Dinov3, rasters: Path) -> Dataset:
    """A scene of which no tile has a valid pixel, through the whole pipeline."""
    raster = str(rasters / "all-nodata.tif")
    return Dataset(store, embed(store, raster, dataset_id="empty", grid=Grid(size=64), model=model))


@pytest.fixture
def spatial() -> Path:
    """DuckDB's spatial extension, from its wheel."""
    folder = Path(str(files("duckdb_extension_spatial"))) / "extensions"
    return next(folder.glob("*/spatial.duckdb_extension"))


@pytest.fixture
def db(tmp_path: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB without any extension, and without a way to get one."""
    options = {"extension_directory": str(tmp_path), "autoinstall_known_extensions": False}
    return duckdb.connect(config=options)


def footer(path: Path, key: bytes) -> Any:
    return json.loads(pq.read_metadata(path).metadata[key])


def columns(path: Path) -> list[tuple[str, pa.DataType, bool]]:
    return [(field.name, field.type, field.nullable) for field in pq.read_schema(path)]


def test_columns_of_the_index(scene: Dataset, unplaced: Dataset) -> None:
    expected = [
        ("tile_id", pa.string(), False),
        *((name, pa.int32(), False) for name in (*NUMBERS, "shard")),
        ("status", pa.string(), False),
        ("reason", pa.string(), True),
        ("bbox", BBOX, False),
        ("geometry", pa.binary(), False),
    ]
    assert columns(scene.index) == expected
    assert columns(unplaced.index) == expected


def shard_columns(element: pa.DataType, *when: tuple[str, pa.DataType, bool]) -> list[tuple[str, pa.DataType, bool]]:
    vector = pa.list_(pa.field("element", element, nullable=False), DIMENSIONS)
    return [
        ("tile_id", pa.string(), False),
        *((name, pa.int32(), False) for name in NUMBERS),
        ("valid_fraction", pa.float32(), False),
        ("norm", pa.float32(), False),
        ("embedding", vector, False),
        *when,
        ("bbox", BBOX, False),
        ("geometry", pa.binary(), False),
    ]


def test_columns_of_a_shard(scene: Dataset, dateline: Dataset, unplaced: Dataset, empty: Dataset) -> None:
    for path in scene.shards:
        assert columns(path) == shard_columns(pa.float32())
    assert columns(dateline.shards[0]) == shard_columns(pa.float16())
    when = ("datetime", pa.timestamp("ms", tz="UTC"), False)
    for path in (*unplaced.shards, *empty.shards):
        assert columns(path) == shard_columns(pa.float32(), when)
    times = pq.read_table(unplaced.shards[0], columns=["datetime"])["datetime"].to_pylist()
    assert times == [datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)] * 12


def test_files_are_compressed_with_zstd(scene: Dataset, empty: Dataset) -> None:
    for path in (scene.index, *scene.shards, empty.index):
        group = pq.read_metadata(path).row_group(0)
        assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}


def test_index_and_shards_tell_of_the_same_tiles(scene: Dataset) -> None:
    index = pq.read_table(scene.index)
    assert index.num_rows == 45 * 50
    assert index["tile_id"].to_pylist()[:2] == ["r000000_c000000", "r000000_c000001"]
    assert len(set(index["tile_id"].to_pylist())) == 45 * 50
    skipped = index.filter(pa.compute.equal(index["status"], "skipped"))
    assert skipped["reason"].to_pylist() == ["no_valid_pixel"] * 4
    assert set(skipped["tile_id"].to_pylist()) == {
        "r000000_c000000", "r000000_c000001", "r000015_c000027", "r000044_c000049",
    }  # fmt: skip
    embedded = index.filter(pa.compute.equal(index["status"], "embedded"))
    assert embedded["reason"].null_count == embedded.num_rows == 45 * 50 - 4
    assert len(scene.shards) == 4
    for number, path in enumerate(scene.shards):
        shard = pq.read_table(path)
        rows = embedded.filter(pa.compute.equal(embedded["shard"], number))
        same = ["tile_id", *NUMBERS, "bbox", "geometry"]
        assert shard.select(same).equals(rows.select(same))
        places = np.asarray(shard["row"]).astype(np.int64) * 50 + np.asarray(shard["col"])
        assert (np.diff(places) > 0).all()
        stored = np.stack(shard["embedding"].to_numpy(zero_copy_only=False))
        assert np.array_equal(stored, vectors(places))
        assert np.allclose(np.asarray(shard["norm"]), np.linalg.norm(stored, axis=1))


def test_before_the_run_every_tile_is_planned(scene: Dataset, tmp_path: Path) -> None:
    elsewhere = ObjectStore(root=str(tmp_path))
    digest = write_tile_index(elsewhere, scene.plan)
    index = pq.read_table(elsewhere.uri(scene.manifest.index))
    assert set(index["status"].to_pylist()) == {"planned"}
    assert index["reason"].null_count == index.num_rows == 45 * 50
    assert write_tile_index(elsewhere, scene.plan) == digest != scene.manifest.index_sha256


def test_geopandas(scene: Dataset, dateline: Dataset) -> None:
    for dataset in (scene, dateline):
        sharding = dataset.plan.sharding
        places = {
            name: shape
            for number in range(sharding.count)
            for tiles in [sharding.tiles(number)]
            for name, shape in zip(tiles.ids(), Footprinter(dataset.plan.profile)(tiles).geometry, strict=True)
        }
        for path in (dataset.index, *dataset.shards):
            frame = geopandas.read_parquet(path)
            assert frame.crs == "OGC:CRS84"
            assert frame.geometry.is_valid.all()
            assert all(
                shape.equals_exact(places[name]) for name, shape in zip(frame.tile_id, frame.geometry, strict=True)
            )
            boxes = np.array([list(box.values()) for box in pq.read_table(path)["bbox"].to_pylist()])
            assert np.array_equal(boxes, frame.geometry.bounds.to_numpy())
    assert set(frame.geometry.geom_type) == {"Polygon", "MultiPolygon"}


def test_geopandas_reads_a_part_by_the_bbox_column(scene: Dataset) -> None:
    box = (-78.0, 24.5, -77.8, 24.6)
    part = geopandas.read_parquet(scene.index, bbox=box)
    whole = geopandas.read_parquet(scene.index)
    expected = whole[whole.bounds.apply(lambda b: shapely.box(*b).intersects(shapely.box(*box)), axis=1)]
    assert part.tile_id.tolist() == expected.tile_id.tolist()
    assert 10 < len(part) < 100


def test_duckdb_without_its_spatial_extension(scene: Dataset, db: duckdb.DuckDBPyConnection) -> None:
    query = f"SELECT * FROM read_parquet({[str(path) for path in scene.shards]})"
    assert db.sql(f"SELECT count(*), count(DISTINCT tile_id) FROM ({query})").fetchone() == (2246, 2246)
    first = db.sql(
        f"SELECT bbox.xmin, valid_fraction, embedding FROM ({query}) WHERE tile_id='r000001_c000000'"
    ).fetchone()
    assert first is not None
    profile, tiles = scene.plan.profile, scene.plan.sharding.tiles(0)
    place = Footprinter(profile)(tiles.take(tiles.ids() == "r000001_c000000"))
    assert first[0] == place.bounds[0, 0]
    assert first[1:] == (1.0, vectors(np.array([50]))[0].tolist())
    wanted = f"{vectors(np.array([60]))[0].tolist()}::FLOAT[{DIMENSIONS}]"
    near = db.sql(
        f"SELECT tile_id FROM ({query}) WHERE row < 2 "
        f"ORDER BY array_distance(embedding::FLOAT[{DIMENSIONS}], {wanted}) LIMIT 1"
    ).fetchall()
    assert near == [("r000001_c000010",)]
    west, reasons = db.sql(
        f"SELECT min(bbox.xmin), list(DISTINCT reason) FROM '{scene.index}' WHERE status = 'skipped'"
    ).fetchall()[0]
    assert west == pytest.approx(-78.9587, abs=1e-3)
    assert reasons == ["no_valid_pixel"]


def test_duckdb_with_its_spatial_extension(
    scene: Dataset, dateline: Dataset, spatial: Path, db: duckdb.DuckDBPyConnection
) -> None:
    db.execute(f"LOAD '{spatial}'")
    kind = db.sql(f"SELECT typeof(geometry) FROM '{scene.shards[0]}' LIMIT 1").fetchone()
    assert kind is not None
    assert str(kind[0]).startswith("GEOMETRY")
    for dataset in (scene, dateline):
        for path in (dataset.index, *dataset.shards):
            wrong = db.sql(
                f"SELECT count(*) FROM '{path}' WHERE NOT ST_IsValid(geometry) OR bbox.xmin > ST_XMin(geometry) "
                "OR bbox.ymin > ST_YMin(geometry) OR bbox.xmax < ST_XMax(geometry) OR bbox.ymax < ST_YMax(geometry)"
            ).fetchone()
            assert wrong == (0,)
    place = geopandas.read_parquet(scene.index).set_index("tile_id").geometry["r000020_c000030"].centroid
    found = db.sql(
        f"SELECT tile_id FROM '{scene.index}' WHERE ST_Contains(geometry, ST_Point({place.x}, {place.y}))"
    ).fetchall()
    assert found == [("r000020_c000030",)]


def test_a_validator_finds_nothing_to_say(
    scene: Dataset,
    dateline: Dataset,
    empty: Dataset,
    spatial: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from geoparquet_io.core.validate import validate_geoparquet

    version, platform = duckdb.sql(
        "SELECT library_version, (SELECT platform FROM pragma_platform()) FROM pragma_version()"
    ).fetchone()  # type: ignore[misc]
    extensions = tmp_path / ".duckdb" / "extensions" / version / platform
    extensions.mkdir(parents=True)
    (extensions / spatial.name).symlink_to(spatial)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (scene.index, *scene.shards, dateline.index, *dateline.shards, empty.index, *empty.shards):
        report = validate_geoparquet(str(path))
        said = {check.name: check.message for check in report.checks if check.status.value in ("failed", "warning")}
        assert said == {}
        assert report.is_valid
        assert report.detected_version == "1.1.0"


def test_geo_in_the_footer(scene: Dataset, dateline: Dataset) -> None:
    for dataset, types in ((scene, ["Polygon"]), (dateline, ["MultiPolygon", "Polygon"])):
        for path in (dataset.index, *dataset.shards):
            geo = footer(path, b"geo")
            assert (geo["version"], geo["primary_column"], list(geo["columns"])) == ("1.1.0", "geometry", ["geometry"])
            column = geo["columns"]["geometry"]
            assert column["encoding"] == "WKB"
            assert column["geometry_types"] == types
            assert column["orientation"] == "counterclockwise"
            assert pyproj.CRS.from_json_dict(column["crs"]) == pyproj.CRS("OGC:CRS84")
            assert column["covering"]["bbox"] == {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}
            assert column["bbox"] == geopandas.read_parquet(path).total_bounds.tolist()


def test_metadata_in_the_arrow_schema(scene: Dataset, dateline: Dataset, unplaced: Dataset, empty: Dataset) -> None:
    """Readers that use Arrow see only the metadata of the Arrow schema. It equals the footer's."""
    for dataset in (scene, dateline, empty, unplaced):
        for path in (dataset.index, *dataset.shards):
            keys = {b"raster_embeddings"}
            keys |= set() if dataset is unplaced else {b"geo"}
            keys |= set() if path == dataset.index else {b"emb"}  # The tile index has no vectors.
            in_footer = pq.read_metadata(path).metadata
            assert set(in_footer) == {b"ARROW:schema", *keys}
            assert pq.read_schema(path).metadata == {key: in_footer[key] for key in keys}
            assert pq.read_table(path).schema.metadata == pq.read_schema(path).metadata


def test_a_folder_of_shards_is_one_dataset(scene: Dataset) -> None:
    folder = scene.shards[0].parent
    assert len(list(folder.iterdir())) == len(scene.shards) == 4
    frame = geopandas.read_parquet(folder)
    assert (len(frame), frame.crs) == (2246, "OGC:CRS84")
    parts = [geopandas.read_parquet(path) for path in scene.shards]
    assert frame.geometry.to_wkb().tolist() == [wkb for part in parts for wkb in part.geometry.to_wkb()]
    for schema in (pq.ParquetDataset(folder).schema, pyarrow.dataset.dataset(folder).schema):
        assert json.loads(schema.metadata[b"geo"])["primary_column"] == "geometry"
        assert schema.field("embedding").type == pa.list_(pa.field("element", pa.float32(), nullable=False), DIMENSIONS)


def test_the_receipt_in_the_footer(scene: Dataset, dateline: Dataset) -> None:
    for dataset, dtype in ((scene, "float32"), (dateline, "float16")):
        plan = dataset.plan
        for path in (dataset.index, *dataset.shards):
            receipt = footer(path, b"raster_embeddings")
            assert receipt["dataset_id"] == plan.dataset_id
            assert receipt["fingerprint"] == dataset.manifest.fingerprint
            assert receipt["source"]["uri"] == plan.source.uri
            assert receipt["source"]["size"] == Path(plan.source.uri).stat().st_size
            assert receipt["source"]["version"] == str(Path(plan.source.uri).stat().st_mtime_ns)
            assert pyproj.CRS(receipt["crs"]).to_authority() == ("EPSG", "32618" if dataset is scene else "32660")
            assert receipt["transform"] == list(plan.profile.transform)
            assert (receipt["model_id"], receipt["weights_sha256"]) == (plan.model.id, plan.model.weights_sha256)
            assert "model_revision" in receipt
            assert (receipt["pooling"], receipt["dimensions"], receipt["dtype"]) == ("cls", DIMENSIONS, dtype)
            assert receipt["radiometry"] == plan.radiometry.model_dump(mode="json")
            assert receipt["grid"] == {"size": SIDE, "stride": SIDE, "edge": "pad"}
            assert {"raster-embeddings", "rasterio", "gdal", "pyarrow"} <= set(receipt["versions"])
        assert "run_id" in receipt
    skipped = [footer(path, b"raster_embeddings")["skipped"] for path in scene.shards]
    assert sum(len(each.get("no_valid_pixel", [])) for each in skipped) == 4


def test_the_stac_asset_in_the_footer(scene: Dataset, dateline: Dataset) -> None:
    """The footer of a shard has the fields of the asset, and links that lead to the Item and the raster."""
    for dataset, dtype in ((scene, "float32"), (dateline, "float16")):
        item = json.loads(dataset.index.parents[2].joinpath(dataset.manifest.stac_item).read_text())
        for path in dataset.shards:
            asset = json.loads(pq.read_schema(path).metadata[b"emb"])
            assert (asset["type"], asset["roles"]) == ("application/vnd.apache.parquet", ["data"])
            assert (asset["emb:type"], asset["emb:dimensions"], asset["data_type"]) == ("chip", DIMENSIONS, dtype)
            assert asset["emb:chip_layout"] == {
                "layout_type": "regular_grid", "chip_size": [SIDE, SIDE], "stride": [SIDE, SIDE],
            }  # fmt: skip
            for name in ("emb:preprocessing", "emb:quantization"):
                assert asset.get(name) == item["properties"].get(name)
            hrefs = {link["rel"]: link["href"] for link in asset["links"]}
            assert json.loads((path.parent / hrefs["item"]).read_text())["id"] == dataset.plan.dataset_id
            assert hrefs["emb:source-data"] == dataset.plan.source.uri
            assert hrefs["emb:model"] == dataset.plan.model.id
            stored = pq.ParquetFile(path).schema_arrow.field("embedding").type
            assert (stored.list_size, str(stored.value_type)) == (
                DIMENSIONS,
                {"float16": "halffloat"}.get(dtype, "float"),
            )


def test_a_shard_without_rows_is_a_file_like_any_other(empty: Dataset, db: duckdb.DuckDBPyConnection) -> None:
    index = geopandas.read_parquet(empty.index)
    assert len(index) == 39 * 2
    assert set(index.status) == {"skipped"}
    assert set(index.reason) == {"no_valid_pixel"}
    assert empty.manifest.rows == 0
    for path in empty.shards:
        frame = geopandas.read_parquet(path)
        assert (len(frame), frame.crs) == (0, "OGC:CRS84")
        assert db.sql(f"SELECT count(*), max(norm) FROM '{path}'").fetchone() == (0, None)
        column = footer(path, b"geo")["columns"]["geometry"]
        assert column["geometry_types"] == []
        assert "bbox" not in column
        assert footer(path, b"raster_embeddings")["fingerprint"] == empty.manifest.fingerprint


def test_without_a_crs_footprints_are_in_pixels(unplaced: Dataset, db: duckdb.DuckDBPyConnection) -> None:
    for path in (unplaced.index, *unplaced.shards):
        metadata = pq.read_metadata(path).metadata
        assert b"geo" not in metadata
        assert json.loads(metadata[b"raster_embeddings"])["crs"] is None
        table = pq.read_table(path)
        windows = zip(*(table[name].to_pylist() for name in NUMBERS[2:]), strict=True)
        for shape, (left, top, width, height) in zip(shapely.from_wkb(table["geometry"]), windows, strict=True):
            assert shape.equals(shapely.box(left, top, left + width, top + height))
        assert table["bbox"][5].as_py() == {"xmin": 16, "ymin": 16, "xmax": 32, "ymax": 32}
        assert db.sql(f"SELECT max(bbox.xmax), max(bbox.ymax) FROM '{path}'").fetchone() == (64.0, 48.0)
        with pytest.raises(ValueError, match="geo"):
            geopandas.read_parquet(path)


def test_float16_vectors(dateline: Dataset, db: duckdb.DuckDBPyConnection) -> None:
    path = dateline.shards[0]
    table = pq.read_table(path)
    stored = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, DIMENSIONS)
    assert stored.dtype == np.float16
    order = np.asarray(table["row"]).astype(np.int64) * dateline.plan.sharding.cols + np.asarray(table["col"])
    assert np.array_equal(stored, vectors(order).astype(np.float16))
    read = db.sql(f"SELECT embedding::FLOAT[{DIMENSIONS}] AS v FROM '{path}'").fetchnumpy()["v"]
    assert np.array_equal(np.stack(read), stored.astype(np.float32))


@pytest.mark.slow
def test_a_million_tiles(store: ObjectStore) -> None:
    """The plan of a scene of 224000 x 224000 px, all of its index at once."""
    transform = (10.0, 0.0, 300_000.0, 0.0, -10.0, 6_500_000.0)
    profile = RasterProfile(
        driver="GTiff",
        width=224_000,
        height=224_000,
        count=3,
        dtype="uint8",
        colorinterp=("red", "green", "blue"),
        descriptions=(None,) * 3,
        crs_wkt=pyproj.CRS("EPSG:32633").to_wkt(),
        transform=transform,
        nodata=(None,) * 3,
        block_height=512,
        block_width=512,
        interleave="pixel",
    )
    plan = Plan(
        dataset_id="million",
        source=Source(uri="/million.tif", size=1, version="1", modified=datetime(2026, 1, 1, tzinfo=UTC)),
        profile=profile,
        sharding=plan_shards(Grid(), profile, 2048),
        radiometry=ResolvedRadiometry(bands=(1, 2, 3), low=(0,) * 3, high=(255,) * 3, method="given"),
        model=ResolvedModel(
            id="none",
            name="none",
            revision=None,
            weights_sha256="0" * 64,
            pooling="cls",
            dtype="float32",
            input_size=224,
            dimensions=DIMENSIONS,
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
        ),
        selection=Selection(),
    )
    write_tile_index(store, plan)
    path = store.uri(plan.layout.tile_index)
    assert pq.read_metadata(path).num_rows == 1_000_000
    to_lonlat = pyproj.Transformer.from_crs("EPSG:32633", "OGC:CRS84", always_xy=True)
    for row, col in ((0, 0), (499, 250), (999, 999)):
        name = f"r{row:06d}_c{col:06d}"
        table = pq.read_table(path, filters=[("tile_id", "=", name)])
        assert table.num_rows == 1
        tile = table.to_pylist()[0]
        assert [tile[number] for number in NUMBERS] == [row, col, col * 224, row * 224, 224, 224]
        assert (tile["status"], tile["reason"]) == ("planned", None)
        tiles = plan.sharding.tiles(tile["shard"])
        assert name in tiles.ids()
        left, top = 300_000 + col * 2240, 6_500_000 - row * 2240
        corners = np.array([to_lonlat.transform(x, y) for x in (left, left + 2240) for y in (top, top - 2240)])
        assert list(tile["bbox"].values()) == pytest.approx([*corners.min(axis=0), *corners.max(axis=0)], abs=1e-5)
        assert shapely.MultiPoint(shapely.from_wkb(tile["geometry"]).exterior.coords).distance(
            shapely.MultiPoint(corners)
        ) == pytest.approx(0, abs=1e-9)
