"""The manifest: what a dataset is, its state, and which shards count. It is written last and read first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rasterembed.dataset.plan import SCHEMA_VERSION, Plan
from rasterembed.dataset.receipts import library_versions
from rasterembed.dataset.shards import Shard, read_receipt, skipped_positions
from rasterembed.dataset.stac import stac_item
from rasterembed.dataset.tile_index import write_index
from rasterembed.errors import ConfigurationChangedError, DataError, ObjectMissingError, StoreError
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.lease import Lease
from rasterembed.store.object_store import ObjectStore

State = Literal["embedded", "ready", "failed_qa"]


class Manifest(BaseModel):
    """A dataset as readers find it."""

    model_config = ConfigDict(frozen=True)

    schema_version: int
    dataset_id: str
    state: State
    """`ready` once the dataset may be searched."""
    fingerprint: str
    configuration: dict[str, Any]
    """What the fingerprint was made of; see `Plan.configuration`."""
    model: str
    """Id of the model, or `demo (untrained)`."""
    crs: str | None
    """Native CRS as WKT2."""
    dimensions: int
    """Length of a vector."""
    tiles: int
    """Tiles planned."""
    rows: int
    """Tiles embedded, in all shards."""
    skipped: int
    """Tiles left out; `index.parquet` has each with its reason."""
    bytes: int
    """Size of all shards."""
    shards: tuple[Shard, ...]
    index: str
    """Key of the tile index."""
    index_sha256: str
    stac_item: str
    """Key of the STAC item."""
    run_id: str
    """The run that wrote the manifest."""
    created: datetime
    versions: dict[str, str]


def read_manifest(store: ObjectStore, dataset_id: str) -> Manifest | None:
    """The dataset's manifest, or None if it has none.

    Raises:
        DataError: if what is there is no manifest.
    """
    key = DatasetLayout(dataset_id).manifest
    data = store.read(key)
    if data is None:
        return None
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise DataError(
            f"{store.uri(key)}: not a manifest that this version reads ({error.error_count()} errors): "
            "embed the raster again with replace"
        ) from error


def standing(plan: Plan, store: ObjectStore, *, replace: bool) -> Manifest | None:
    """The dataset's manifest if the plan is carried out already, so that there is nothing left to do.

    That is: same fingerprint, every shard there and whole in size, the index of the same run, and no object left of
    another configuration. Changes nothing and needs no lease, so ask before taking one, and again once it is held.

    Raises:
        ConfigurationChangedError: if the dataset has another configuration, unless `replace`.
        DataError: if its manifest cannot be read, unless `replace`.
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
    sizes = store.sizes(plan.layout.shards_folder)
    whole = all(sizes.get(shard.path.rsplit("/", 1)[1]) == shard.bytes for shard in manifest.shards)
    done = manifest.state == "ready" and whole and _index_is_ours(plan, store) and not _orphans(plan, store)
    return manifest if done else None


def _index_is_ours(plan: Plan, store: ObjectStore) -> bool:
    """Whether the index is of this plan: not, if a replacing run was killed just before its manifest."""
    try:
        with store.open(plan.layout.tile_index) as file:
            found = read_receipt(file)
    except ObjectMissingError:
        return False
    return found is not None and found[0]["fingerprint"] == plan.fingerprint


def _difference(manifest: Manifest, plan: Plan) -> str:
    """Both configurations, reduced to where they differ."""
    here, there = _flat(manifest.configuration), _flat(json.loads(json.dumps(plan.configuration())))
    differing = [name for name in sorted(here | there) if here.get(name) != there.get(name)]
    changes = "; ".join(f"{name}: {here.get(name)} there, {there.get(name)} asked" for name in differing)
    return (
        f"dataset {plan.dataset_id!r} exists with another configuration ({changes}): "
        "choose another dataset id, or give replace to embed it anew"
    )


def _flat(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        return {
            key: text
            for inner, child in value.items()
            for key, text in _flat(child, f"{name}.{inner}" if name else inner).items()
        }
    return {name: json.dumps(value)}


def commit(
    plan: Plan, store: ObjectStore, shards: Sequence[Shard], run_id: str, lease: Lease, *, state: State
) -> Manifest:
    """Make a dataset of the shards: index, STAC item, and last the manifest, which switches readers over.

    Args:
        plan: the plan.
        store: where the shards are.
        shards: all of them, in any order.
        run_id: the run that made them.
        lease: the run's hold on the dataset.
        state: `embedded` if quality checks follow, else `ready`.

    Raises:
        DataError: if a shard is missing.
        LeaseLostError: if another run took the dataset over.
    """
    by_number = {shard.number: shard for shard in shards}
    missing = [n for n in range(plan.sharding.count) if n not in by_number]
    if missing:
        raise DataError(f"dataset {plan.dataset_id!r}: shards {missing[:10]} are missing; run again")
    ordered = tuple(by_number[n] for n in range(plan.sharding.count))
    lease.check()
    index_sha256 = write_index(
        plan,
        store,
        lambda n: skipped_positions(plan, store, n) if by_number[n].skipped else {},
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        dataset_id=plan.dataset_id,
        state=state,
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
        run_id=run_id,
        created=datetime.now(UTC),
        versions=dict(library_versions()),
    )
    item = stac_item(plan, manifest.shards)
    lease.check()  # the index of a large raster took its time
    store.write(plan.layout.stac_item, json.dumps(item, indent=1).encode())
    store.write(plan.layout.manifest, manifest.model_dump_json(indent=1).encode())
    for key in _orphans(plan, store):
        store.delete(key)
    return manifest


def set_state(store: ObjectStore, manifest: Manifest, state: State) -> Manifest:
    """Write the manifest with another state; hold the dataset's lease meanwhile.

    Raises:
        DataError: if the manifest in the store is of another run by now.
    """
    there = read_manifest(store, manifest.dataset_id)
    if there is None or there.model_copy(update={"state": manifest.state}) != manifest:
        raise DataError(f"dataset {manifest.dataset_id!r} was written by another run meanwhile: run again")
    changed = manifest.model_copy(update={"state": state})
    store.write(DatasetLayout(manifest.dataset_id).manifest, changed.model_dump_json(indent=1).encode())
    return changed


def _orphans(plan: Plan, store: ObjectStore) -> list[str]:
    """Return keys of shards and plans of other configurations, which no manifest lists after this plan's commit."""
    layout = plan.layout
    keys = [
        f"{folder}/{name}" for folder in (layout.shards_folder, layout.dataset_folder) for name in store.sizes(folder)
    ]
    return [key for key in keys if layout.is_of_other_plan(key, plan.fingerprint)]
