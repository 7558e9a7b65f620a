"""The quality checks: good datasets pass, each kind of damage is named, and the numbers equal NumPy's."""

from __future__ import annotations

import doctest
import hashlib
import importlib
import io
import json
import pkgutil
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine

import rasterembed.qa
from examples.landscape import make_scene
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest, read_manifest, set_state
from rasterembed.dataset.selection import Selection
from rasterembed.drawing.figure import Heading
from rasterembed.errors import DataError, ObjectMissingError
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, check_dataset, embed_raster
from rasterembed.qa.maps import StatusMap
from rasterembed.qa.metrics import Metric
from rasterembed.qa.pictures import draw_coverage
from rasterembed.qa.report import QaError, QaReport, markdown
from rasterembed.qa.run import judge_dataset, run_qa
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.store import duck
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.servers import S3Server
from tests.support.vectors import blank_raster, checkpoint, write_dataset

Change = Callable[[pa.Table], pa.Table]
ID = "scene"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    """A store with one dataset: 256 tiles of 64 px in four shards of 8 x 8 tiles, partly nodata at the edge."""
    folder = tmp_path_factory.mktemp("good")
    scene = make_scene(folder, width=1024, height=1024)
    embed_raster(
        ObjectStore(root=str(folder / "store")),
        str(scene.raster),
        EmbedOptions(
            dataset_id=ID, grid=Grid(size=64), model=Dinov3(model=str(tiny_vit)), selection=Selection(shard_tiles=64)
        ),
    )
    return folder / "store"


@pytest.fixture
def store(good: Path, tmp_path: Path) -> ObjectStore:
    """A copy of it, to do damage to."""
    return ObjectStore(root=str(shutil.copytree(good, tmp_path / "store")))


def _manifest(store: ObjectStore, dataset_id: str = ID) -> Manifest:
    manifest = read_manifest(store, dataset_id)
    assert manifest is not None
    return manifest


def _write_manifest(store: ObjectStore, manifest: Manifest, **changes: Any) -> Manifest:
    if "shards" in changes:
        changes = {"bytes": sum(shard.bytes for shard in changes["shards"])} | changes
    changed = manifest.model_copy(update=changes)
    store.write(f"datasets/{manifest.dataset_id}/manifest.json", changed.model_dump_json().encode())
    return changed


def _rewrite(store: ObjectStore, key: str, change: Change) -> dict[str, Any]:
    """Change the rows of a Parquet object and keep its footer; returns what a manifest says of it."""
    data = store.read(key)
    assert data is not None
    table, footer = pq.read_table(io.BytesIO(data)), pq.read_metadata(io.BytesIO(data)).metadata
    return _put(store, key, change(table), footer)


def _put(store: ObjectStore, key: str, table: pa.Table, footer: dict[bytes, bytes]) -> dict[str, Any]:
    out = io.BytesIO()
    with pq.ParquetWriter(out, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({name: footer[name] for name in (b"geo", b"raster_embeddings")})
    store.write(key, out.getvalue())
    return {"bytes": len(out.getvalue()), "sha256": hashlib.sha256(out.getvalue()).hexdigest()}


def _change_receipt(store: ObjectStore, key: str, **entries: Any) -> dict[bytes, bytes]:
    """A Parquet object's footer with other entries in its receipt."""
    footer: dict[bytes, bytes] = pq.read_metadata(store.uri(key)).metadata
    return footer | {b"raster_embeddings": json.dumps(json.loads(footer[b"raster_embeddings"]) | entries).encode()}


def _change_shard(store: ObjectStore, number: int, change: Change) -> Manifest:
    """Change the rows of a shard, as a run that computed wrongly would have written it."""
    manifest = _manifest(store)
    shards = list(manifest.shards)
    shards[number] = shards[number].model_copy(update=_rewrite(store, shards[number].path, change))
    return _write_manifest(store, manifest, shards=tuple(shards))


def _vectors(table: pa.Table) -> NDArray[np.float32]:
    column = table["embedding"].combine_chunks()
    values: NDArray[np.float32] = column.flatten().to_numpy().reshape(len(table), -1).copy()
    return values


def _with_vectors(table: pa.Table, vectors: NDArray[np.float32]) -> pa.Table:
    field = table.schema.field("embedding")
    place = table.schema.get_field_index("embedding")
    table = table.set_column(
        place, field, pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=field.type)
    )
    norms = np.linalg.norm(vectors, axis=1).astype(np.float32)
    return _with(table, norm=norms)


def _with(table: pa.Table, **columns: NDArray[Any]) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, type=table.schema.field(name).type))
    return table


def _all_rows(store: ObjectStore, manifest: Manifest) -> pa.Table:
    return pa.concat_tables([pq.read_table(store.uri(shard.path)) for shard in manifest.shards])


def _metric(report: QaReport, name: str) -> Metric:
    (found,) = [metric for metric in report.metrics if metric.name == name]
    return found


