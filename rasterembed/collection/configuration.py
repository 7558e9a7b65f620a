"""The configuration of a collection: all settings that its scenes have in common, and their fingerprint.

The vectors of two datasets can be compared only if their settings are the same. `why_no_member` is the function that
compares the settings of a dataset with those of a collection.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rasterembed.dataset.plan import Plan, PlanSettings, fingerprint_of
from rasterembed.dataset.selection import Selection
from rasterembed.dataset.setting_differences import entry_differences, without_consequences
from rasterembed.dataset.setting_names import differences_text
from rasterembed.errors import ConfigurationChangedError, DataError, UsageError
from rasterembed.model.choice import Device, Dinov3, ResolvedModel, resolve_model
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry, is_radiometry_of, requested_radiometry
from rasterembed.raster.validity import Validity
from rasterembed.store.dataset_owner import embed_without

SCHEMA_VERSION = 1
"""Version of the catalogue's columns. Increase it when the columns or their meanings change."""


class CollectionConfiguration(BaseModel):
    """The settings that all scenes of a collection have in common. They never change during the collection's life.

    The model is resolved: it names the digest of the weights and the data type of the computation. All scenes, also
    those of next year's run on another machine, are therefore embedded by the same model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    grid: Grid
    radiometry: Radiometry
    validity: Validity
    model: ResolvedModel
    selection: Selection
    assets: tuple[str, ...] = Field(default=(), exclude_if=lambda assets: not assets)
    """Assets of STAC Items that a run takes if it names none: those of the run that made the collection. They are no
    part of the fingerprint, because Items from another catalog may need other assets."""

    def values(self) -> dict[str, Any]:
        """Return the values for the fingerprint, as JSON values."""
        return {"schema_version": SCHEMA_VERSION, **self.model_dump(mode="json", exclude={"assets"})}

    @property
    def fingerprint(self) -> str:
        """SHA-256 digest of the values as canonical JSON, in hexadecimal digits."""
        return fingerprint_of(self.values())

    def settings(self, device: Device = "auto") -> PlanSettings:
        """Return the settings with which each scene is planned.

        Args:
            device: device that runs the model. It is no part of the configuration.
        """
        model = Dinov3(
            model=self.model.id,
            revision=self.model.revision,
            pooling=self.model.pooling,
            input_size=self.model.input_size,
            device=device,
            dtype=self.model.dtype,
            mean=self.model.mean,
            std=self.model.std,
        )
        return PlanSettings(
            grid=self.grid,
            radiometry=self.radiometry,
            validity=self.validity,
            model=model,
            selection=self.selection,
        )


def resolve_configuration(settings: PlanSettings, hub_token: str | None = None) -> CollectionConfiguration:
    """Replace every `auto` of the model by an actual value, and return the configuration of a collection.

    The stretch of the colours stays as it was chosen. With percentiles, each scene gets the percentiles of its pixels.

    Args:
        settings: grid, radiometry, validity, model and selection.
        hub_token: access token for gated weights.

    Raises:
        UsageError: if a setting does not fit a collection or the model.
        DataError: if the model cannot be used.
    """
    if settings.validity.mask is not None:
        raise UsageError("`mask` names the mask of one raster: a collection has many rasters, so leave it out")
    return CollectionConfiguration(
        grid=settings.grid,
        radiometry=settings.radiometry,
        validity=settings.validity,
        model=resolve_model(settings.model, settings.grid.size, hub_token),
        selection=settings.selection,
    )


def configuration_of(plan: Plan) -> CollectionConfiguration:
    """Return the configuration of a collection to which an embedded dataset can belong.

    Args:
        plan: plan of the dataset.

    Raises:
        DataError: if the dataset was embedded with a mask, which belongs to one raster only.
    """
    mask = _mask_text(plan)
    if mask is not None:
        raise DataError(f"dataset {plan.dataset_id!r} {mask}: it cannot be in a collection")
    profile = plan.profile
    return CollectionConfiguration(
        grid=plan.sharding.grid,
        radiometry=requested_radiometry(plan.radiometry, profile),
        validity=Validity(nodata=profile.declared_nodata, ignore_alpha=profile.alpha_ignored),
        model=plan.model,
        selection=plan.selection,
    )


def why_no_member(configuration: CollectionConfiguration, plan: Plan, owner: str) -> str | None:
    """Return why a dataset cannot be in a collection with these settings. Return None if it can.

    The number of tiles in a shard may differ: it does not change the vectors.

    Args:
        configuration: the settings of the collection.
        plan: plan of the dataset.
        owner: the collection, or the dataset whose settings these are, for people.

    Returns:
        The end of a sentence that begins with the dataset. It names each difference.
    """
    mask = _mask_text(plan)
    if mask is not None:
        return mask
    own = configuration_of(plan)
    if is_radiometry_of(configuration.radiometry, plan.radiometry, plan.profile.original):
        own = own.model_copy(update={"radiometry": configuration.radiometry})
    differences = without_consequences(entry_differences(_comparable(configuration), _comparable(own)))
    if not differences:
        return None
    return f"has another configuration than {owner} ({differences_text(differences, f'in {owner}', 'here')})"


def check_member(configuration: CollectionConfiguration, plan: Plan, collection_id: str) -> None:
    """Refuse the dataset of a scene in a collection, if its settings are not those of the collection.

    Args:
        configuration: the settings of the collection.
        plan: plan of the dataset.
        collection_id: name of the collection.

    Raises:
        ConfigurationChangedError: if they differ. The text names each difference, and says what to do.
    """
    why = why_no_member(configuration, plan, f"collection {collection_id!r}")
    if why is not None:
        remedy = embed_without(collection_id, plan.dataset_id)
        raise ConfigurationChangedError(f"dataset {plan.dataset_id!r} {why}: {remedy}")


def _mask_text(plan: Plan) -> str | None:
    """Return the end of a sentence about a dataset that was embedded with a mask, else None."""
    mask = plan.profile.valid_mask
    if mask is None:
        return None
    return f"was embedded with the mask {mask.source.uri}, which belongs to one raster only"


def _comparable(configuration: CollectionConfiguration) -> dict[str, object]:
    """Return the values of a configuration that decide the vectors. The size of the shards does not."""
    values = json.loads(json.dumps(configuration.values()))
    values["selection"].pop("shard_tiles", None)
    values["grid"]["stride"] = configuration.grid.step
    return dict(values)
