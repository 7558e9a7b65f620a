"""Make the catalogue of a collection from the manifests of its scenes, which are the truth."""

from __future__ import annotations

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.members import member_id
from rasterembed.collection.scene_row import SceneRow, embedded_row
from rasterembed.collection.threaded import map_threaded
from rasterembed.dataset.manifest import read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.store.layout import DATASETS_FOLDER, CollectionLayout, dataset_id_of_manifest
from rasterembed.store.object_store import ObjectStore


def catalogue_of_manifests(store: ObjectStore, layout: CollectionLayout) -> Catalogue:
    """Return a catalogue with all datasets of a collection. The folder of the datasets is listed once.

    The manifests do not know the listing of a scene. A listing that finds the scene again gives its address.

    Args:
        store: store of the collection.
        layout: layout of the collection.

    Raises:
        DataError: if the manifest or the plan of a scene cannot be read.
        StoreError: if the store refuses or does not answer.
    """
    ids = [dataset_id_of_manifest(key) for key, _ in store.find(DATASETS_FOLDER)]
    own = [dataset_id for dataset_id in ids if dataset_id is not None and dataset_id.startswith(layout.member_prefix)]
    rows = map_threaded(lambda dataset_id: _row(store, layout, dataset_id), own)
    return Catalogue.of(row for row in rows if row is not None)


def _row(store: ObjectStore, layout: CollectionLayout, dataset_id: str) -> SceneRow | None:
    """Return the row of a dataset, or None if it was deleted, or if a person only gave it such an id."""
    manifest = read_manifest(store, dataset_id)
    if manifest is None:
        return None
    plan = Plan.read(store, dataset_id, manifest.fingerprint)
    if member_id(layout.collection_id, plan.source.uri) != dataset_id:
        return None
    return embedded_row("", plan, manifest)