def _breached(report: QaReport) -> set[str]:
    return {metric.name for metric in report.breaches}


@pytest.mark.usefixtures("plain_pictures")
def test_a_good_dataset_passes_and_the_report_says_what_was_measured(store: ObjectStore) -> None:
    manifest = _manifest(store)
    report = run_qa(store, manifest)
    report.check()
    assert report.passed
    assert [metric.name for metric in report.metrics if metric.status != "passed"] == []
    assert report.counts.planned == report.counts.embedded == report.counts.rows == 256
    assert report.counts.skipped == {}
    assert {f"{metric.bound}_{metric.name}" for metric in report.metrics} == {
        name for name in QaThresholds.model_fields if re.match("(max|min)_(?!rows|neighbour_pairs)", name)
    }
    assert _metric(report, "coverage").value == 1.0
    written = store.read(f"qa/{ID}/report.json")
    assert written is not None
    assert QaReport.model_validate_json(written) == report
    assert json.loads(written)["version"] == 1
    text = (store.read(f"qa/{ID}/report.md") or b"").decode()
    assert "# Quality of scene: passed" in text
    assert "![Which tiles have a vector](coverage.png)" in text
    assert f"**model: {manifest.model}**" in text


@pytest.mark.parametrize("name", sorted(module.name for module in pkgutil.iter_modules(rasterembed.qa.__path__)))
def test_examples_in_docstrings_run(name: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(good, tmp_path / "embeddings")
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(f"rasterembed.qa.{name}")).failed == 0


@pytest.mark.usefixtures("plain_pictures")
def test_metrics_are_what_numpy_gives(store: ObjectStore) -> None:
    manifest = _manifest(store)
    table = _all_rows(store, manifest)
    vectors = _vectors(table).astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1)
    cosines = (vectors / norms[:, None]) @ (vectors / norms[:, None]).T
    n = len(vectors)
    report = judge_dataset(store, manifest)

    singular = np.linalg.svd(vectors, compute_uv=False)
    p = singular / singular.sum() + 1e-7
    assert _metric(report, "effective_rank").value == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)
    off_diagonal = cosines[~np.eye(n, dtype=bool)]
    assert _metric(report, "mean_cosine").value == pytest.approx(off_diagonal.mean(), abs=1e-6)
    assert _metric(report, "duplicate_share").value == 1 - len(np.unique(vectors, axis=0)) / n
    assert _metric(report, "dead_dimension_share").value == (vectors.std(axis=0) < 1e-6).mean()
    assert _metric(report, "norm_ratio").value == pytest.approx(norms.max() / norms.min(), rel=1e-6)

    place = {(r, c): i for i, (r, c) in enumerate(zip(*(table[x].to_pylist() for x in ("row", "col")), strict=True))}
    pairs = [(i, place[other]) for (r, c), i in place.items() for other in ((r, c + 1), (r + 1, c)) if other in place]
    near = np.mean([cosines[pair] for pair in pairs])
    gap = _metric(report, "neighbour_gap")
    assert gap.rows == len(pairs) == 2 * 16 * 15
    assert gap.value == pytest.approx(near - off_diagonal.mean(), abs=1e-6)

    for column, found in (("norm", report.norm), ("valid_fraction", report.valid_fraction)):
        values = table[column].to_numpy().astype(np.float64)
        assert found is not None
        assert (found.rows, found.quantile_rows) == (n, n)
        assert (found.minimum, found.maximum) == (values.min(), values.max())
        assert found.mean == pytest.approx(values.mean(), rel=1e-9)
        assert found.std == pytest.approx(values.std(), rel=1e-6, abs=1e-9)
        for level, value in found.quantiles.items():
            assert value == pytest.approx(np.quantile(values, int(level[1:]) / 100), rel=1e-9)
        assert found.counts == tuple(np.histogram(values, found.edges)[0])


@pytest.mark.usefixtures("plain_pictures")
def test_a_large_dataset_is_sampled_and_the_sample_is_the_same_every_time(store: ObjectStore) -> None:
    manifest = _manifest(store)
    whole = judge_dataset(store, manifest)
    first, second = (
        judge_dataset(store, manifest, QaThresholds(sample_rows=100, min_neighbour_pairs=20)) for _ in range(2)
    )
    assert 60 < first.sample_rows < 140
    assert _metric(first, "mean_cosine").rows == first.sample_rows
    assert first.metrics == second.metrics
    one, all_of_it = (float(_metric(report, "mean_cosine").value or 0) for report in (first, whole))
    assert one == pytest.approx(all_of_it, abs=0.1)
    assert first.norm is not None
    assert (first.norm.rows, first.norm.quantile_rows) == (256, first.sample_rows)
    # what is counted is never sampled
    assert first.counts == whole.counts


