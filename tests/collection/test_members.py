"""The id of a scene's dataset tells its collection and its scene."""

from __future__ import annotations

import pytest

from rasterembed.collection.members import collection_of, member_id
from rasterembed.store.layout import check_dataset_id


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
