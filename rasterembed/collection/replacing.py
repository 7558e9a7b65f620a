"""Refuse to replace a dataset that collections have by one with other settings."""

from __future__ import annotations

from rasterembed.collection.collection import Collection
from rasterembed.collection.configuration import why_no_member
from rasterembed.dataset.manifest import read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.errors import ConfigurationChangedError, DataError, StoreError
from rasterembed.store.known_collections import list_collections
from rasterembed.store.object_store import ObjectStore


def check_replacement(store: ObjectStore, plan: Plan) -> None:
    """Refuse a plan that replaces the dataset of a scene in a collection, if it has other settings than the collection.

    The id of a dataset that joined a collection does not tell the collection. The catalogues of all collections are
    therefore read, but only if the plan replaces another dataset. A collection that cannot be read has no say.

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
    for collection_id in list_collections(store):
        try:
            collection = Collection.open(store, collection_id)
            is_scene = collection.catalogue.state_of(plan.dataset_id) is not None
        except StoreError:
            raise
        except DataError:
            continue
        owner = collection.layout.owner
        why = why_no_member(collection.configuration, plan, owner) if is_scene else None
        if why is not None:
            raise ConfigurationChangedError(
                f"dataset {plan.dataset_id!r} is a scene of {owner}, and the new one {why}: choose another dataset id, "
                "or remove the scene from the collection first "
                f"(`rasterembed collection remove-scene {collection_id} {plan.dataset_id}`)"
            )


def _replaces(store: ObjectStore, plan: Plan) -> bool:
    """Return whether the store has the dataset with another configuration, or with a manifest that cannot be read."""
    try:
        manifest = read_manifest(store, plan.dataset_id)
    except StoreError:
        raise
    except DataError:
        return True
    return manifest is not None and manifest.fingerprint != plan.fingerprint