@pytest.mark.usefixtures("plain_pictures")
def test_a_shard_removed_is_found(store: ObjectStore) -> None:
    manifest = _manifest(store)
    gone = manifest.shards[2]
    lost = sorted(pq.read_table(store.uri(gone.path))["tile_id"].to_pylist())
    store.delete(gone.path)
    report = run_qa(store, manifest)
    assert _breached(report) == {"shards_missing", "tiles_unaccounted", "tiles_missing", "coverage"}
    assert _metric(report, "shards_missing").examples == (f"{Path(gone.path).name}: the store does not have this file",)
    missing = _metric(report, "tiles_missing")
    assert (missing.value, list(missing.examples)) == (64, lost[:10])
    assert _metric(report, "coverage").value == pytest.approx(0.75, abs=0.05)
    with pytest.raises(QaError, match=r"tiles_missing is 64, more than `max_tiles_missing=0` \(r0000"):
        report.check()


@pytest.mark.usefixtures("plain_pictures")
def test_a_shard_cut_short_is_found(store: ObjectStore) -> None:
    manifest = _manifest(store)
    path = Path(store.uri(manifest.shards[0].path))
    path.write_bytes(path.read_bytes()[:-100])
    report = judge_dataset(store, manifest)
    assert _metric(report, "shards_missing").examples[0].endswith("it is not a complete Parquet file with a receipt")
    assert _metric(report, "tiles_missing").value == 64


@pytest.mark.usefixtures("plain_pictures")
@pytest.mark.parametrize("how", ["beside", "listed"])
def test_a_shard_doubled_is_found(how: str, store: ObjectStore) -> None:
    manifest = _manifest(store)
    shard = manifest.shards[1]
    copy = shard.path.replace("-00001.", "-00099.")
    if how == "beside":
        shutil.copy(store.uri(shard.path), store.uri(copy))
        report = judge_dataset(store, manifest)
        assert _breached(report) == {"shards_unlisted"}
        assert _metric(report, "shards_unlisted").examples == (Path(copy).name,)
        assert report.counts.rows == 256
        return
    doubled = _write_manifest(store, manifest, shards=(*manifest.shards, shard))
    report = judge_dataset(store, doubled)
    assert {"shards_mismatched", "tiles_duplicated"} <= _breached(report)
    duplicated = _metric(report, "tiles_duplicated")
    first = min(pq.read_table(store.uri(shard.path))["tile_id"].to_pylist())
    assert (duplicated.value, duplicated.examples[0]) == (64, first)
    assert (report.counts.rows, report.counts.embedded) == (320, 256)


@pytest.mark.usefixtures("plain_pictures")
@pytest.mark.parametrize(("value", "name"), [(np.nan, "vectors_not_finite"), (-np.inf, "vectors_not_finite")])
def test_one_bad_number_is_found(value: float, name: str, store: ObjectStore) -> None:
    bad: list[str] = []

    def spoil(table: pa.Table) -> pa.Table:
        vectors = _vectors(table)
        vectors[5, 17] = value
        bad.append(table["tile_id"][5].as_py())
        return _with_vectors(table, vectors)

    report = judge_dataset(store, _change_shard(store, 3, spoil))
    assert _breached(report) == {name}
    assert (_metric(report, name).value, _metric(report, name).examples) == (1, tuple(bad))
    assert report.norm is not None
    assert report.norm.rows == 255


@pytest.mark.usefixtures("plain_pictures")
def test_a_null_and_a_zero_vector_are_found(store: ObjectStore) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        values = _vectors(table).tolist()
        values[0][3] = None
        values[1] = [0.0] * len(values[1])
        kind = pa.list_(pa.field("element", pa.float32()), len(values[1]))
        place = table.schema.get_field_index("embedding")
        return table.set_column(place, pa.field("embedding", kind), pa.array(values, type=kind))

    report = judge_dataset(store, _change_shard(store, 0, spoil))
    assert _breached(report) == {"vectors_not_finite", "vectors_zero"}
    assert _metric(report, "vectors_not_finite").examples == ("r000000_c000000",)
    assert _metric(report, "vectors_zero").examples == ("r000000_c000001",)


@pytest.mark.usefixtures("plain_pictures")
def test_vectors_that_are_all_equal_are_found(store: ObjectStore) -> None:
    first = _vectors(pq.read_table(store.uri(_manifest(store).shards[0].path)))[:1]
    for number in range(4):
        manifest = _change_shard(store, number, lambda table: _with_vectors(table, first.repeat(len(table), axis=0)))
    report = judge_dataset(store, manifest)
    assert _breached(report) == {"duplicate_share", "effective_rank", "mean_cosine", "dead_dimension_share"}
    assert _metric(report, "duplicate_share").value == 1 - 1 / 256
    assert _metric(report, "effective_rank").value == pytest.approx(1.0, abs=0.01)
    assert _metric(report, "mean_cosine").value == pytest.approx(1.0, abs=1e-6)
    assert _metric(report, "dead_dimension_share").value == 1.0
    assert _metric(report, "neighbour_z").status == "not judged"


