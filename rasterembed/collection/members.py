"""The ids of the datasets in a collection. The id alone tells which collection a dataset belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rasterembed.raster.source import ascii_dataset_id
from rasterembed.store.layout import (
    DATASETS_FOLDER,
    MAX_ID_LETTERS,
    CollectionLayout,
    check_dataset_id,
    dataset_id_of_manifest,
)
from rasterembed.store.object_store import ObjectStore

_DIGEST_AT_END = re.compile(r"(?:^|-)[a-z2-7]{16}$")
"""The digest of a scene's address, which ends the id that `ascii_dataset_id` gives."""


def member_id(collection_id: str, uri: str) -> str:
    """Return the id of the dataset of a scene in a collection.

    Two collections may hold the same scene with different configurations. The id therefore begins with the collection's
    id. It ends with the digest of the scene's address, as the default id of a dataset does. A letter that is not in
    ASCII becomes a dash: a run finds the scenes of existing collections by these ids.

    Args:
        collection_id: name of the collection.
        uri: absolute path of the scene, or s3://bucket/key.

    Example:
        >>> member_id("survey", "s3://bucket/a/Input 1.tif")
        'survey--bucket-a-input-1-vo2xc7huyiaxvppb'
    """
    head = CollectionLayout(collection_id).member_prefix
    # The digest is at the end, so the beginning of a long id is left out.
    return check_dataset_id(head + ascii_dataset_id(uri)[-(MAX_ID_LETTERS - len(head)) :].lstrip("-._"))


def is_member_id(collection_id: str, dataset_id: str) -> bool:
    """Return whether `member_id` can have given this id to a scene of the collection.

    A person may have given a dataset an id that begins with the same letters. Such an id has no digest at its end.

    Example:
        >>> is_member_id("survey", "survey--bucket-a-input-1-vo2xc7huyiaxvppb")
        True
        >>> is_member_id("survey", "survey--mine")
        False
    """
    prefix = CollectionLayout(collection_id).member_prefix
    return dataset_id.startswith(prefix) and _DIGEST_AT_END.search(dataset_id.removeprefix(prefix)) is not None


def find_members(store: ObjectStore, collection_id: str) -> Iterator[str]:
    """Yield the ids of the datasets that a collection made and that have a manifest.

    Only the datasets whose ids begin with the id of the collection are listed.

    Raises:
        UsageError: if the id of the collection is not allowed.
        StoreError: if the store refuses or does not answer.
    """
    for key, _ in store.find(DATASETS_FOLDER, CollectionLayout(collection_id).member_prefix):
        dataset_id = dataset_id_of_manifest(key)
        if dataset_id is not None and is_member_id(collection_id, dataset_id):
            yield dataset_id
