"""What a run left of a dataset that it did not complete, and the command that goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import join
from typing import Any

from rasterembed.dataset.manifest import State, read_manifest
from rasterembed.dataset.plan import Plan, PlanSettings
from rasterembed.dataset.shards import count_written_shards
from rasterembed.number_text import number_text, part_of
from rasterembed.store.dataset_owner import collection_of_member
from rasterembed.store.known_collections import embed_command
from rasterembed.store.object_store import ObjectStore

_COMMA = {"bands", "mean", "std"}
"""Settings with several values that a person types as one word, with commas."""

_STANDS: dict[State, str] = {
    "embedded": "has all its shards, and its quality checks or its vector index are not complete",
    "ready": "is ready",
    "failed_qa": "has all its shards, and did not pass its quality checks",
}
"""What stands of a committed dataset, by its state."""


def what_stands(store: ObjectStore, plan: Plan) -> str:
    """Return in one line how much of a dataset is written, for a person who interrupted its run.

    Args:
        store: store of the dataset.
        plan: plan of the dataset.

    Raises:
        DataError: if the manifest cannot be read.
        StoreError: if the store refuses or does not answer.
    """
    manifest = read_manifest(store, plan.dataset_id)
    if manifest is not None and manifest.fingerprint == plan.fingerprint:
        return f"dataset {plan.dataset_id!r} {_STANDS[manifest.state]}"
    stays = "" if manifest is None else "; until all are written, the dataset stays as it was"
    return f"dataset {plan.dataset_id!r} is unfinished: {written_text(count_written_shards(store, plan), plan)}{stays}"


def written_text(written: int, plan: Plan) -> str:
    """Return how many shards of a plan the store has, for people."""
    return f"{part_of(written, plan.sharding.count, 'shard')} written"


def run_text(running: bool) -> str:
    """Return whether a run writes an unfinished dataset, for people."""
    return (
        "a run writes it, or was killed in the last minute"
        if running
        else "no run writes it, because its run failed or was stopped"
    )


def continue_command(store: ObjectStore, plan: Plan) -> str:
    """Return the command that goes on with a dataset. It plans the same shards, so the written ones are not repeated.

    Options that do not change the plan, such as those for quality checks and the vector index, are not in the command.
    A plan of an earlier version does not say which settings a person chose, so that they are not in the command either.

    Args:
        store: store of the dataset.
        plan: plan of the dataset.
    """
    words = ["rasterembed", "embed", _scene(plan), "--dataset-id", plan.dataset_id, "--root", store.root]
    scene = plan.source.scene
    if scene is not None and scene.item_id is not None:
        words += ["--assets", ",".join(asset.name for asset in scene.assets)]
    if plan.requested is not None:
        words += _options(plan, plan.requested)
    return join(words)


def check_unchanged(store: ObjectStore, plan: Plan) -> None:
    """Refuse to read the raster of a written dataset if the raster was changed since it was embedded.

    Args:
        store: store of the dataset.
        plan: plan of the dataset.

    Raises:
        RasterChangedError: if the raster or a mask was changed. The text has the command that embeds the new state.
        DataError: if the store's datasets may not name the raster or a mask.
        StoreError: if the raster or a mask is missing or may not be read.
    """
    plan.profile.check_unchanged(store, plan.source, remedy=lambda: _embed_new_state(store, plan))


def _embed_new_state(store: ObjectStore, plan: Plan) -> str:
    owner = collection_of_member(store, plan.dataset_id)
    if owner is not None:  # A run over a collection embeds changed scenes again by itself.
        command = embed_command(store, owner.collection_id)
    else:
        command = f"{continue_command(store, plan)} --replace"
    return f"run `{command}` to embed its new state"


def _scene(plan: Plan) -> str:
    """Return the raster or the scene as a person types it. Its paths are absolute."""
    scene = plan.source.scene
    if scene is None or scene.item_id is not None:
        return plan.source.uri
    return ",".join(f"{asset.name}={asset.source.uri}" for asset in scene.assets)


def _options(plan: Plan, requested: PlanSettings) -> Iterator[str]:
    """Yield the words of the settings that differ from the defaults."""
    mask = plan.profile.valid_mask
    # A person may have named these in a way that means something else in another folder or next week.
    exact = {"model": plan.model.id, "revision": plan.model.revision, "mask": None if mask is None else mask.source.uri}
    for group in PlanSettings.model_fields:
        settings = getattr(requested, group)
        for name, field in type(settings).model_fields.items():
            value = exact.get(name, getattr(settings, name))
            if value != field.default:
                yield f"--{name.replace('_', '-')}"
                yield from _words(name, value)


def _words(name: str, value: Any) -> list[str]:
    """Return the value of an option as a person types it."""
    if value is True:
        return []
    values = value if isinstance(value, tuple) else (value,)
    texts = [number_text(each) if isinstance(each, float) else str(each) for each in values]
    return [",".join(texts)] if name in _COMMA else texts