@pytest.mark.usefixtures("plain_pictures")
@pytest.mark.parametrize("within_shards", [True, False])
def test_vectors_shuffled_between_tiles_are_found(within_shards: bool, store: ObjectStore) -> None:
    """A shard whose rows were mixed up keeps its vectors in their region; neighbours tell all the same."""
    assert float(_metric(judge_dataset(store, _manifest(store)), "neighbour_z").value or 0) > 8
    random = np.random.default_rng(1)
    rows = [_vectors(pq.read_table(store.uri(shard.path))) for shard in _manifest(store).shards]
    if within_shards:
        dealt = [random.permutation(vectors) for vectors in rows]
    else:
        dealt = np.split(random.permutation(np.concatenate(rows)), 4)
    for number in range(4):
        manifest = _change_shard(store, number, lambda table, n=number: _with_vectors(table, dealt[n]))
    report = judge_dataset(store, manifest)
    assert "neighbour_z" in _breached(report)
    assert _breached(report) <= {"neighbour_z", "neighbour_gap"}
    assert abs(float(_metric(report, "neighbour_z").value or 9)) < 3


@pytest.mark.usefixtures("plain_pictures")
def test_a_manifest_that_lists_another_fingerprint_is_found(store: ObjectStore) -> None:
    manifest = _manifest(store)
    report = run_qa(store, _write_manifest(store, manifest, fingerprint="0" * 64))
    assert {"shards_mismatched", "tiles_missing"} <= _breached(report)
    mismatched = _metric(report, "shards_mismatched")
    assert mismatched.value == 4
    assert f"its fingerprint is {manifest.fingerprint}, but the manifest's is {'0' * 64}" in mismatched.examples[0]
    assert any("the plan is missing" in note for note in report.notes)
    assert store.read(f"qa/{ID}/report.json") is not None


@pytest.mark.usefixtures("plain_pictures")
def test_a_shard_of_another_dataset_is_found(store: ObjectStore) -> None:
    manifest = _manifest(store)
    key = manifest.shards[0].path
    _put(store, key, pq.read_table(store.uri(key)), _change_receipt(store, key, dataset_id="other"))
    report = judge_dataset(store, manifest)
    assert "its dataset_id is other" in _metric(report, "shards_mismatched").examples[0]
    assert _metric(report, "tiles_missing").value == 64


@pytest.mark.usefixtures("plain_pictures")
def test_rows_that_the_manifest_does_not_count_are_found(store: ObjectStore) -> None:
    manifest = _manifest(store)
    first = manifest.shards[0]
    changed = first.model_copy(update={"rows": first.rows - 1})
    report = judge_dataset(store, _write_manifest(store, manifest, shards=(changed, *manifest.shards[1:])))
    assert _breached(report) == {"shards_mismatched"}
    assert "its number of rows is 64, but the manifest says 63" in _metric(report, "shards_mismatched").examples[0]


@pytest.mark.usefixtures("plain_pictures")
def test_a_tile_in_another_place_is_found(store: ObjectStore) -> None:
    def move(table: pa.Table) -> pa.Table:
        geometry = table["geometry"].to_pylist()
        return _with(table, geometry=[geometry[1], *geometry[1:]])

    report = judge_dataset(store, _change_shard(store, 0, move))
    assert _breached(report) == {"tiles_misplaced"}
    assert _metric(report, "tiles_misplaced").examples == ("r000000_c000000",)


@pytest.mark.usefixtures("plain_pictures")
def test_columns_that_do_not_fit_the_vectors_are_found(store: ObjectStore) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        norm = table["norm"].to_numpy().copy()
        norm[2] *= 1.01
        valid = table["valid_fraction"].to_numpy().copy()
        valid[3], valid[4] = 1.5, 0.01
        return _with(table, norm=norm, valid_fraction=valid)

    report = judge_dataset(store, _change_shard(store, 1, spoil))
    assert _breached(report) == {"norms_wrong", "valid_fractions_wrong"}
    assert _metric(report, "norms_wrong").value == 1
    assert _metric(report, "valid_fractions_wrong").value == 2


@pytest.mark.usefixtures("plain_pictures")
def test_a_lost_or_foreign_tile_index_is_found(store: ObjectStore) -> None:
    manifest = _manifest(store)
    _rewrite(store, manifest.index, lambda table: table.slice(0, 200))
    report = judge_dataset(store, manifest)
    assert _breached(report) == {"index_mismatched", "tiles_unexpected"}
    assert _metric(report, "tiles_unexpected").value == 56

    store.delete(manifest.index)
    report = judge_dataset(store, manifest)
    assert _breached(report) == {"index_mismatched"}
    assert _metric(report, "tiles_missing").status == "not judged"


