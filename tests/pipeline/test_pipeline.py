"""The pipeline: its steps, its end states, and what the receipts say about how vectors were computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from pydantic import SecretStr
from rasterio.transform import Affine

import rasterembed.pipeline
from rasterembed.commands.embed_steps import TerminalSteps
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.embedding import Execution
from rasterembed.errors import DataError, UsageError
from rasterembed.pipeline import EmbedOptions, Steps, check_dataset, embed_raster, why_nothing_was_embedded
from rasterembed.qa.metrics import Status
from rasterembed.qa.report import QaError
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.raster.validity import Validity
from rasterembed.search.index.verifying import verify_index
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.query import Query
from rasterembed.store.object_store import ObjectStore
from tests.support.runs import DATASET, SHARDS, choices, vectors, write_raster
from tests.support.servers import S3Server

pytestmark = pytest.mark.usefixtures("plain_pictures")

TOO_STRICT = QaThresholds(max_mean_cosine=-1.0)
"""No dataset passes this: the mean cosine of all pairs is never so small."""


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture
def raster(tmp_path: Path) -> str:
    return str(write_raster(tmp_path / "scene.tif"))


@pytest.fixture
def options(tiny_vit: Path) -> EmbedOptions:
    return EmbedOptions(**choices(tiny_vit))


def test_only_the_run_that_was_given_a_local_raster_reads_it_for_a_store_on_s3(
    moto: S3Server, bucket: str, raster: str, options: EmbedOptions
) -> None:
    moto.create_bucket(bucket)
    store = ObjectStore(
        root=f"s3://{bucket}/x",
        endpoint_url=moto.endpoint_url,
        access_key=SecretStr(moto.access_key),
        secret_key=SecretStr(moto.secret_key),
    )
    same_run = embed_raster(store, raster, options).report
    later = check_dataset(store, DATASET)
    assert same_run is not None
    coverage = [next(m for m in report.metrics if m.name == "coverage") for report in (same_run, later)]
    assert [metric.status for metric in coverage] == [Status.PASSED, Status.NOT_JUDGED]
    assert f"{raster}: a dataset in s3://{bucket}/x names this local file" in coverage[1].note

    (listed,) = store.datasets()
    dataset = Dataset.open(store, listed.id)
    assert (listed.state, dataset.verify()) == ("ready", ())
    dataset.delete()
    assert (store.datasets(), list(store.find("embeddings"))) == ([], [])


@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_the_plan_of_a_ready_dataset_is_written_again(
    damage: str, store: ObjectStore, raster: str, options: EmbedOptions
) -> None:
    plan = embed_raster(store, raster, options).plan
    key, whole = plan.layout.plan(plan.fingerprint), store.read(plan.layout.plan(plan.fingerprint))
    if damage == "lost":
        store.delete(key)
    else:
        store.write(key, b"{}")
    with pytest.raises(DataError, match=r"embed the raster again with the same options to write the plan again$"):
        Dataset.open(store, DATASET).search(Query(tile="r000000_c000000"))

    steps = Recorded()
    assert embed_raster(store, raster, options, steps=steps).already_complete
    assert "embed" not in steps.names
    assert store.read(key) == whole
    assert Dataset.open(store, DATASET).search(Query(tile="r000000_c000000")).hits


class Recorded(Steps):
    """Records the names of the steps that run."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if callable(value) and not name.startswith("_"):
            object.__getattribute__(self, "names").append(name)
        return value


