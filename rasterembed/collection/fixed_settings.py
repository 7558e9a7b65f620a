"""Settings that a collection with datasets does not change any more, and advice to change them."""

from __future__ import annotations

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.members import find_members
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import Dinov3
from rasterembed.parameter_names import named_parameters
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.validity import Validity
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore

_NOT_FIXED = {"device"}
"""Fields of the settings that every run may choose."""

_SETTINGS = {
    name for model in (Grid, Radiometry, Validity, Dinov3, Selection) for name in model.model_fields
} - _NOT_FIXED
"""Names of the settings that all scenes of a collection have in common."""


def settings_are_fixed(store: ObjectStore, layout: CollectionLayout, catalogue: Catalogue | None) -> bool:
    """Return whether a collection refuses other settings.

    As long as all scenes have failed and no dataset of an earlier state of a scene exists, other settings replace those
    of the collection, because they may be the reason why the scenes failed.

    Args:
        store: store of the collection.
        layout: names of the collection's files.
        catalogue: the catalogue. None if the collection has none.
    """
    if catalogue is not None and set(catalogue.counts()) - {SceneState.FAILED}:
        return True
    return next(find_members(store, layout.collection_id), None) is not None


def in_a_new_collection(reason: str, *, fixed: bool) -> str:
    """Return the reason of a failed scene. If it names a fixed setting, add that only a new collection can change it.

    Args:
        reason: the reason. Its parameters are in backticks.
        fixed: whether the settings of the scene's collection are fixed. See `settings_are_fixed`.

    Example:
        >>> in_a_new_collection("a.tif: there is no CRS: set one, or give `allow_no_crs`", fixed=True)
        'a.tif: there is no CRS: set one, or give `allow_no_crs` (in a new collection: this one keeps its settings)'
    """
    names_setting = fixed and any(named.owner is None and named.name in _SETTINGS for named in named_parameters(reason))
    return f"{reason} (in a new collection: this one keeps its settings)" if names_setting else reason