@pytest.mark.usefixtures("plain_pictures")
def test_valid_ground_without_a_vector_is_found_though_shards_and_index_agree(store: ObjectStore) -> None:
    """As if the run had taken valid pixels for nodata: only the raster itself can tell."""
    manifest = _manifest(store)
    lost = {f"r{row:06d}_c{col:06d}" for row in range(4, 6) for col in range(4, 7)}

    def skip(table: pa.Table) -> pa.Table:
        there = ~np.isin(table["tile_id"].to_numpy(zero_copy_only=False), list(lost))
        status = np.where(there, "embedded", "skipped")
        reason = np.where(there, None, "no_valid_pixel")
        return _with(table, status=status, reason=reason)

    def drop(table: pa.Table) -> pa.Table:
        return table.filter(pa.array(~np.isin(table["tile_id"].to_numpy(zero_copy_only=False), list(lost))))

    shard = manifest.shards[0]
    footer = _change_receipt(store, shard.path, skipped={"no_valid_pixel": list(range(6))})
    written = _put(store, shard.path, drop(pq.read_table(store.uri(shard.path))), footer)
    first = shard.model_copy(update={"rows": 58, "skipped": 6, **written})
    index = _rewrite(store, manifest.index, skip)["sha256"]
    changed = _write_manifest(
        store, manifest, shards=(first, *manifest.shards[1:]), rows=250, skipped=6, index_sha256=index
    )
    report = judge_dataset(store, changed)
    assert _breached(report) == {"coverage"}
    # the border has no data, so six whole tiles are more than six of 256
    assert 0.96 < float(_metric(report, "coverage").value or 0) < 1 - 6 / 256


@pytest.mark.usefixtures("plain_pictures")
def test_reasons_that_version_01_wrote_are_judged_alike(good: Path, tmp_path: Path, tiny_vit: Path) -> None:
    """Version 0.1 wrote reasons as sentences into tile index and receipts."""
    raster = tmp_path / "holes.tif"
    with rasterio.open(good.parent / "scene.tif") as scene:
        pixels = np.maximum(scene.read(), 1)
    pixels[:, :64, :] = 0
    pixels[:, 5, 5] = 9
    _write(raster, pixels)
    store = ObjectStore(root=str(tmp_path / "store"))
    manifest = embed_raster(
        store, str(raster), EmbedOptions(dataset_id="holes", grid=Grid(size=64), model=Dinov3(model=str(tiny_vit)))
    ).manifest
    sentences = {"no_valid_pixel": "no valid pixel", "low_valid_fraction": "valid fraction below 0.05"}
    now = judge_dataset(store, manifest)
    assert now.counts.skipped == {"no valid pixel": 15, "valid fraction below 0.05": 1}
    assert now.passed

    def old(table: pa.Table) -> pa.Table:
        reason = [sentences.get(value, value) for value in table["reason"].to_pylist()]
        reason[20] = "window cannot be decoded"
        status = table["status"].to_pylist()
        status[20] = "skipped"
        return _with(table, reason=np.array(reason, dtype=object), status=np.array(status))

    index = _rewrite(store, manifest.index, old)["sha256"]
    then = judge_dataset(store, _write_manifest(store, manifest, index_sha256=index))
    assert then.counts.skipped == now.counts.skipped | {"window cannot be decoded": 1}
    assert _metric(then, "undecodable_share").value == 1 / 256
    assert _metric(then, "coverage") == _metric(now, "coverage")


def test_a_raster_without_a_small_overview_is_judged_by_some_of_its_tiles(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rasterembed.qa.coverage._DECODED_PIXELS", 1000)
    manifest = _manifest(store)
    coverage = _metric(judge_dataset(store, manifest), "coverage")
    assert coverage.value == 1.0
    tiles = re.fullmatch("of ([0-9]+) tiles, as the raster has no small overview", coverage.note)
    assert tiles is not None
    assert 16 < int(tiles[1]) < 64
    store.delete(manifest.shards[1].path)
    assert 0.5 < float(_metric(judge_dataset(store, manifest), "coverage").value or 0) < 0.95


def test_a_raster_that_is_gone_or_was_changed_is_noted_and_does_not_fail(store: ObjectStore) -> None:
    manifest = _manifest(store)
    raster = Path(manifest.configuration["source"]["uri"])
    aside = raster.rename(raster.with_suffix(".aside"))
    try:
        gone = judge_dataset(store, manifest)
        shutil.copy(aside, raster)
        changed = judge_dataset(store, manifest)
    finally:
        aside.rename(raster)
    for report, why in ((gone, "there is no such file"), (changed, "it was changed since this dataset was planned")):
        assert report.passed
        assert _metric(report, "coverage").status == "not judged"
        assert why in _metric(report, "coverage").note


def test_a_raster_without_a_valid_pixel_passes_with_a_note(tmp_path: Path, tiny_vit: Path) -> None:
    raster = tmp_path / "empty.tif"
    _write(raster, np.zeros((3, 100, 300), dtype=np.uint8))
    store = ObjectStore(root=str(tmp_path / "store"))
    manifest = embed_raster(
        store, str(raster), EmbedOptions(dataset_id="empty", grid=Grid(size=64), model=Dinov3(model=str(tiny_vit)))
    ).manifest
    report = run_qa(store, manifest)
    assert (manifest.rows, report.passed) == (0, True)
    assert report.notes == ("No vector was judged: all 10 tiles are skipped.",)
    assert report.counts.skipped == {"no valid pixel": 10}
    assert _metric(report, "coverage").status == "not judged"
    assert report.pictures == ("coverage.png",)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("RGB.byte.tif", 224),
        ("rotated.tif", 16),
        pytest.param("TCI.tif", 64, marks=pytest.mark.slow),
        pytest.param("cog_gcps.tif", 224, marks=pytest.mark.slow),
        pytest.param("RGBA.uint16.tif", 224, marks=pytest.mark.slow),
    ],
)
def test_real_rasters_pass_with_the_demo_model_and_the_defaults(
    name: str, size: int, rasters: Path, tmp_path: Path
) -> None:
    store = ObjectStore(root=str(tmp_path))
    manifest = embed_raster(
        store,
        str(rasters / name),
        EmbedOptions(dataset_id="real", grid=Grid(size=size), selection=Selection(allow_no_crs=True)),
    ).manifest
    report = judge_dataset(store, manifest)
    report.check()
    if manifest.rows < 10:
        assert _metric(report, "effective_rank").note == f"not enough rows: {manifest.rows}, but at least 10 are needed"
    assert "**model: demo (untrained)**" in markdown(report)


