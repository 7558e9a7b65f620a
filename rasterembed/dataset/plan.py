"""The plan of a dataset: all settings that decide the content of its shards, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_serializer,
    field_validator,
)

from rasterembed.dataset.plan_checks import why_unusable
from rasterembed.dataset.selection import Selection
from rasterembed.errors import DataError, StoreError
from rasterembed.escape import escape_terminal
from rasterembed.model.choice import Dinov3, ResolvedModel, resolve_model
from rasterembed.options_model import OptionsModel
from rasterembed.raster.grid import Grid
from rasterembed.raster.profile import AssetProfile, RasterProfile
from rasterembed.raster.radiometry import Radiometry, ResolvedRadiometry, resolve_radiometry
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.raster.sharding import Sharding, plan_shards
from rasterembed.raster.source import Source
from rasterembed.raster.validity import Validity, apply_validity
from rasterembed.raster.warp import warp_profile
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.stored_model import read_model

SCHEMA_VERSION = 1
"""Version of a dataset's columns. Increase it when the columns or their meanings change."""

_REMEDY = "embed the raster again with the same options to write the plan again"
"""Advice for a plan that is missing or cannot be used."""


class PlanSettings(OptionsModel):
    """The settings that a person chooses. `make_plan` turns them into a `Plan`."""

    grid: Grid = Grid()
    """Size, stride and edge rule of the tiles."""
    radiometry: Radiometry = Radiometry()
    """How pixel values become red, green and blue."""
    validity: Validity = Validity()
    """Which pixels are valid, if the file does not say this or says it wrongly."""
    model: Dinov3 = Dinov3()
    """The DINOv3 checkpoint, and how the model's tokens become a vector."""
    selection: Selection = Selection()
    """Which tiles are embedded, and how their vectors are stored."""


class Plan(BaseModel):
    """The plan of a dataset. With the plan, a process can compute any shard of the dataset.

    Example:
        >>> plan = Plan.read(store, "scene", fingerprint)  # doctest: +SKIP
        >>> plan.sharding.tile_count  # doctest: +SKIP
        256
    """

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    source: Source
    profile: RasterProfile
    sharding: Sharding
    radiometry: ResolvedRadiometry
    model: ResolvedModel
    selection: Selection
    requested: PlanSettings | None = Field(default=None, exclude_if=lambda requested: requested is None)
    """The settings as a person chose them, for the command that goes on with the dataset. They are no part of the
    fingerprint. None for a scene of a collection, which has its settings, and for plans of earlier versions."""

    @field_validator("requested", mode="wrap")
    @classmethod
    def _known_choices(cls, requested: Any, validate: ValidatorFunctionWrapHandler) -> PlanSettings | None:
        """Return None for settings that this version does not know. They must not make the plan unusable."""
        try:
            return cast(PlanSettings | None, validate(requested))
        except ValidationError:
            return None

    @field_serializer("requested")
    def _choices(self, requested: PlanSettings) -> dict[str, Any]:
        return requested.model_dump(mode="json", exclude_defaults=True)

    def __repr__(self) -> str:
        """Return one short line."""
        tiles = f"{self.sharding.tile_count} tiles of {self.source.uri}"
        return escape_terminal(f"Plan of dataset {self.dataset_id!r}: {tiles}")

    __str__ = __repr__  # That of pydantic shows every field.

    @property
    def layout(self) -> DatasetLayout:
        """Keys of the dataset's objects in the store."""
        return DatasetLayout(self.dataset_id)

    @property
    def rasters(self) -> tuple[str, ...]:
        """Addresses of the files to read: the raster or the scene's files, and the mask if a person gave one."""
        mask = self.profile.valid_mask
        masks = () if mask is None else (mask.source.uri,)
        return tuple(dict.fromkeys((self.source.uri, *(file.uri for file in self.source.files), *masks)))

    def configuration(self) -> dict[str, Any]:
        """Return the values for the fingerprint. Two runs with the same configuration write the same vectors."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": {
                "uri": self.source.uri,
                "size": self.source.size,
                "version": self.source.version,
                **({"mask": self.profile.mask_file} if self.profile.mask_file is not None else {}),
                **self.profile.declarations(),
                **_scene_configuration(self.profile),
                **_item_configuration(self.source),
            },
            "grid": self.sharding.grid.model_dump(mode="json") | {"stride": self.sharding.grid.step},
            "shard": {"rows": self.sharding.shard_rows, "cols": self.sharding.shard_cols},
            "radiometry": self.radiometry.model_dump(mode="json"),
            "model": self.model.model_dump(
                mode="json",
                include={"id", "revision", "weights_sha256", "input_size", "mean", "std"},
            ),
            "pooling": self.model.pooling,
            "dtype": {"compute": self.model.dtype, "vector": self.selection.vector_dtype},
            "selection": self.selection.model_dump(
                mode="json", include={"min_valid_fraction", "on_bad_window", "allow_no_crs"}
            ),
        }

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the configuration. See `fingerprint_of`."""
        return fingerprint_of(self.configuration())

    def write(self, store: ObjectStore) -> None:
        """Write the plan into the store. Other processes can then read the plan."""
        store.write(self.layout.plan(self.fingerprint), self.model_dump_json(indent=1).encode())

    def is_stored(self, store: ObjectStore) -> bool:
        """Return True if the store has this plan and the plan can be read.

        Raises:
            StoreError: if the store refuses or does not answer.
        """
        try:
            Plan.read(store, self.dataset_id, self.fingerprint)
        except StoreError:
            raise
        except DataError:
            return False
        return True

    @classmethod
    def read(cls, store: ObjectStore, dataset_id: str, fingerprint: str) -> Plan:
        """Read the plan that a run wrote into the store.

        Raises:
            DataError: if the plan does not exist, cannot be read, or has another fingerprint.
        """
        key = DatasetLayout(dataset_id).plan(fingerprint)
        plan = read_model(
            store, key, cls, name="plan", remedy=_REMEDY, why_unusable=lambda plan: why_unusable(plan, dataset_id)
        )
        if plan is None:
            raise DataError(f"{store.uri(key)}: the plan is missing: {_REMEDY}")
        if plan.fingerprint != fingerprint:
            raise DataError(
                f"{store.uri(key)}: the plan's fingerprint is {plan.fingerprint}, expected {fingerprint}: {_REMEDY}"
            )
        return plan


