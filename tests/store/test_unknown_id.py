"""Errors about a name that a store does not have."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.deletion import delete_dataset
from rasterembed.errors import UsageError
from rasterembed.store.known_collections import unknown_collection
from rasterembed.store.known_datasets import check_known, unknown_dataset
from rasterembed.store.object_store import ObjectStore


def test_a_collection_is_told_from_a_dataset(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    store.write("datasets/scene/manifest.json", b"{}")
    store.write("collections/survey/collection.json", b"{}")

    assert str(unknown_dataset(store, "survey")) == (
        f"there is no dataset 'survey' in {tmp_path}: 'survey' is a collection: give `collection=survey` where a "
        "command takes both, use Collection.open in Python, or see "
        f"`rasterembed collection show survey --root {tmp_path}`"
    )
    assert "'scene' is a dataset: give `dataset=scene` where " in str(unknown_collection(store, "scene"))
    assert str(unknown_collection(store, "surveys")).endswith("check the id and the root; the store has survey")


def test_only_near_ids_are_named_and_the_advice_lists_all_ids(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "my store"))
    for name in ("mosaic", "autumn-mosaic", "survey-2026"):
        store.write(f"datasets/{name}/manifest.json", b"{}")
    store.write("collections/survey/collection.json", b"{}")

    assert str(unknown_dataset(store, "mosiac")).endswith("; the store has mosaic, ...")
    assert str(unknown_dataset(store, "mosa")).endswith("; the store has mosaic, autumn-mosaic, ...")
    for wanted in ("dem-of-the-alps", "q", "a"):
        far = str(unknown_dataset(store, wanted))
        assert "mosaic" not in far
        (command,) = re.findall(r"no dataset of the store has a similar id: list all datasets with `(.+)`$", far)
        assert shlex.split(command) == ["rasterembed", "datasets", "list", "--root", store.root]
    far = str(unknown_collection(store, "dem"))
    (command,) = re.findall(r"no collection of the store has a similar id: list all collections with `(.+)`$", far)
    assert shlex.split(command) == ["rasterembed", "collection", "list", "--root", store.root]


def test_the_name_of_a_raster_names_the_ids_that_were_made_of_it(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    made = "survey--tci-vo2xc7huyiaxvppb"
    store.write(f"datasets/{made}/manifest.json", b"{}")
    for read in (
        lambda name: check_known(store, [name]),
        lambda name: Dataset.open(store, name),
        lambda name: delete_dataset(store, name),
    ):
        for wanted in ("tci", "TCI", "tci.tif", "TCI.tif", "2026/TCI.tif"):
            with pytest.raises(UsageError, match=f"the store has {made}$"):
                read(wanted)
    with pytest.raises(UsageError, match=r"is not allowed: use 1 to 128 of a-z 0-9 . _ - and begin .* a digit$"):
        check_known(store, ["../far"])


def test_an_empty_prefix_cannot_be_told_from_a_missing_one() -> None:
    assert "S3 does not tell an empty prefix from one that does not exist" in ObjectStore(root="s3://b/typo").why_empty