def _write(path: Path, pixels: NDArray[Any], transform: Affine | None = None) -> None:
    count, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=count,
        dtype=pixels.dtype,
        nodata=0,
        crs="EPSG:32635",
        transform=transform or Affine(10, 0, 500_000, 0, -10, 6_700_000),
    ) as file:
        file.write(pixels)


def _projected(store: ObjectStore, manifest: Manifest) -> tuple[pa.Table, NDArray[np.float64]]:
    table = _all_rows(store, manifest)
    vectors = _vectors(table).astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    _, _, axes = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    return table, (unit - unit.mean(axis=0)) @ axes[:3].T


@pytest.mark.usefixtures("plain_pictures")
def test_the_map_of_vectors_is_a_georeferenced_cog_of_the_first_components(store: ObjectStore) -> None:
    manifest = _manifest(store)
    report = run_qa(store, manifest)
    assert report.pictures == ("coverage.png", "pca.png", "norms.png", "pca.tif")
    table, projected = _projected(store, manifest)
    with (
        rasterio.open(store.uri(f"qa/{ID}/pca.tif")) as found,
        rasterio.open(manifest.configuration["source"]["uri"]) as raster,
    ):
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert found.crs == raster.crs
        assert found.transform == raster.transform @ Affine.scale(64)
        assert (found.shape, found.nodata) == ((16, 16), 0)
        assert found.tags()["model"] == manifest.model
        colours = found.read()[:, table["row"].to_numpy(), table["col"].to_numpy()].astype(np.float64)
    assert colours.min() >= 1
    for band, values in zip(colours, projected.T, strict=True):
        low, high = np.percentile(values, (2, 98))
        stretched = 1 + 254 * np.clip((values - low) / (high - low), 0, 1)
        # the sign of a component is free
        assert min(np.abs(band - stretched).max(), np.abs(256 - band - stretched).max()) < 1.5


@pytest.mark.usefixtures("plain_pictures")
def test_the_map_of_a_rotated_raster_with_gaps_between_its_tiles_lies_on_the_tiles(
    tmp_path: Path, tiny_vit: Path
) -> None:
    transform = Affine.translation(500_000, 6_700_000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    random = np.random.default_rng(0)
    pixels = random.integers(1, 256, (3, 200, 260)).astype(np.uint8)
    pixels[:, :40, :40] = 0
    _write(tmp_path / "rotated.tif", pixels, transform)
    store = ObjectStore(root=str(tmp_path / "store"))
    manifest = embed_raster(
        store,
        str(tmp_path / "rotated.tif"),
        EmbedOptions(dataset_id="rotated", grid=Grid(size=32, stride=40), model=Dinov3(model=str(tiny_vit))),
    ).manifest
    run_qa(store, manifest)
    with rasterio.open(store.uri("qa/rotated/pca.tif")) as found:
        middle = found.transform @ (2.5, 1.5)
        assert middle == pytest.approx(transform @ (2 * 40 + 16, 1 * 40 + 16))
        assert found.read()[:, 0, 0].tolist() == [0, 0, 0]
        assert found.read_masks(1)[0, 1] == 255


@pytest.mark.usefixtures("plain_pictures")
def test_the_map_of_a_raster_placed_by_control_points_has_them_too(
    rasters: Path, tmp_path: Path, tiny_vit: Path
) -> None:
    store = ObjectStore(root=str(tmp_path))
    manifest = embed_raster(
        store, str(rasters / "cog_gcps.tif"), EmbedOptions(dataset_id="gcps", model=Dinov3(model=str(tiny_vit)))
    ).manifest
    run_qa(store, manifest)
    with rasterio.open(rasters / "cog_gcps.tif") as raster, rasterio.open(store.uri("qa/gcps/pca.tif")) as found:
        (points, crs), (expected, expected_crs) = found.gcps, raster.gcps
        assert crs == expected_crs
        assert [(p.row * 224, p.col * 224, p.x, p.y) for p in points] == [
            pytest.approx((p.row, p.col, p.x, p.y)) for p in expected
        ]


def test_the_pictures_show_what_became_of_the_tiles(store: ObjectStore) -> None:
    manifest = _manifest(store)

    def share(colour: tuple[int, int, int]) -> float:
        with Image.open(store.uri(f"qa/{ID}/coverage.png")) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        return float((np.abs(pixels - colour).max(axis=-1) < 40).mean())

    missing = (213, 94, 0)
    run_qa(store, manifest)
    assert share(missing) < 0.002  # the legend's patch
    store.delete(manifest.shards[3].path)
    run_qa(store, manifest)
    # a quarter of the map, which is two thirds of the picture
    assert 0.1 < share(missing) < 0.25
    for name in ("pca.png", "norms.png"):
        with Image.open(store.uri(f"qa/{ID}/{name}")) as picture:
            assert 900 < picture.width < 1000


def _content(store: ObjectStore) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(store.root).rglob("*") if path.is_file()}


