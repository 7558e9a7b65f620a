"""Keys of a dataset's objects, and the dataset ids that may be part of one."""

from __future__ import annotations

import pytest

from rasterembed.errors import UsageError
from rasterembed.store.layout import CollectionLayout, DatasetLayout, dataset_id_of_manifest, dead_letter


def test_a_dataset_has_its_place_in_the_store() -> None:
    layout, fingerprint = DatasetLayout("scene-1.x_y"), "0123456789abcdef" * 4
    assert [
        layout.manifest,
        layout.stac_item,
        layout.plan(fingerprint),
        layout.tile_index,
        layout.shard(fingerprint, 42),
        layout.qa_folder,
        layout.vector_index_folder,
    ] == [
        "datasets/scene-1.x_y/manifest.json",
        "datasets/scene-1.x_y/stac-item.json",
        "datasets/scene-1.x_y/plan-0123456789ab.json",
        "tiles/scene-1.x_y/index.parquet",
        "embeddings/scene-1.x_y/part-0123456789ab-00042.parquet",
        "qa/scene-1.x_y",
        "indexes/scene-1.x_y",
    ]


@pytest.mark.parametrize(
    "dataset_id", ["", ".", "..", "../x", "a/b", "a\\b", "-a", ".a", "A", "ä", "a b", "a\n", "a" * 129, "a\0"]
)
def test_names_that_are_no_dataset_are_refused(dataset_id: str) -> None:
    with pytest.raises(UsageError, match=r"is not allowed: use 1 to 128 of a-z 0-9"):
        DatasetLayout(dataset_id)


@pytest.mark.parametrize("dataset_id", ["a", "0", "a.b_c-d", "a..b", "a" * 128])
def test_other_names_are_allowed(dataset_id: str) -> None:
    assert DatasetLayout(dataset_id).dataset_id == dataset_id


def test_the_files_beside_a_dataset_have_their_place_too() -> None:
    layout = DatasetLayout("scene")
    assert [
        layout.lease(7),
        layout.qa_report,
        layout.qa_report_markdown,
        layout.qa_file("pca.png"),
        layout.vector_index_info,
        layout.vector_index_file("hnsw.duckdb"),
        dead_letter("0123456789abcdef" * 4),
    ] == [
        "datasets/scene/lease/00000007.json",
        "qa/scene/report.json",
        "qa/scene/report.md",
        "qa/scene/pca.png",
        "indexes/scene/index.json",
        "indexes/scene/hnsw.duckdb",
        "dead-letters/uploads/0123456789abcdef0123456789abcdef.json",
    ]


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("embeddings/scene/part-0123456789ab-00042.parquet", False),
        ("embeddings/scene/part-ffffffffffff-00042.parquet", True),
        ("datasets/scene/plan-0123456789ab.json", False),
        ("datasets/scene/plan-ffffffffffff.json", True),
        ("datasets/scene/manifest.json", False),
        ("embeddings/scene/notes.txt", False),
    ],
)
def test_shards_and_plans_of_another_plan_are_told_from_ones_own(key: str, other: bool) -> None:
    assert DatasetLayout("scene").is_of_other_plan(key, "0123456789abcdef" * 4) is other


@pytest.mark.parametrize(
    ("key", "dataset_id"),
    [
        ("datasets/scene/manifest.json", "scene"),
        ("datasets/scene/stac-item.json", None),
        ("datasets/scene/lease/manifest.json", None),
        ("datasets/manifest.json", None),
    ],
)
def test_a_manifest_names_its_dataset(key: str, dataset_id: str | None) -> None:
    assert dataset_id_of_manifest(key) == dataset_id


def test_a_collection_has_its_place_in_the_store() -> None:
    layout = CollectionLayout("survey-2026")
    assert [layout.stac_collection, layout.catalogue, layout.table_folder, layout.lease(7), layout.member_prefix] == [
        "collections/survey-2026/collection.json",
        "collections/survey-2026/items.parquet",
        "collections/survey-2026/table",
        "collections/survey-2026/lease/00000007.json",
        "survey-2026--",
    ]
    DatasetLayout(f"{layout.member_prefix}x")


@pytest.mark.parametrize("collection_id", ["", "../x", "A", "a--b", "a-", "-a", "a/b", "a" * 64, "a\n"])
def test_names_that_are_no_collection_are_refused(collection_id: str) -> None:
    with pytest.raises(UsageError, match="is not allowed: use 1 to 63 of a-z 0-9"):
        CollectionLayout(collection_id)
