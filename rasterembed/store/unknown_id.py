"""The error for an id that a store does not have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from rasterembed.errors import UsageError
from rasterembed.near_names import near_names
from rasterembed.store.layout import MEMBER_MARK, CollectionLayout, DatasetLayout, name_of
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command

_DIGEST = re.compile(r"-[a-z2-7]{16}$")
"""The digest of the raster's address, which ends the id of a dataset that was given none."""


def unknown_id(store: ObjectStore, kind: str, wanted: str, ids: Sequence[str], *, first: str) -> UsageError:
    """Return the error for an id that a store does not have.

    The text names near ids. If no id is near, the text says how to list all ids. If the id is that of a collection in
    place of a dataset, or of a dataset in place of a collection, the text says so.

    Args:
        store: the store.
        kind: `dataset` or `collection`.
        wanted: the id that a person gave.
        ids: all ids of this kind in the store.
        first: the step that gives an empty store its first id, such as `embed a raster`.
    """
    other = {"dataset": "collection", "collection": "dataset"}[kind]
    if has_id(store, other, wanted):
        advice = (
            f"{wanted!r} is a {other}: give `{other}={wanted}` where a command takes both, use "
            f"{other.capitalize()}.open in Python, or see {store_command(store, f'{_command(other)} show {wanted}')}"
        )
    elif ids:
        advice = f"check the id and the root; {what_it_has(store, kind, wanted, ids)}"
    else:
        advice = f"the store has no {kind}{store.why_empty}: check the root, or {first} first"
    return UsageError(f"there is no {kind} {wanted!r} in {store.root}: {advice}")


def what_it_has(store: ObjectStore, kind: str, wanted: str, ids: Sequence[str]) -> str:
    """Return text for people that names the near ids of a store. If no id is near, the text says how to list all ids.

    Args:
        store: the store.
        kind: `dataset` or `collection`.
        wanted: the id or the pattern that a person gave.
        ids: all ids of this kind in the store, at least one.
    """
    near = near_ids(wanted, ids)
    if near:
        return f"the store has {near}"
    listing = store_command(store, f"{_command(kind)} list")
    return f"no {kind} of the store has a similar id: list all {kind}s with {listing}"


def near_ids(wanted: str, ids: Sequence[str]) -> str:
    """Return up to three near ids, separated by commas. Empty if no id is near.

    Args:
        wanted: an id, a pattern, or the name of a raster.
        ids: all ids of this kind in the store.
    """
    return near_names(wanted, ids) or near_names(_readable(PurePosixPath(wanted).stem), ids, by=_readable)


def _readable(name: str) -> str:
    """Return the part of a dataset id that comes from the name of the raster.

    The id of a collection is before it, and a digest after it.

    Example:
        >>> _readable("survey--town-vo2xc7huyiaxvppb")
        'town'
    """
    return _DIGEST.sub("", name.rpartition(MEMBER_MARK)[2].lower())


def _command(kind: str) -> str:
    """Return the name of the command that lists and shows datasets or collections."""
    return "datasets" if kind == "dataset" else kind


def has_id(store: ObjectStore, kind: str, wanted: str) -> bool:
    """Return whether a store has a dataset or a collection of this id.

    Args:
        store: the store.
        kind: `dataset` or `collection`.
        wanted: any text.
    """
    try:
        layout = DatasetLayout(wanted) if kind == "dataset" else CollectionLayout(wanted)
    except UsageError:
        return False
    if isinstance(layout, DatasetLayout):
        return name_of(layout.manifest) in store.sizes(layout.dataset_folder)
    return name_of(layout.stac_collection) in store.sizes(layout.collection_folder)