@pytest.mark.usefixtures("plain_pictures")
def test_a_dry_run_tries_thresholds_and_changes_no_file(store: ObjectStore) -> None:
    run_qa(store, _manifest(store))
    before = _content(store)
    report = check_dataset(store, ID, QaThresholds(max_mean_cosine=-0.9), dry_run=True)
    assert _breached(report) == {"mean_cosine"}
    with pytest.raises(QaError, match=r"'scene' would not pass .* `max_mean_cosine=-0.9`; nothing was changed$"):
        report.check()
    assert check_dataset(store, ID, dry_run=True).passed
    assert _content(store) == before
    assert _manifest(store).state == "ready"
    assert QaReport.model_validate_json(report.model_dump_json()) == report
    assert b"dry_run" not in before[str(Path(store.root) / DatasetLayout(ID).qa_report)]


def test_the_summary_counts_metrics_by_status_with_the_reasons(store: ObjectStore) -> None:
    manifest = _manifest(store)
    few = judge_dataset(store, manifest, QaThresholds(min_neighbour_pairs=1000, max_mean_cosine=-0.9))
    assert few.summary() == (
        "20 passed, 1 breached (mean_cosine), 2 not judged because not enough pairs of neighbours: 480, "
        "but at least 1000 are needed"
    )
    whole = judge_dataset(store, manifest)
    assert whole.summary() == f"{len(whole.metrics)} passed"
    assert f"\nMetrics: {few.summary()}.\n" in markdown(few)


ODD_NAMES = [
    r"a $\frac$ b",  # This is a formula that matplotlib cannot read.
    "price $5 and $6",
    "\x01\x1b[31mred\x1b[0m \u202e",
    "東京 \U0001f600 system",
    "^_%#&\\",
]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.filterwarnings("error")
def test_names_of_crs_and_unit_are_drawn_letter_by_letter(name: str, store: ObjectStore) -> None:
    plan = Dataset(store, _manifest(store)).plan
    quoted = name.replace('"', '""')
    wkt = (
        f'PROJCS["{quoted}",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
        'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
        'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",27],PARAMETER["scale_factor",0.9996],'
        f'PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["{quoted}",1]]'
    )
    odd = plan.model_copy(update={"profile": plan.profile.model_copy(update={"crs_wkt": wkt})})
    labels = (f"embedded {name}", "missing")
    status = StatusMap(labels, (1, 0), np.zeros((plan.sharding.rows, plan.sharding.cols), np.uint8))
    picture = draw_coverage(Heading(ID, name, untrained=False), odd, status, overview=None)
    assert Image.open(io.BytesIO(picture)).format == "PNG"


