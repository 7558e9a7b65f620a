"""Choose the dataset id of a raster. A run then never replaces the dataset of another raster by mistake."""

from __future__ import annotations

import json

from rasterembed.errors import ConfigurationChangedError
from rasterembed.raster.source import default_dataset_id, older_dataset_ids
from rasterembed.store.layout import DatasetLayout, dataset_id_of_plan, key_in
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.stored_model import MAX_BYTES


def choose_dataset_id(store: ObjectStore, uri: str, *others: str) -> str:
    """Return the id of a raster's dataset, for a run that was given no id.

    Earlier versions made other default ids. If the store has a dataset of this raster under such an id, complete or
    not, that id is returned. The run then continues or replaces that dataset. Otherwise, this version's default id is
    returned.

    Args:
        store: store of the dataset.
        uri: absolute path of the raster, or s3://bucket/key.
        *others: the other files of a scene that is a mapping of channels to files.

    Raises:
        ConfigurationChangedError: if the dataset with the default id was made from another raster.
        StoreError: if the store refuses or does not answer.
    """
    new = default_dataset_id(uri, *others)
    # This folder is read first: an error about a store that cannot be read then has this version's id.
    strangers = _rasters_of(store, new) - {uri}
    for old in older_dataset_ids(uri, *others):
        if uri in _rasters_of(store, old):
            return old
    if strangers:
        raise ConfigurationChangedError(
            f"dataset {new!r} in {store.root} was made from another raster, {min(strangers)!r}, so {uri!r} does not "
            "replace it: give a dataset id"
        )
    return new


def _rasters_of(store: ObjectStore, dataset_id: str) -> set[str]:
    """Return the addresses of the rasters that a dataset was made from. Usually, the dataset has one raster or none.

    If the manifest can be read, it names the raster. Otherwise, the plans are read, because a killed run leaves a plan
    and no manifest.
    """
    layout = DatasetLayout(dataset_id)
    keys = [key_in(layout.dataset_folder, name) for name in store.sizes(layout.dataset_folder)]
    if not keys:
        return set()
    uri = _raster_in(store, layout.manifest, "configuration")
    if uri is not None:
        return {uri}
    plans = (key for key in keys if dataset_id_of_plan(key) is not None)
    return {uri for uri in (_raster_in(store, key) for key in plans) if uri is not None}


def _raster_in(store: ObjectStore, key: str, *path: str) -> str | None:
    """Return the raster's URI in a stored manifest or plan, or None if the object does not name a raster.

    The object may be damaged, or another version may have written it. This function reports neither. A run that needs
    the object reports it.
    """
    try:
        value = json.loads(store.read(key, MAX_BYTES) or b"null")
        for name in (*path, "source", "uri"):
            value = value[name]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None
    return value if isinstance(value, str) else None
