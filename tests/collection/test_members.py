"""The id of a scene's dataset tells its collection and its scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rasterembed.collection.deletion import own_datasets
from rasterembed.collection.fixed_settings import settings_are_fixed
from rasterembed.collection.members import find_members, member_id
from rasterembed.store.dataset_owner import collection_of
from rasterembed.store.layout import CollectionLayout, DatasetLayout, check_dataset_id
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import ObjectInfo


@pytest.mark.parametrize("collection_id", ["a", "survey-2026", "x" * 63])
@pytest.mark.parametrize(
    "uri", ["/data/a.tif", "s3://bucket/" + "folder/" * 60 + "scene.tif", "/données/é.tif", "/.tif"]
)
def test_ids_are_allowed_unique_and_name_their_collection(collection_id: str, uri: str) -> None:
    member = member_id(collection_id, uri)
    assert check_dataset_id(member) == member
    assert collection_of(member) == collection_id
    assert member != member_id(collection_id, uri + "f")
    assert member != member_id("other", uri)


def test_only_the_datasets_of_the_collection_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(root=str(tmp_path))
    whole, part = (member_id("survey", f"/data/{name}.tif") for name in "ab")
    others = (member_id("survey-2", "/data/a.tif"), "survey--mine", "alone")
    for dataset_id in (whole, *others):
        store.write(DatasetLayout(dataset_id).manifest, b"{}")
    store.write(f"{DatasetLayout(part).dataset_folder}/plan-0123456789ab.json", b"{}")
    find, seen = ObjectStore.find, set()

    def recorded(self: ObjectStore, *arguments: str) -> Iterator[tuple[str, ObjectInfo]]:
        for key, info in find(self, *arguments):
            seen.add(key.split("/")[1])
            yield key, info

    monkeypatch.setattr(ObjectStore, "find", recorded)
    assert list(find_members(store, "survey")) == [whole]
    assert own_datasets(store, "survey") == tuple(sorted((whole, part)))
    assert settings_are_fixed(store, CollectionLayout("survey"), None)
    assert not settings_are_fixed(store, CollectionLayout("other"), None)
    assert seen == {whole, part, "survey--mine"}