def test_a_picture_that_fails_is_a_note_and_the_dataset_gets_its_state(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_state(store, _manifest(store), "embedded")

    def fail(*_: object) -> bytes:
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr("rasterembed.qa.pictures.draw_pca", fail)
    report = check_dataset(store, ID)
    assert report.pictures == ("coverage.png", "norms.png", "pca.tif")
    assert report.notes == ("pca.png could not be drawn: ValueError: first line second line",)
    assert _manifest(store).state == "ready"
    assert "- pca.png could not be drawn: ValueError: first line second line" in markdown(report)


@pytest.mark.usefixtures("plain_pictures")
def test_a_report_replaces_an_earlier_one_whole(store: ObjectStore) -> None:
    manifest = _manifest(store)
    run_qa(store, manifest)
    for shard in manifest.shards:
        store.delete(shard.path)
    report = run_qa(store, manifest)
    assert (
        set(store.sizes(f"qa/{ID}"))
        == {*report.pictures, "report.json", "report.md"}
        == {
            "coverage.png",
            "report.json",
            "report.md",
        }
    )


@pytest.mark.usefixtures("plain_pictures")
def test_float16_vectors_pass(good: Path, tmp_path: Path, tiny_vit: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    manifest = embed_raster(
        store,
        str(good.parent / "scene.tif"),
        EmbedOptions(
            dataset_id="half",
            grid=Grid(size=64, edge="shift"),
            model=Dinov3(model=str(tiny_vit)),
            selection=Selection(vector_dtype="float16"),
        ),
    ).manifest
    judge_dataset(store, manifest).check()


def test_damage_is_found_in_int8_vectors(tmp_path: Path) -> None:
    """Scales that are not finite, that are zero, or that do not fit the norm are counted. Rounded norms are not."""
    store, dimensions, count = ObjectStore(root=str(tmp_path / "store")), 6, 100
    vectors = np.random.default_rng(0).standard_normal((count, dimensions)).astype(np.float32)
    manifest = write_dataset(
        store,
        ID,
        blank_raster(tmp_path / "raster.tif", 10, 10),
        Dinov3(model=str(checkpoint(tmp_path / "model", dimensions))),
        vectors,
        vector_dtype="int8",
    )
    path = Path(store.uri(manifest.shards[0].path))
    rows = pq.read_table(path)
    exact = np.linalg.norm(vectors, axis=1)
    rounded = np.linalg.norm(Dataset.open(store, ID).vectors(), axis=1)
    assert (np.abs(rounded / exact - 1) > 1e-3).any(), "the rounding must be larger than the tolerance of other types"
    scale = rows["scale"].to_numpy().copy()
    scale[0], scale[1], scale[2] = np.nan, 0, scale[2] * 1.2
    changed = rows.set_column(rows.schema.get_field_index("scale"), rows.schema.field("scale"), pa.array(scale))
    pq.write_table(changed, path)
    report = judge_dataset(store, manifest)
    names = rows["tile_id"].to_pylist()
    for metric, expected in (("vectors_not_finite", 0), ("vectors_zero", 1), ("norms_wrong", 2)):
        assert (_metric(report, metric).value, _metric(report, metric).examples) == (1, (names[expected],))


@pytest.mark.usefixtures("plain_pictures")
def test_a_dataset_on_s3_is_measured_the_same(
    good: Path, moto: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto.create_bucket(bucket)
    store = ObjectStore(
        root=f"s3://{bucket}/a [b]*",  # no character of a prefix may be taken for a pattern
        endpoint_url=moto.endpoint_url,
        access_key=moto.access_key,
        secret_key=moto.secret_key,
    )
    for path in good.rglob("*"):
        if path.is_file() and "qa" not in path.parts:
            store.write(str(path.relative_to(good)), path.read_bytes())
    raster = Path(_manifest(store).configuration["source"]["uri"])
    refused = judge_dataset(store, _manifest(store))
    assert _metric(refused, "coverage").status == "not judged"
    assert f"{raster}: a dataset in {store.root} names this local file" in _metric(refused, "coverage").note
    # Only these ways let a store on S3 name a local raster.
    assert _metric(judge_dataset(store.allowing(str(raster)), _manifest(store)), "coverage").value == 1.0
    monkeypatch.setenv("RASTEREMBED_LOCAL_RASTERS", f"/nowhere:{raster.parent}")

    remote, local = run_qa(store, _manifest(store)), judge_dataset(ObjectStore(root=str(good)), _manifest(store))
    assert remote.metrics == local.metrics
    assert remote.passed
    assert set(store.sizes(f"qa/{ID}")) == {*remote.pictures, "report.json", "report.md"}

    missing = pytest.raises(ObjectMissingError, match=r"a \[b\]\*/nothing.*there is no such object")
    with duck.connect() as con, missing, duck.readable_errors(con, "dataset"):
        duck.scan(con, store, ["nothing"])


def test_the_vss_extension_loads_from_its_wheel() -> None:
    with duck.connect() as con:
        assert duck.load_vss(con)
        assert con.execute("SELECT loaded FROM duckdb_extensions() WHERE extension_name = 'vss'").fetchone() == (True,)
        assert con.execute("SELECT current_setting('allow_unsigned_extensions')").fetchone() == (False,)


@pytest.mark.usefixtures("plain_pictures")
def test_the_state_of_another_runs_manifest_is_not_changed(store: ObjectStore) -> None:
    manifest = _manifest(store)
    failed = set_state(store, manifest, "failed_qa")
    assert (_manifest(store).state, failed.state) == ("failed_qa", "failed_qa")
    assert set_state(store, failed, "ready") == _manifest(store)
    _write_manifest(store, manifest, run_id="another")
    with pytest.raises(DataError, match="written by another run in the meantime"):
        set_state(store, manifest, "ready")
