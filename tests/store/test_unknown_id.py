"""Errors about a name that a store does not have."""

from __future__ import annotations

from pathlib import Path

from rasterembed.store.known_collections import unknown_collection
from rasterembed.store.known_datasets import unknown_dataset
from rasterembed.store.object_store import ObjectStore


def test_a_collection_is_told_from_a_dataset(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    store.write("datasets/scene/manifest.json", b"{}")
    store.write("collections/survey/collection.json", b"{}")

    assert str(unknown_dataset(store, "survey")) == (
        f"there is no dataset 'survey' in {tmp_path}: 'survey' is a collection: give `collection=survey` where a "
        "command takes both, or see `rasterembed collection show survey`"
    )
    assert "'scene' is a dataset: give `dataset=scene` where " in str(unknown_collection(store, "scene"))
    assert str(unknown_collection(store, "surveys")).endswith("check the id and the root; the store has survey")


def test_an_empty_prefix_cannot_be_told_from_a_missing_one() -> None:
    assert "S3 does not tell an empty prefix from one that does not exist" in ObjectStore(root="s3://b/typo").why_empty
