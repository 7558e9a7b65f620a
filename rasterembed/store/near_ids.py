"""Words for errors about an id that a store does not have: the ids that are similar to it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from rasterembed.errors import UsageError
from rasterembed.store.object_store import ObjectStore


def near_ids(wanted: str, ids: Sequence[str], *, cutoff: float = 0.5) -> str:
    """Return up to three ids, separated by commas: the most similar ones, or else the first ones.

    Args:
        wanted: the id or the pattern that a person gave.
        ids: all ids. If there are more than the result names, the result ends with `, ...`.
        cutoff: smallest similarity, from 0 to 1. See `difflib.get_close_matches`.

    Example:
        >>> near_ids("alp", ["alps", "delta", "town"])
        'alps, ...'
    """
    near = get_close_matches(wanted, ids, n=3, cutoff=cutoff) or ids[:3]
    more = ", ..." if len(ids) > len(near) else ""
    return f"{', '.join(near)}{more}"


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
        advice = f"check the id and the root; the store has {near_ids(wanted, ids)}"
    else:
        advice = f"the store has no {kind}{store.why_empty}: check the root, or {first} first"
    return UsageError(f"there is no {kind} {wanted!r} in {store.root}: {advice}")