class Warned(Steps):
    """Keeps the warnings of a run."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, message: str) -> None:
        self.warnings.append(message)


def test_every_step_runs_once_and_in_order(store: ObjectStore, raster: str, options: EmbedOptions) -> None:
    steps = Recorded()
    result = embed_raster(store, raster, options, steps=steps, run_id="first")
    assert steps.names == [
        *("register", "inspect", "plan", "on_wait", "prepare", "show_progress", "embed"),
        *("commit", "check_quality", "index_vectors", "on_indexed", "on_end"),
    ]
    assert result.manifest.state == "ready"
    assert result.manifest.run_id == "first"
    assert result.report is not None
    assert result.report.passed
    assert store.read(f"qa/{DATASET}/report.json") is not None


def test_a_second_run_does_nothing_after_the_plan(store: ObjectStore, raster: str, options: EmbedOptions) -> None:
    first = embed_raster(store, raster, options)
    steps = Recorded()
    second = embed_raster(store, raster, options, steps=steps)
    assert steps.names == ["register", "inspect", "plan", "on_end"]
    assert second.manifest == first.manifest
    assert second.report is None


def test_a_run_over_a_complete_dataset_changes_its_vector_index(
    store: ObjectStore, raster: str, options: EmbedOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(**search: Any) -> set[str]:
        index = VectorIndexOptions(**search)
        changed = options.model_copy(update={"search": index})
        assert embed_raster(store, raster, changed, steps=TerminalSteps()).already_complete
        return {key.rsplit("/", 1)[-1].split("-")[0] for key, _ in store.find(f"indexes/{DATASET}")}

    embed_raster(store, raster, options)
    assert run() == set()
    segment = {"index.json", "rows", "vectors", "codes"}
    assert run(index="always", index_engine="flat") == segment
    assert Dataset.open(store, DATASET).search(Query(tile="r000000_c000000")).engines[0].name == "flat"
    assert run() == segment, "the default setting leaves the index of a small dataset as it is"
    assert run(index="always", index_engine="ivf", index_lists=2) == segment
    assert Dataset.open(store, DATASET).search(Query(tile="r000000_c000000")).engines[0].name == "ivf"
    capfd.readouterr()
    assert run(index="never") == set()
    assert capfd.readouterr().err == "vector index: the index was removed: the options turn it off\n"
    assert run(index="never") == set()
    assert capfd.readouterr().err == ""
    assert run(index_min_rows=1) == segment


@pytest.mark.parametrize("file", ["index.json", "codes", "vectors"])
def test_a_run_builds_a_damaged_index_of_a_small_dataset_again(
    store: ObjectStore, raster: str, options: EmbedOptions, file: str
) -> None:
    with_index = options.model_copy(update={"search": VectorIndexOptions(index="always", index_engine="ivf")})
    embed_raster(store, raster, with_index)
    (key,) = (key for key, _ in store.find(f"indexes/{DATASET}") if key.rsplit("/", 1)[-1].startswith(file))
    store.write(key, b"junk")
    assert [damage.key for damage in verify_index(Dataset.open(store, DATASET)) if damage is not None] == [key]
    embed_raster(store, raster, options)
    assert list(filter(None, verify_index(Dataset.open(store, DATASET)))) == []
    used = Dataset.open(store, DATASET).search(Query(tile="r000000_c000000")).engines[0].name
    assert used == ("flat" if file == "index.json" else "ivf"), "only index.json knows the engine"


def test_a_dataset_without_vectors_says_why(store: ObjectStore, tmp_path: Path, options: EmbedOptions) -> None:
    pixels = np.full((1, 64, 64), 7, np.uint8)
    pixels[0, 0, 0] = 8
    with rasterio.open(
        tmp_path / "r.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8", crs="EPSG:32635",
        transform=Affine(10, 0, 360_000, 0, -10, 6_720_000),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)

    steps = Warned()
    declared = options.model_copy(update={"validity": Validity(nodata=7)})
    result = embed_raster(store, str(tmp_path / "r.tif"), declared, steps=steps)
    assert (result.manifest.state, result.manifest.rows) == ("ready", 0)
    assert steps.warnings == [
        f"{tmp_path}/r.tif: every tile was skipped (3 x no valid pixel, 1 x valid fraction below 0.05), so there is "
        "nothing to search: if its pixels do hold data, declare which are valid (`nodata`, `mask` or "
        "`ignore_alpha`)"
    ]
    # Tiles off Earth were not skipped for their pixels.
    assert why_nothing_was_embedded(result.plan, [{SkipReason.OFF_EARTH: (0, 1)}]) == (
        f"{tmp_path}/r.tif: every tile was skipped (2 x off Earth, beyond the edge of the map), so there is nothing to "
        "search: check the CRS and the position of the raster, and the `size` of a tile"
    )
    both = why_nothing_was_embedded(result.plan, [{SkipReason.OFF_EARTH: (0,), SkipReason.NO_VALID_PIXEL: (1,)}])
    assert both.endswith(" or `ignore_alpha`); check the CRS and the position of the raster, and the `size` of a tile")


def test_a_dataset_that_does_not_pass_its_checks_is_not_ready(
    store: ObjectStore, raster: str, options: EmbedOptions
) -> None:
    strict = options.model_copy(update={"qa": TOO_STRICT})
    steps = Recorded()
    with pytest.raises(QaError, match=r"mean_cosine is [\d.]+, more than `max_mean_cosine=-1`"):
        embed_raster(store, raster, strict, steps=steps)
    assert steps.names[-2:] == ["check_quality", "on_end"]
    assert Dataset.open(store, DATASET, states=("failed_qa",)).manifest.rows > 0
    with pytest.raises(DataError, match="did not pass its quality checks"):
        Dataset.open(store, DATASET)

    assert embed_raster(store, raster, options).manifest.state == "ready"


@pytest.mark.parametrize("part", ["vectors", "footer"])
def test_a_run_that_goes_on_with_a_checked_dataset_computes_damaged_shards_again(
    part: str, store: ObjectStore, raster: str, options: EmbedOptions
) -> None:
    strict = options.model_copy(update={"qa": TOO_STRICT})
    with pytest.raises(QaError):
        embed_raster(store, raster, strict)
    whole = vectors(store)
    shard = Path(store.root) / Dataset.open(store, DATASET, states=("failed_qa",)).shards[1].path
    damaged = bytearray(shard.read_bytes())
    group = pq.read_metadata(shard).row_group(0)
    columns = map(group.column, range(group.num_columns))
    (column,) = (column for column in columns if column.path_in_schema.startswith("embedding."))
    place = column.data_page_offset + column.total_compressed_size // 2 if part == "vectors" else len(damaged) - 100
    damaged[place] ^= 8
    shard.write_bytes(damaged)

    steps = Warned()
    assert embed_raster(store, raster, options, steps=steps).manifest.state == "ready"
    assert vectors(store) == whole
    assert steps.warnings == [
        "1 of 4 shards is missing, or not as the manifest says, and is computed again: the first one is " + shard.name
    ]


def test_without_quality_checks_the_dataset_waits_for_them(
    store: ObjectStore, raster: str, options: EmbedOptions
) -> None:
    unchecked = options.model_copy(update={"quality_checks": False})
    result = embed_raster(store, raster, unchecked)
    assert (result.manifest.state, result.report) == ("embedded", None)
    assert embed_raster(store, raster, unchecked).manifest == result.manifest
    with pytest.raises(DataError, match="its quality checks have not passed yet"):
        Dataset.open(store, DATASET)

    assert not check_dataset(store, DATASET, TOO_STRICT).passed
    assert Dataset.open(store, DATASET, states=("failed_qa",)).manifest.state == "failed_qa"
    assert check_dataset(store, DATASET).passed
    assert Dataset.open(store, DATASET).manifest.state == "ready"


def test_a_dataset_that_does_not_exist_is_named_and_so_are_near_ids(
    store: ObjectStore, raster: str, options: EmbedOptions
) -> None:
    with pytest.raises(UsageError, match=r"there is no dataset 'nothing' in .*: the store has no dataset"):
        check_dataset(store, "nothing")
    for name in ("helsinki", "helsinki-2026", "oslo"):
        embed_raster(store, raster, options.model_copy(update={"dataset_id": name, "quality_checks": False}))
    with pytest.raises(UsageError, match=r"check the id and the root; the store has helsinki, helsinki-2026, \.\.\.$"):
        Dataset.open(store, "helsinky")
    with pytest.raises(UsageError, match=r"; no dataset of the store has a similar id: list all datasets with `"):
        Dataset.open(store, "xyz")


def _receipts(store: ObjectStore) -> list[dict[str, Any]]:
    files = sorted(Path(store.root).glob(f"embeddings/{DATASET}/*.parquet"))
    return [json.loads(pq.read_metadata(file).metadata[b"raster_embeddings"]) for file in files]


def test_a_run_that_is_resumed_with_another_engine_says_so(
    store: ObjectStore, raster: str, options: EmbedOptions
) -> None:
    first = embed_raster(store, raster, options).manifest
    (eager,) = first.computations
    assert (eager.engine, eager.device) == ("eager", "cpu")
    assert eager.threads >= 1
    assert eager.processor
    lost = first.shards[1]
    store.delete(lost.path)

    another = options.model_copy(update={"execution": Execution(engine="openvino", batch_size=4, shard_threads=1)})
    second = embed_raster(store, raster, another).manifest

    assert [computation.engine for computation in second.computations] == ["eager", "openvino"]
    assert [shard.computation for shard in second.shards] == [eager, second.computations[1], eager, None]
    named = [receipt["computation"] and receipt["computation"]["engine"] for receipt in _receipts(store)]
    assert named == ["eager", "openvino", "eager", None]  # The last shard has no valid pixel.
    item = json.loads(store.read(second.stac_item) or b"")
    told = item["properties"]["emb:runtime_parameters"]["computations"]
    assert [computation["engine"] for computation in told] == ["eager", "openvino"]


def test_a_dataset_answers_for_its_tiles_vectors_and_search(
    store: ObjectStore, raster: str, options: EmbedOptions
) -> None:
    manifest = embed_raster(store, raster, options).manifest
    dataset = Dataset.open(store, DATASET)
    assert len(dataset.shards) == SHARDS
    tiles = dataset.tiles()
    assert len(tiles) == manifest.tiles
    assert tiles["status"].to_pylist().count("embedded") == manifest.rows
    assert {reason for reason in tiles["reason"].to_pylist() if reason} == {"no_valid_pixel"}

    expected = {
        row["tile_id"]: row["embedding"]
        for shard in manifest.shards
        for row in pq.read_table(store.uri(shard.path), columns=["tile_id", "embedding"]).to_pylist()
    }
    ids = [name for batch in dataset.batches(["tile_id"]) for name in batch.column(0).to_pylist()]
    assert ids == list(expected)
    np.testing.assert_array_equal(dataset.vectors(), np.array(list(expected.values()), np.float32))

    unit = dataset.vectors() / np.linalg.norm(dataset.vectors(), axis=1, keepdims=True)
    nearest = np.argsort(-(unit @ unit[0]), kind="stable")[1:4]
    answer = dataset.search(Query(tile=ids[0]), k=3)
    assert [hit.tile_id for hit in answer.hits] == [ids[n] for n in nearest]
    for k in (0, -1, 10_001, 1.5):
        with pytest.raises(UsageError, match=rf"^k is {k}: give a whole number from 1 to 10000, the number of tiles$"):
            dataset.search(Query(tile=ids[0]), k=k)


def test_a_failing_shard_stops_the_others_and_commits_nothing(
    store: ObjectStore, raster: str, options: EmbedOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_shard: Callable[..., Any] = rasterembed.pipeline.embed_shard

    def fail_at_the_second(store: ObjectStore, plan: Any, number: int, *rest: Any) -> Any:
        if number == 1:
            raise DataError("the second shard fails")
        return embed_shard(store, plan, number, *rest)

    monkeypatch.setattr(rasterembed.pipeline, "embed_shard", fail_at_the_second)
    with pytest.raises(DataError, match=r"^the second shard fails$"):
        embed_raster(store, raster, options)
    assert store.read(f"datasets/{DATASET}/manifest.json") is None
    assert not list(Path(store.root).rglob("*.part"))
