"""Verify a collection: compare its catalogue, its table and the files of its scenes with what describes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rasterembed.collection.catalogue import Catalogue, read_catalogue
from rasterembed.collection.collection import Collection
from rasterembed.collection.configuration import why_no_member
from rasterembed.collection.members import find_members, is_member_id
from rasterembed.collection.scene_row import SceneRow, SceneState
from rasterembed.collection.stac_collection import NOT_ENDED, CollectionState, stac_text
from rasterembed.collection.stac_model import stac_model
from rasterembed.collection.summaries import stored_numbers
from rasterembed.collection.table import read_table, signature_of
from rasterembed.dataset.manifest import Manifest, read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.verify import Damage, DamageKind, compare_file, delete_and, verify_dataset
from rasterembed.errors import DataError, StoreUnavailableError
from rasterembed.number_text import counted
from rasterembed.store.dataset_owner import embed_without
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command


def verify_collection(collection: Collection) -> Iterator[Damage | None]:
    """Read all files of a collection and of its scenes, and yield the result for each file: its damage, or None.

    - The numbers in the STAC Collection are compared with the catalogue.
    - The STAC Item of the model is compared with the configuration.
    - Each row of the catalogue is compared with the manifest of the scene. A manifest without a row is reported too.
    - The settings of each dataset are compared with those of the collection.
    - The files of the table are compared with the sizes and digests in its description, and the description with the
      catalogue.
    - The files of each scene are verified by `rasterembed.dataset.verify.verify_dataset`.

    Args:
        collection: the collection.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    rebuild = f"run {store_command(collection.store, f'collection rebuild {collection.id}')}"
    if collection.state is CollectionState.EMBEDDING:
        rebuild = NOT_ENDED
    try:
        catalogue = read_catalogue(collection.store, collection.layout)
    except StoreUnavailableError:
        raise
    except DataError as error:
        yield _unreadable(collection, collection.layout.catalogue, error)
        return
    if catalogue is None and collection.state is CollectionState.READY:
        yield Damage(collection.layout.catalogue, DamageKind.MISSING, "the file is missing", rebuild)
        return
    catalogue = catalogue or Catalogue.of([])
    yield _check_numbers(collection, catalogue, rebuild)
    yield _check_model(collection, rebuild)
    yield from _check_table(collection, catalogue, rebuild)
    known = set()
    for row in catalogue.rows():
        known.add(row.id)
        if row.state is not SceneState.FAILED:
            yield from _check_scene(collection, row, rebuild)
    for dataset_id in find_members(collection.store, collection.id):
        if dataset_id not in known:
            yield _unknown(collection, dataset_id, rebuild)


def find_lost(store: ObjectStore, collection_id: str, catalogue: Catalogue) -> tuple[str, ...]:
    """Return the ids of the scenes whose datasets the store does not have any more. No object is read.

    Only datasets that were made for the collection are looked for: one listing finds all of them.

    Args:
        store: store of the collection.
        collection_id: name of the collection.
        catalogue: catalogue of the collection.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    embedded = catalogue.filter(states=set(SceneState) - {SceneState.FAILED}).table["id"].to_pylist()
    made = [dataset_id for dataset_id in embedded if is_member_id(collection_id, dataset_id)]
    existing = set(find_members(store, collection_id)) if made else set()
    return tuple(dataset_id for dataset_id in made if dataset_id not in existing)


def _unreadable(collection: Collection, key: str, error: DataError) -> Damage:
    reason, _, remedy = str(error).removeprefix(f"{collection.store.uri(key)}: ").rpartition(": ")
    return Damage(key, DamageKind.UNREADABLE, reason, remedy)


def _check_numbers(collection: Collection, catalogue: Catalogue, rebuild: str) -> Damage | None:
    """Compare the numbers of scenes and vectors in the STAC Collection with the catalogue."""
    key = collection.layout.stac_collection
    try:
        stored = stored_numbers(collection.store, collection.layout)
    except StoreUnavailableError:
        raise
    except DataError as error:
        return _unreadable(collection, key, error)
    if stored is None:
        return Damage(key, DamageKind.MISSING, "the file is missing", "restore the file")
    if stored == (catalogue.counts(), catalogue.vectors):
        return None
    found = (
        f"it says {counted(stored[1], 'vector')} in {counted(sum(stored[0].values()), 'scene')}, and the catalogue has "
    )
    found += f"{catalogue.vectors} in {catalogue.count}"
    return Damage(key, DamageKind.OTHER_CONTENT, found, rebuild)


def _check_model(collection: Collection, rebuild: str) -> Damage | None:
    """Compare the STAC Item of the model with the collection's configuration."""
    key, expected = collection.layout.stac_model, stac_text(stac_model(collection.layout, collection.configuration))
    try:
        found = collection.store.read(key, len(expected) + 1)
    except StoreUnavailableError:
        raise
    except DataError as error:
        return _unreadable(collection, key, error)
    if found is None:
        return Damage(key, DamageKind.MISSING, "the file is missing", rebuild)
    if found != expected:
        return Damage(key, DamageKind.OTHER_CONTENT, "it does not describe the model of the collection", rebuild)
    return None


