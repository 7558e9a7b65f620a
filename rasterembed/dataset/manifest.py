"""The manifest: it describes a dataset, and holds the dataset's state and a list of its shards.

A run writes the manifest last. Every reader reads the manifest first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rasterembed.dataset.plan import SCHEMA_VERSION, Plan
from rasterembed.dataset.plan_checks import MAX_DIMENSIONS
from rasterembed.dataset.receipts import library_versions
from rasterembed.dataset.setting_differences import entry_differences, without_consequences
from rasterembed.dataset.setting_names import differences_text
from rasterembed.dataset.shards import Shard, read_receipt, skipped_positions
from rasterembed.dataset.tile_index import SkippedTiles, write_tile_index
from rasterembed.errors import ConfigurationChangedError, DataError, ObjectMissingError, StoreError, validation_reason
from rasterembed.model.computation import Computation
from rasterembed.model.normalisation import StoredDeviation, StoredMean
from rasterembed.number_text import counted
from rasterembed.raster.grid import MAX_TILES
from rasterembed.store.dataset_owner import collection_of_member, embed_without
from rasterembed.store.layout import DatasetLayout, key_in
from rasterembed.store.lease import Lease
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import MAX_OBJECT_BYTES
from rasterembed.store.stored_model import read_model

State = Literal["embedded", "ready", "failed_qa"]
"""`embedded`: all shards are written. `ready`: the quality checks passed too, and the dataset may be searched.
`failed_qa`: the quality checks did not pass."""

ALL_STATES: tuple[State, ...] = get_args(State)


class _File(BaseModel):
    uri: str
    size: int = Field(ge=0, le=MAX_OBJECT_BYTES)
    version: str


class _Source(_File):
    assets: tuple[_File, ...] = ()


class _Model(BaseModel):
    id: str
    weights_sha256: str
    input_size: int = Field(ge=1, le=MAX_DIMENSIONS)
    mean: tuple[StoredMean, StoredMean, StoredMean]
    std: tuple[StoredDeviation, StoredDeviation, StoredDeviation]


class _Dtype(BaseModel):
    compute: str
    vector: str


class _Selection(BaseModel):
    min_valid_fraction: float = Field(ge=0.0, le=1.0)


class _Configuration(BaseModel):
    """The entries of a manifest's configuration that readers of the manifest use."""

    source: _Source
    grid: dict[str, Any]
    radiometry: dict[str, Any]
    model: _Model
    pooling: str
    dtype: _Dtype
    selection: _Selection