def _scene_configuration(profile: RasterProfile) -> dict[str, Any]:
    """Return the values of a scene's files for the fingerprint. Empty for a raster of one file."""
    assets = [_asset_configuration(asset, profile.original) for asset in profile.assets]
    return {"assets": assets} if assets else {}


def _item_configuration(source: Source) -> dict[str, Any]:
    """Return the values of a scene's STAC Item for the fingerprint. Empty if the Item makes no such statements."""
    statements = {} if source.scene is None else source.scene.statements()
    return {"item": statements} if statements else {}


def _asset_configuration(asset: AssetProfile, scene: RasterProfile) -> dict[str, Any]:
    """Return the values of a scene's file that decide the vectors."""
    return {
        **asset.source.model_dump(mode="json", include={"uri", "size", "version"}),
        "bands": list(asset.bands),
        "nodata": list(asset.profile.nodata),
        **({"resampling": "bilinear"} if asset.is_coarser_than(scene) else {}),
        **({"mask": asset.profile.mask_file} if asset.profile.mask_file is not None else {}),
    }


def fingerprint_of(configuration: dict[str, Any]) -> str:
    """Return the SHA-256 digest of a configuration as canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(configuration, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()


def make_plan(
    store: ObjectStore,
    source: Source,
    dataset_id: str,
    settings: PlanSettings = PlanSettings(),
    *,
    profile: RasterProfile | None = None,
    model: ResolvedModel | None = None,
    shared: ResolvedRadiometry | None = None,
    hub_token: str | None = None,
) -> Plan:
    """Replace every default and `auto` in the settings by its actual value, and return the plan.

    The function reads the raster's header and the checkpoint's files. If percentiles are needed, it also reads a small
    sample of the raster's pixels. It does not load the model.

    Args:
        store: store of the dataset. The store's credentials are also used to read a raster on S3.
        source: the registered raster or scene.
        dataset_id: name of the dataset.
        settings: grid, radiometry, validity, model and selection.
        profile: the raster's profile. Without it, the function inspects the raster.
        model: the resolved model. Without it, the function finds the checkpoint that the settings name.
        shared: the radiometry of the dataset that `stretch_of` names. Without it, the function reads that dataset. See
            `shared_radiometry`.
        hub_token: access token for gated weights.

    Raises:
        UsageError: if a setting does not fit the raster or the model.
        DataError: if the raster or the model cannot be used.
    """
    if profile is None:
        profile = inspect_scene(store, source, allow_no_crs=settings.selection.allow_no_crs)
    profile = apply_validity(store, source.uri, profile, settings.validity)
    shared = shared or shared_radiometry(store, settings.radiometry)
    warped = warp_profile(profile, settings.grid, source.uri)
    return Plan(
        dataset_id=dataset_id,
        source=source,
        profile=warped,
        sharding=plan_shards(settings.grid, warped, settings.selection.shard_tiles),
        # Percentiles are those of the raster's own pixels.
        radiometry=resolve_radiometry(store, source.uri, profile, settings.radiometry, shared),
        model=model or resolve_model(settings.model, settings.grid.size, hub_token),
        selection=settings.selection,
    )


def shared_radiometry(store: ObjectStore, radiometry: Radiometry) -> ResolvedRadiometry | None:
    """Return the radiometry of the dataset that `stretch_of` names, or None if it names none.

    Raises:
        UsageError: if the store has no such dataset.
        DataError: if the dataset or its plan cannot be read.
    """
    if radiometry.stretch_of is None:
        return None
    # Import here, not at the top: these modules import this module.
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.dataset.manifest import ALL_STATES

    return Dataset.open(store, radiometry.stretch_of, ALL_STATES).radiometry