def _check_table(collection: Collection, catalogue: Catalogue, rebuild: str) -> Iterator[Damage | None]:
    store, layout = collection.store, collection.layout
    try:
        table = read_table(store, layout)
    except StoreUnavailableError:
        raise
    except DataError as error:
        yield replace(_unreadable(collection, layout.table, error), remedy=delete_and(rebuild))
        return
    if table is None:
        return
    right = table.signature == signature_of(collection.configuration, catalogue)
    found = "the table has other scenes than the catalogue"
    yield None if right else Damage(layout.table, DamageKind.OTHER_CONTENT, found, rebuild)
    for part in table.parts:
        damage = compare_file(store, part.path, part.sha256, part.bytes, described_by="table.json")
        yield None if damage is None else damage.with_remedy(rebuild)


def _check_scene(collection: Collection, row: SceneRow, rebuild: str) -> Iterator[Damage | None]:
    """Compare a row of the catalogue with the manifest of the scene, and verify the files of the scene."""
    store, key = collection.store, DatasetLayout(row.id).manifest
    again = embed_without(collection.id, row.id)
    try:
        manifest = read_manifest(store, row.id)
    except StoreUnavailableError:
        raise
    except DataError as error:
        yield replace(_unreadable(collection, key, error), remedy=again)
        return
    if manifest is None:
        yield Damage(key, DamageKind.MISSING, "the file is missing", again)
        return
    other = _other_settings(collection, manifest)
    difference = _difference(row, manifest)
    if other is not None:
        yield Damage(key, DamageKind.OTHER_CONTENT, f"the dataset {other}", again)
    else:
        yield None if difference is None else Damage(key, DamageKind.OTHER_CONTENT, difference, rebuild)
    for damage in verify_dataset(store, manifest):
        yield None if damage is None else replace(damage, remedy=again)


def _unknown(collection: Collection, dataset_id: str, rebuild: str) -> Damage:
    """Return the damage for a dataset of the collection that the catalogue does not have."""
    key, found = DatasetLayout(dataset_id).manifest, "the catalogue does not have this dataset"
    manifest = read_manifest(collection.store, dataset_id)
    other = None if manifest is None else _other_settings(collection, manifest)
    if other is None:
        return Damage(key, DamageKind.OTHER_CONTENT, found, rebuild)
    return Damage(key, DamageKind.OTHER_CONTENT, f"{found}, which {other}", embed_without(collection.id, dataset_id))


def _other_settings(collection: Collection, manifest: Manifest) -> str | None:
    """Return how the settings of a dataset differ from those of the collection. Return None if they do not."""
    try:
        plan = Plan.read(collection.store, manifest.dataset_id, manifest.fingerprint)
        return why_no_member(collection.configuration, plan, collection.layout.owner)
    except StoreUnavailableError:
        raise
    except DataError:  # `verify_dataset` reports a plan that cannot be read.
        return None


def _difference(row: SceneRow, manifest: Manifest) -> str | None:
    """Return the first difference between a row of the catalogue and a manifest, or None if there is none."""
    pairs = (
        ("state", manifest.state, row.state.value),
        ("rows", manifest.rows, row.rows),
        ("skipped", manifest.skipped, row.skipped),
        ("fingerprint", manifest.fingerprint, row.fingerprint),
    )
    for name, own, other in pairs:
        if own != other:
            return f"{name} is {own}, and the catalogue says {other}"
    return None