class Manifest(BaseModel):
    """The description of a dataset for all readers."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = Field(ge=0, le=MAX_TILES)
    dataset_id: str
    state: State
    reason: str | None = Field(default=None, exclude_if=lambda reason: reason is None)
    """The metrics that did not pass, with their values and thresholds, in state `failed_qa`. None in other states, and
    if version 0.1 wrote the manifest."""
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    configuration: dict[str, Any]
    """The values that the fingerprint is computed from. See `Plan.configuration`."""
    model: str
    """Id of the model, or `demo (untrained)`."""
    crs: str | None
    """Native CRS of the raster as WKT2."""
    dimensions: int = Field(ge=1, le=MAX_DIMENSIONS)
    """Length of a vector."""
    tiles: int = Field(ge=0, le=MAX_TILES)
    """Number of planned tiles."""
    rows: int = Field(ge=0, le=MAX_TILES)
    """Number of embedded tiles in all shards."""
    skipped: int = Field(ge=0, le=MAX_TILES)
    """Number of skipped tiles. The tile index has the reason for each skipped tile."""
    bytes: int = Field(ge=0, le=MAX_OBJECT_BYTES)
    """Size of all shards together, in bytes."""
    shards: tuple[Shard, ...]
    """All shards, in the order of their numbers."""
    index: str
    """Key of the tile index."""
    index_sha256: str
    """SHA-256 digest of the tile index."""
    stac_item: str
    """Key of the STAC Item."""
    run_id: str
    """The run that wrote the manifest."""
    created: datetime
    """Time of the first write of the manifest, UTC."""
    versions: dict[str, str]
    """Versions of the libraries that influence the result."""

    def __repr__(self) -> str:
        """Return one short line. The configuration and the shards are left out."""
        return f"Manifest of {self.summary()}"

    __str__ = __repr__  # That of pydantic shows every field.

    def summary(self) -> str:
        """Return the name of the dataset, its state and its numbers in one line."""
        return (
            f"dataset {self.dataset_id!r}: {self.state}, {counted(self.rows, 'row')} of {counted(self.tiles, 'tile')}"
        )

    @property
    def vector_dtype(self) -> str:
        """Type of the stored vectors. See `Selection.vector_dtype`."""
        return str(self.configuration["dtype"]["vector"])

    @property
    def computations(self) -> tuple[Computation, ...]:
        """The different computations of the shards' vectors, in the order of the shards.

        If there are several, a run was resumed with another engine, device, number of threads or processor. The vectors
        of two computations agree within the bounds in docs/models.md, but not bit for bit.
        """
        return tuple(dict.fromkeys(shard.computation for shard in self.shards if shard.computation is not None))


def _remedy(store: ObjectStore, dataset_id: str) -> str:
    """Return what to do about a manifest that cannot be read."""
    owner = collection_of_member(store, dataset_id)
    if owner is not None:
        return embed_without(owner.collection_id, dataset_id)
    return (
        f"embed the raster again (`rasterembed embed RASTER --dataset-id {dataset_id} --replace`), or delete the "
        f"dataset (`rasterembed datasets delete {dataset_id}`)"
    )


def read_manifest(store: ObjectStore, dataset_id: str) -> Manifest | None:
    """Read the manifest of a dataset. Return None if the dataset has no manifest.

    Raises:
        DataError: if this version cannot read the manifest, or if the manifest does not belong to this dataset.
    """
    return read_model(
        store,
        DatasetLayout(dataset_id).manifest,
        Manifest,
        name="manifest",
        remedy=lambda: _remedy(store, dataset_id),
        why_unusable=lambda manifest: _why_unusable(manifest, dataset_id),
    )


def _why_unusable(manifest: Manifest, dataset_id: str) -> str | None:
    """Return the reason why this library cannot have written a stored manifest, or None if it can.

    The keys in a manifest are checked, because readers open the objects with these keys. With a key such as `../x`, a
    reader would open an object outside of the dataset's folders.
    """
    if manifest.dataset_id != dataset_id:
        return "dataset_id: it is another dataset's manifest"
    layout = DatasetLayout(dataset_id)
    if (manifest.index, manifest.stac_item) != (layout.tile_index, layout.stac_item):
        return "index, stac_item: it names objects outside the dataset"
    for shard in manifest.shards:
        if shard.path != layout.shard(manifest.fingerprint, shard.number):
            return f"shards: the path of shard {shard.number} is not the one that the dataset's layout gives it"
    reason = _why_not_the_sum(manifest)
    if reason is not None:
        return reason
    try:
        _Configuration.model_validate(manifest.configuration)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
        return f"configuration.{place}: {validation_reason(error)}"
    return None


def _why_not_the_sum(manifest: Manifest) -> str | None:
    """Return the reason why the list of shards contradicts the numbers of the whole dataset, or None if it does not.

    A reader that trusts the list would otherwise leave rows out, or read rows twice.
    """
    if [shard.number for shard in manifest.shards] != list(range(len(manifest.shards))):
        return "shards: their numbers are not 0, 1, 2 and so on"
    sums = {
        "rows": (manifest.rows, sum(shard.rows for shard in manifest.shards)),
        "skipped": (manifest.skipped, sum(shard.skipped for shard in manifest.shards)),
        "bytes": (manifest.bytes, sum(shard.bytes for shard in manifest.shards)),
    }
    for name, (whole, of_shards) in sums.items():
        if whole != of_shards:
            return f"{name}: it is {whole}, and the shards have {of_shards} together"
    if manifest.rows + manifest.skipped != manifest.tiles:
        return f"tiles: it is {manifest.tiles}, and rows and skipped are {manifest.rows + manifest.skipped} together"
    return None


def find_complete(
    store: ObjectStore, plan: Plan, *, replace: bool, states: Sequence[State] = ("ready",)
) -> Manifest | None:
    """Return the dataset's manifest if the dataset is complete, else None.

    A dataset is complete if all of these are true:

    - Its state is one of `states`.
    - Its fingerprint is the plan's fingerprint.
    - Every shard has the size that the manifest lists.
    - The tile index belongs to the plan.
    - The STAC Item exists.
    - No object of another configuration exists.

    This function changes nothing and needs no lease. Call it before the run takes the lease, and again when the run
    holds the lease.

    Raises:
        ConfigurationChangedError: if the dataset has another configuration and `replace` is False.
        DataError: if the manifest cannot be read and `replace` is False.
    """
    try:
        manifest = read_manifest(store, plan.dataset_id)
    except DataError as error:
        if replace and not isinstance(error, StoreError):
            return None
        raise
    if manifest is None:
        return None
    if manifest.fingerprint != plan.fingerprint:
        if replace:
            return None
        raise ConfigurationChangedError(_difference(manifest, plan))
    sizes = _sizes(store, plan)
    whole = all(sizes.get(shard.path) == shard.bytes for shard in manifest.shards)
    complete = (
        manifest.state in states
        and whole
        and plan.layout.stac_item in sizes
        and _has_own_tile_index(store, plan)
        and not _leftovers(sizes, plan)
    )
    return manifest if complete else None


def _has_own_tile_index(store: ObjectStore, plan: Plan) -> bool:
    """Return True if the tile index belongs to this plan.

    A run that replaces a dataset may be killed after it wrote the tile index and before it wrote the manifest. The
    tile index then belongs to another plan than the manifest.
    """
    try:
        with store.open(plan.layout.tile_index) as file:
            receipt = read_receipt(file)
    except ObjectMissingError:
        return False
    return receipt is not None and receipt.receipt.fingerprint == plan.fingerprint


def _difference(manifest: Manifest, plan: Plan) -> str:
    """Return an error text that lists the differences between the configurations of a dataset and a plan."""
    differences = without_consequences(configuration_differences(manifest, plan))
    others = {name: (own, wanted) for name, own, wanted in differences}
    if "source.uri" in others:
        own, wanted = others["source.uri"]
        return (
            f"dataset {plan.dataset_id!r} is of another raster ({own}, not {wanted}): choose another dataset id, or "
            "give `replace` to embed this raster in its place"
        )
    if set(others) == {"source.version"}:
        return (
            f"dataset {plan.dataset_id!r} was made before its raster was changed: give `replace` to embed the raster "
            "again, or choose another dataset id"
        )
    changes = differences_text(differences, "in the dataset", "requested")
    return (
        f"dataset {plan.dataset_id!r} exists with another configuration ({changes}): "
        "repeat the settings of the first run, choose another dataset id, or give `replace` to embed the raster again"
    )


def configuration_differences(manifest: Manifest, plan: Plan) -> list[tuple[str, str | None, str | None]]:
    """Return the entries of the configuration that differ between a manifest and a plan.

    Returns:
        Dotted name, value in the manifest and value in the plan of each entry. The values are JSON. A missing value is
        None.
    """
    return entry_differences(manifest.configuration, plan.configuration())


@dataclass(frozen=True)
class Commit:
    """Knowledge of a caller of `commit` about a dataset. The defaults fit every dataset."""

    state: State = "embedded"
    """State in the manifest."""
    reason: str | None = None
    """See `Manifest.reason`."""
    skipped: Mapping[int, SkippedTiles] | None = None
    """The skipped tiles of each shard, by the shard's number. Without it, the shards are read."""
    first: bool = False
    """Whether the store had nothing of this dataset before this run, so that there is nothing to delete."""


