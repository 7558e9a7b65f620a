"""Make the catalogue of a collection from the manifests of its scenes, which are the truth."""

from __future__ import annotations

from collections.abc import Collection as Group
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.compared_colours import ComparedColours
from rasterembed.collection.configuration import (
    CollectionConfiguration,
    check_member,
    configuration_of,
    why_no_member,
)
from rasterembed.collection.members import member_id
from rasterembed.collection.scene_row import SceneRow, SceneState, embedded_row
from rasterembed.collection.threaded import map_threaded
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES, read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.errors import ConfigurationChangedError, DataError, StoreUnavailableError, UsageError
from rasterembed.store.dataset_owner import collection_of
from rasterembed.store.known_collections import list_collections
from rasterembed.store.known_datasets import matching_datasets
from rasterembed.store.layout import DATASETS_FOLDER, CollectionLayout, dataset_id_of_manifest, is_pattern
from rasterembed.store.object_store import ObjectStore


def catalogue_of_manifests(
    store: ObjectStore,
    layout: CollectionLayout,
    configuration: CollectionConfiguration,
    adopted: Sequence[SceneRow] = (),
    old: Catalogue | None = None,
) -> Catalogue:
    """Return a catalogue with all datasets of a collection. The folder of the datasets is listed once.

    The manifests do not know the listing of a scene, and whether the scene is gone. Both are taken from the old
    catalogue. The manifests do not know failures either. If a file changed and could not be embedded again, its
    manifest still describes its last good state. The failures of the old catalogue therefore stay, unless the manifest
    is of the same state of the file.

    Args:
        store: store of the collection.
        layout: layout of the collection.
        configuration: the settings that all scenes must have.
        adopted: rows of datasets whose ids do not begin with the id of the collection. See `adopt`.
        old: the catalogue that is replaced, if it can be read. Its failures and listings stay, and further datasets
            whose ids do not begin with the id of the collection, as long as they exist.

    Raises:
        ConfigurationChangedError: if a dataset has other settings.
        DataError: if the manifest or the plan of a scene cannot be read.
        StoreError: if the store refuses or does not answer.
    """
    ids = [dataset_id_of_manifest(key) for key, _ in store.find(DATASETS_FOLDER)]
    existing = [dataset_id for dataset_id in ids if dataset_id is not None]
    own = [dataset_id for dataset_id in existing if dataset_id.startswith(layout.member_prefix)]
    found = map_threaded(lambda dataset_id: _row(store, layout, configuration, dataset_id), own)
    members = [row for row in found if row is not None]
    known = set() if old is None else set(old.table["id"].to_pylist())
    further = known.difference(own, (row.id for row in adopted))
    kept = [dataset_id for dataset_id in existing if dataset_id in further]
    others = [*adopted, *map_threaded(lambda dataset_id: _adopted_row(store, layout, configuration, dataset_id), kept)]
    # A later run embedded the scene as a member of the collection. The older dataset is then superseded.
    sources = {row.source for row in members}
    rows = [*members, *(row for row in others if row.source not in sources)]
    failures = _later_failures(old, rows, {row.source for row in adopted})
    failed = {row.source for row in failures}
    return Catalogue.of([*failures, *_with_listings(old, (row for row in rows if row.source not in failed))])


def _with_listings(old: Catalogue | None, rows: Iterable[SceneRow]) -> Iterator[SceneRow]:
    """Yield rows with the listings of an old catalogue, and with its knowledge of which scenes are gone."""
    known = {}
    if old is not None:
        sources, *values = (old.table[name].to_pylist() for name in ("source", "listing", "gone"))
        known = dict(zip(sources, zip(*values, strict=True), strict=True))
    for row in rows:
        listing, gone = known.get(row.source, (row.listing, row.gone))
        yield replace(row, listing=listing, gone=gone)


def _later_failures(old: Catalogue | None, rows: Sequence[SceneRow], adopted: Group[str]) -> list[SceneRow]:
    """Return the failures of an old catalogue that are about another state of the file than its dataset.

    Args:
        old: the old catalogue, or None if it cannot be read.
        rows: rows of the datasets that exist.
        adopted: addresses of the scenes whose datasets a person named now.
    """
    if old is None:
        return []
    embedded = {row.source: (row.source_size, row.source_version) for row in rows}
    return [
        row
        for row in old.filter(states=[SceneState.FAILED]).rows()
        if row.source not in adopted and embedded.get(row.source) != (row.source_size, row.source_version)
    ]


