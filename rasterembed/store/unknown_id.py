"""The error for an id that a store does not have."""

from __future__ import annotations

from collections.abc import Sequence

from rasterembed.errors import UsageError
from rasterembed.near_names import near_names
from rasterembed.store.object_store import ObjectStore


def unknown_id(store: ObjectStore, kind: str, wanted: str, ids: Sequence[str], *, first: str) -> UsageError:
    """Return the error for an id that a store does not have. The text names similar ids, if there are any.

    Args:
        store: the store.
        kind: `dataset` or `collection`.
        wanted: the id that a person gave.
        ids: all ids of this kind in the store.
        first: the step that gives an empty store its first id, such as `embed a raster`.
    """
    if ids:
        advice = f"check the id and the root; the store has {near_names(wanted, ids)}"
    else:
        advice = f"the store has no {kind}{store.why_empty}: check the root, or {first} first"
    return UsageError(f"there is no {kind} {wanted!r} in {store.root}: {advice}")
