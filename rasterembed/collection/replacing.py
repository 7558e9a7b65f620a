"""Refuse to delete a dataset that collections have, or to replace it by one with other settings."""

from __future__ import annotations

from collections.abc import Iterator

from rasterembed.collection.collection import Collection
from rasterembed.collection.configuration import why_no_member
from rasterembed.dataset.deletion import refuse_member
from rasterembed.dataset.manifest import read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.errors import ConfigurationChangedError, DataError, StoreError, UsageError
from rasterembed.store.known_collections import list_collections
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command


def check_replacement(store: ObjectStore, plan: Plan) -> None:
    """Refuse a plan that replaces the dataset of a scene in a collection, if it has other settings than the collection.

    The id of a dataset that joined a collection does not tell the collection. The catalogues of all collections are
    therefore read, but only if the plan replaces another dataset. A collection that cannot be read is left out.

    Args:
        store: store of the dataset.
        plan: plan of the new dataset.

    Raises:
        ConfigurationChangedError: if a collection has the dataset, and the settings differ. The text names each
            difference, and says what to do.
        StoreError: if the store refuses or does not answer.
    """
    if not _replaces(store, plan):
        return
    for collection in collections_with(store, plan.dataset_id):
        owner = collection.layout.owner
        why = why_no_member(collection.configuration, plan, owner)
        if why is not None:
            raise ConfigurationChangedError(
                f"dataset {plan.dataset_id!r} is a scene of {owner}, and the new one {why}: choose another dataset id, "
                f"or {_remove_first(collection, plan.dataset_id)}"
            )


def check_deletion(store: ObjectStore, dataset_id: str) -> None:
    """Refuse to delete a dataset that a collection has as a scene, also if the dataset joined the collection.

    The catalogues of all collections are read, as in `check_replacement`. A collection that cannot be read is left out.

    Args:
        store: store of the dataset.
        dataset_id: name of the dataset.

    Raises:
        UsageError: if a collection has the dataset. The text has the command that removes the scene.
        StoreError: if the store refuses or does not answer.
    """
    refuse_member(store, dataset_id)
    for collection in collections_with(store, dataset_id):
        raise UsageError(
            f"dataset {dataset_id!r} is a scene of {collection.layout.owner}: {_remove_first(collection, dataset_id)}"
        )


def _remove_first(collection: Collection, dataset_id: str) -> str:
    command = store_command(collection.store, f"collection remove-scene {collection.id} {dataset_id}")
    return f"remove the scene from the collection first ({command})"


def collections_with(store: ObjectStore, dataset_id: str) -> Iterator[Collection]:
    """Yield the collections whose catalogues have a dataset. A collection that cannot be read is left out.

    Args:
        store: store of the dataset.
        dataset_id: name of the dataset.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    for collection_id in list_collections(store):
        try:
            collection = Collection.open(store, collection_id)
            is_scene = collection.catalogue.state_of(dataset_id) is not None
        except StoreError:
            raise
        except DataError:
            continue
        if is_scene:
            yield collection


def _replaces(store: ObjectStore, plan: Plan) -> bool:
    """Return whether the store has the dataset with another configuration, or with a manifest that cannot be read."""
    try:
        manifest = read_manifest(store, plan.dataset_id)
    except StoreError:
        raise
    except DataError:
        return True
    return manifest is not None and manifest.fingerprint != plan.fingerprint