@dataclass(frozen=True)
class Adopted:
    """Datasets that join a collection, although their ids do not begin with its id."""

    configuration: CollectionConfiguration
    """The configuration that all of them have."""
    rows: tuple[SceneRow, ...]
    """The row of each dataset in the catalogue."""
    warning: str | None
    """Warning if the scenes of the collection then have different black and white. See `ComparedColours`."""


def adopt(
    store: ObjectStore,
    layout: CollectionLayout,
    names: Sequence[str],
    wanted: CollectionConfiguration | None,
    old: Catalogue | None,
) -> Adopted:
    """Check datasets that a person wants to have in a collection, although their ids do not begin with its id.

    Args:
        store: store of the collection.
        layout: layout of the collection.
        names: names of datasets, and patterns such as `scene-*`. A pattern does not match the datasets of other
            collections.
        wanted: configuration of the collection. None for a new collection: the first dataset decides.
        old: catalogue of the collection, if it can be read. The colours of its first scene are compared too.

    Raises:
        UsageError: if the store has no dataset of a name, or none that matches a pattern.
        ConfigurationChangedError: if a dataset has another configuration. The text names each difference.
        DataError: if a dataset cannot be read, if a collection cannot have its configuration, or if two datasets are of
            the same raster.
    """
    plans: list[Plan] = []
    rows: dict[str, SceneRow] = {}
    colours, warnings = ComparedColours(), []
    chosen = _chosen(store, layout, names)
    present = _first_dataset(store, old, set(chosen))
    if present is not None:
        colours.warning(present.plan)
    for dataset_id in chosen:
        dataset = Dataset.open(store, dataset_id, ALL_STATES)
        plans.append(dataset.plan)
        row = embedded_row("", dataset.plan, dataset.manifest)
        warnings.append(colours.warning(dataset.plan))
        other = rows.setdefault(row.source, row)
        if other is not row:
            raise DataError(
                f"{row.source}: datasets {other.id!r} and {dataset_id!r} are both of this raster, and a collection has "
                "each raster once: name one of them"
            )
    base = configuration_of(plans[0]) if wanted is None else wanted
    owner = layout.owner if wanted is not None else f"dataset {plans[0].dataset_id!r}"
    for plan in plans:
        why = why_no_member(base, plan, owner)
        if why is not None:
            raise ConfigurationChangedError(
                f"dataset {plan.dataset_id!r} {why}: leave it out, or make another collection of it"
            )
    return Adopted(base, tuple(rows.values()), next(filter(None, warnings), None))


def _first_dataset(store: ObjectStore, catalogue: Catalogue | None, others: Group[str]) -> Dataset | None:
    """Return the first dataset of a catalogue that can be read and is not among others. Return None if none is."""
    if catalogue is None:
        return None
    embedded = catalogue.filter(states=set(SceneState) - {SceneState.FAILED}).table
    for dataset_id in embedded["id"].to_pylist():
        if dataset_id in others:
            continue
        try:
            return Dataset.open(store, dataset_id, ALL_STATES)
        except StoreUnavailableError:
            raise
        except (DataError, UsageError):  # UsageError: the dataset is missing.
            continue
    return None


def _chosen(store: ObjectStore, layout: CollectionLayout, names: Sequence[str]) -> list[str]:
    """Return the ids of the datasets that names and patterns stand for, without repetition. Names come first."""
    named = [name for name in names if not is_pattern(name)]
    matching = matching_datasets(store, [name for name in names if is_pattern(name)])
    if matching:
        others = set(list_collections(store)) - {layout.collection_id}
        matching = [name for name in matching if collection_of(name) not in others]
    chosen = list(dict.fromkeys([*named, *matching]))
    if not chosen:
        raise DataError(f"all datasets that match {', '.join(names)} belong to other collections: name other datasets")
    return chosen


def _adopted_row(
    store: ObjectStore, layout: CollectionLayout, configuration: CollectionConfiguration, dataset_id: str
) -> SceneRow:
    dataset = Dataset.open(store, dataset_id, ALL_STATES)
    check_member(configuration, dataset.plan, layout.collection_id)
    return embedded_row("", dataset.plan, dataset.manifest)


def _row(
    store: ObjectStore, layout: CollectionLayout, configuration: CollectionConfiguration, dataset_id: str
) -> SceneRow | None:
    """Return the row of a dataset, or None if it was deleted, or if a person only gave it such an id."""
    manifest = read_manifest(store, dataset_id)
    if manifest is None:
        return None
    plan = Plan.read(store, dataset_id, manifest.fingerprint)
    if member_id(layout.collection_id, plan.source.uri) != dataset_id:
        return None
    check_member(configuration, plan, layout.collection_id)
    return embedded_row("", plan, manifest)