def commit(store: ObjectStore, plan: Plan, shards: Sequence[Shard], lease: Lease, known: Commit = Commit()) -> Manifest:
    """Write the tile index, the STAC Item and, last, the manifest, so that the shards become a dataset.

    When the manifest is written, readers see the new dataset. Then the objects of other configurations are deleted.

    Args:
        store: store of the dataset.
        plan: plan of the dataset.
        shards: all shards, in any order.
        lease: the run's lease on the dataset, or on the collection of the dataset. The manifest holds the run's name
            from the lease.
        known: the dataset's state, and what the caller knows about the dataset.

    Raises:
        DataError: if a shard is missing.
        LeaseLostError: if another run took the dataset over.
    """
    by_number = {shard.number: shard for shard in shards}
    missing = [number for number in range(plan.sharding.count) if number not in by_number]
    if missing:
        raise DataError(f"dataset {plan.dataset_id!r}: shards {missing[:10]} are missing; run again")
    ordered = tuple(by_number[number] for number in range(plan.sharding.count))

    def skipped(number: int) -> SkippedTiles:
        if not by_number[number].skipped:
            return {}
        return skipped_positions(store, plan, number) if known.skipped is None else known.skipped[number]

    lease.check_often()
    index_sha256 = write_tile_index(store, plan, skipped)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        dataset_id=plan.dataset_id,
        state=known.state,
        reason=known.reason,
        fingerprint=plan.fingerprint,
        configuration=plan.configuration(),
        model=plan.model.name,
        crs=plan.profile.crs_wkt,
        dimensions=plan.model.dimensions,
        tiles=plan.sharding.tile_count,
        rows=sum(shard.rows for shard in ordered),
        skipped=sum(shard.skipped for shard in ordered),
        bytes=sum(shard.bytes for shard in ordered),
        shards=ordered,
        index=plan.layout.tile_index,
        index_sha256=index_sha256,
        stac_item=plan.layout.stac_item,
        run_id=lease.run_id,
        created=datetime.now(UTC),
        versions=dict(library_versions()),
    )
    from rasterembed.dataset.stac import stac_item  # It imports pystac, which a reader of datasets does not need.

    item = stac_item(plan, manifest.shards)
    lease.check_often()  # Writing the tile index of a large raster takes long. The lease may be lost in the meantime.
    store.write(plan.layout.stac_item, json.dumps(item, indent=1).encode())
    store.write(plan.layout.manifest, manifest.model_dump_json(indent=1).encode())
    for key in () if known.first else _leftovers(_sizes(store, plan), plan):
        lease.check_often()
        store.delete(key)
    return manifest


