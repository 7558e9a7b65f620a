"""The lattice of an anchored grid: scenes with the same lattice give the same ground the same tile id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from pydantic import BaseModel, ConfigDict
from rasterio.crs import CRS

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.configuration import CollectionConfiguration, why_no_member
from rasterembed.collection.found_scene import FoundScene
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, StoreUnavailableError, UsageError
from rasterembed.raster.anchor import find_anchor, place_without_transform
from rasterembed.raster.grid import Grid
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.same_grid import crs_name, same_crs
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.raster.warp import warp_profile
from rasterembed.store.object_store import ObjectStore

_SAME_SIZE = 1e-9
"""Two pixel sizes are the same if they differ by at most this share. With a larger share, tiles far from the origin
would lie at other places."""


class Lattice(BaseModel):
    """CRS and pixel size of an anchored grid. Scenes with the same lattice give the same ground the same tile id."""

    model_config = ConfigDict(frozen=True)

    crs_wkt: str
    """CRS as WKT2."""
    width: float
    """Width of a pixel, in units of the CRS."""
    height: float
    """Height of a pixel, in units of the CRS."""

    @classmethod
    def of(cls, profile: RasterProfile) -> Lattice:
        """Return the lattice of a raster with a CRS and north up."""
        return cls(crs_wkt=profile.crs_wkt or "", width=profile.transform[0], height=-profile.transform[4])

    def check(self, profile: RasterProfile, grid: Grid, uri: str) -> None:
        """Refuse a scene whose grid has another lattice. Its tile ids would name other ground.

        Call this before the scene is anchored or warped. Otherwise an error about its pixel edges hides this reason. A
        scene that has no place, or is not north up, is refused by `find_anchor`.

        Args:
            profile: the scene's header, before or after it is warped.
            grid: the grid of the collection. If it has a resolution, the scene is warped to pixels of this size.
            uri: address of the scene, for errors.

        Raises:
            DataError: if CRS or pixel size differ. The text shows both.
        """
        if place_without_transform(profile) is not None:
            return
        own = Lattice.of(profile)
        if not same_crs(own.crs_wkt, self.crs_wkt):
            problem = f"its CRS is {crs_name(own.crs_wkt)}, and that of the collection's tiles is "
            problem += crs_name(self.crs_wkt)
        elif grid.resolution is None and _is_north_up(profile) and not self._has_pixels_of(own):
            problem = f"its pixels are {own.width:.12g} x {own.height:.12g}, and those of the collection's tiles are "
            problem += f"{self.width:.12g} x {self.height:.12g}"
        else:
            return
        raise DataError(
            f"{uri}: {problem}: choose another collection for it, or let every scene be warped to one grid with `crs` "
            "and `resolution`"
        )

    def _has_pixels_of(self, other: Lattice) -> bool:
        return max(abs(other.width / self.width - 1), abs(other.height / self.height - 1)) <= _SAME_SIZE


def _is_north_up(profile: RasterProfile) -> bool:
    a, b, _, d, e, _ = profile.transform
    return a > 0 > e and b == d == 0


def collection_lattice(
    store: ObjectStore,
    configuration: CollectionConfiguration,
    catalogue: Catalogue,
    scenes: Iterable[FoundScene],
    assets: tuple[str, ...],
) -> Lattice | None:
    """Return the lattice that every scene of a collection must have.

    It is that of the scenes in the catalogue. For a new collection, it is that of the first scene in the listing whose
    header can be read.

    Args:
        store: store of the collection.
        configuration: configuration of the collection.
        catalogue: catalogue of the collection, before the run.
        scenes: the scenes that will be embedded.
        assets: keys or common names of the assets to use, if the scenes are STAC Items.

    Returns:
        The lattice. None if any scene is right: because the grid is not anchored, or because all scenes are warped to
        one CRS.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    grid = configuration.grid
    if grid.anchor != "crs" or grid.crs is not None:
        return None
    scenes = tuple(scenes)
    changed = {scene.uri for scene in scenes}
    table = catalogue.table
    for dataset_id, uri, state in zip(*(table[name].to_pylist() for name in ("id", "source", "state")), strict=True):
        if state == SceneState.FAILED or uri in changed:
            continue
        try:
            plan = Dataset.open(store, dataset_id, ALL_STATES).plan
            if why_no_member(configuration, plan, "the collection") is None:
                return Lattice.of(plan.profile)
        except StoreUnavailableError:
            raise
        except (DataError, UsageError):
            continue  # Its dataset was deleted or damaged.
    for scene in scenes:
        found = _lattice_of_scene(store, grid, scene, assets)
        if found is not None:
            return found
    return None


def check_joining(
    store: ObjectStore, configuration: CollectionConfiguration, catalogue: Catalogue, joining: Iterable[str]
) -> None:
    """Refuse datasets that shall join a collection with an anchored grid, if their lattice is another one.

    Args:
        store: store of the collection.
        configuration: configuration of the collection.
        catalogue: catalogue of the collection. If it has no other scene, the first of the datasets decides.
        joining: ids of the datasets.

    Raises:
        DataError: if CRS or pixel size of a dataset differ. The text shows both.
    """
    if configuration.grid.anchor != "crs" or configuration.grid.crs is not None:
        return
    joining = tuple(joining)
    lattice = collection_lattice(store, configuration, catalogue.updated([], without=joining), (), ())
    for dataset_id in joining:
        plan = Dataset.open(store, dataset_id, ALL_STATES).plan
        lattice = lattice or Lattice.of(plan.profile)
        lattice.check(plan.profile, plan.sharding.grid, plan.source.uri)


def _lattice_of_scene(store: ObjectStore, grid: Grid, scene: FoundScene, assets: tuple[str, ...]) -> Lattice | None:
    """Return the lattice of a scene that is not embedded yet, or None if it cannot be embedded."""
    if scene.problem is not None:
        return None
    try:
        source = scene.register(store, assets)
        profile = warp_profile(inspect_scene(store, source), grid, source.uri)
        find_anchor(profile, grid)
    except StoreUnavailableError:
        raise
    except Exception:  # Nobody can know every way in which a library fails at a damaged file. The scene fails later.
        return None
    return Lattice.of(profile)


def lattice_of(plan: Plan) -> str | None:
    """Return CRS and pixel size of a dataset's grid as text. None if the grid is not anchored to the CRS.

    Size, stride and origin of the grid are the same in all scenes of a collection, so they are no part of the text.

    Example:
        >>> lattice_of(plan)  # doctest: +SKIP
        'EPSG:32635 10 -10'
    """
    if plan.sharding.anchor is None or plan.profile.crs_wkt is None:
        return None
    width, height = plan.profile.transform[0], plan.profile.transform[4]
    # Rasters with pixel sizes that differ by a rounding error are on the same lattice.
    return f"{_name_of_crs(plan.profile.crs_wkt)} {width:.9g} {height:.9g}"


@lru_cache(maxsize=64)
def _name_of_crs(wkt: str) -> str:
    """Return authority and code of a CRS, or else a digest of its WKT."""
    crs = CRS.from_wkt(wkt)
    authority = crs.to_authority()
    return ":".join(authority) if authority else f"wkt-{hashlib.sha256(crs.to_wkt().encode()).hexdigest()[:16]}"