def set_state(store: ObjectStore, manifest: Manifest, state: State, reason: str | None = None) -> Manifest:
    """Write the manifest with another state, and return the new manifest. The caller must hold the dataset's lease.

    Args:
        store: store of the dataset.
        manifest: the manifest as it was read.
        state: the new state.
        reason: see `Manifest.reason`.

    Raises:
        DataError: if another run wrote the manifest in the meantime.
    """
    current = read_manifest(store, manifest.dataset_id)
    before = {"state": manifest.state, "reason": manifest.reason}
    if current is None or current.model_copy(update=before) != manifest:
        raise DataError(f"dataset {manifest.dataset_id!r} was written by another run in the meantime: run again")
    changed = manifest.model_copy(update={"state": state, "reason": reason})
    store.write(DatasetLayout(manifest.dataset_id).manifest, changed.model_dump_json(indent=1).encode())
    return changed


def _sizes(store: ObjectStore, plan: Plan) -> dict[str, int]:
    """Return the size in bytes of each object in the folder of shards and the folder of the manifest, by key."""
    folders = (plan.layout.shards_folder, plan.layout.dataset_folder)
    return {key_in(folder, name): size for folder in folders for name, size in store.sizes(folder).items()}


def _leftovers(keys: Iterable[str], plan: Plan) -> list[str]:
    """Return the keys of shards and plans of other configurations. The new manifest does not list these objects."""
    return [key for key in keys if plan.layout.is_of_other_plan(key, plan.fingerprint)]
