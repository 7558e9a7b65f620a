"""A run's plan: everything that decides which bytes are written, and the fingerprint of it all."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3, ResolvedModel, resolve_model
from rasterembed.raster.grid import Grid
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.raster.radiometry import Radiometry, ResolvedRadiometry, resolve_radiometry
from rasterembed.raster.shard_reader import OnBadWindow
from rasterembed.raster.sharding import Sharding, plan_shards
from rasterembed.raster.source import Source
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore

SCHEMA_VERSION = 1
"""Raised when the columns or the meaning of a dataset change."""

VectorDtype = Literal["float32", "float16"]


class Selection(BaseModel):
    """Which tiles are embedded, and how the vectors are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_valid_fraction: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="Tiles with a smaller share of valid pixels are skipped.",
    )
    on_bad_window: OnBadWindow = Field(
        default="fail",
        description="What a window that cannot be decoded does: fail the run, or skip its tile.",
    )
    allow_no_crs: bool = Field(
        default=False,
        description="Take rasters without a place on Earth; footprints are then in pixels.",
    )
    vector_dtype: VectorDtype = Field(
        default="float32", description="Type of the stored vectors; float16 takes half the space."
    )
    shard_tiles: int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="Tiles in a shard, about; shards grow so that a run has no more than 500.",
    )


class Plan(BaseModel):
    """What is read, how, and what becomes of it; any process can compute any shard from it alone."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    source: Source
    profile: RasterProfile
    sharding: Sharding
    radiometry: ResolvedRadiometry
    model: ResolvedModel
    selection: Selection

    @property
    def layout(self) -> DatasetLayout:
        """Where the dataset's objects stand."""
        return DatasetLayout(self.dataset_id)

    def configuration(self) -> dict[str, Any]:
        """What the fingerprint is made of: two runs that share it write the same vectors."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": {
                "uri": self.source.uri,
                "size": self.source.size,
                "version": self.source.version,
                **({"mask": self.profile.mask_file} if self.profile.mask_file is not None else {}),
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
        """sha256 over the configuration as canonical JSON: sorted keys, no spaces, UTF-8."""
        canonical = json.dumps(self.configuration(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def write(self, store: ObjectStore) -> None:
        """Put the plan into the store, for other processes."""
        store.write(self.layout.plan(self.fingerprint), self.model_dump_json(indent=1).encode())

    @classmethod
    def read(cls, store: ObjectStore, dataset_id: str, fingerprint: str) -> Plan:
        """The plan that a run put into the store.

        Raises:
            DataError: if there is none, or it is another's.
        """
        key = DatasetLayout(dataset_id).plan(fingerprint)
        data = store.read(key)
        if data is None:
            raise DataError(f"{store.uri(key)}: there is no such plan; run raster-embeddings first")
        try:
            plan = cls.model_validate_json(data)
        except ValidationError as error:
            raise DataError(f"{store.uri(key)}: not a plan that this version reads: run again") from error
        if plan.fingerprint != fingerprint:
            raise DataError(f"{store.uri(key)}: the plan's fingerprint is {plan.fingerprint}, not {fingerprint}")
        return plan


def make_plan(
    store: ObjectStore,
    source: Source,
    dataset_id: str,
    *,
    profile: RasterProfile | None = None,
    grid: Grid = Grid(),
    radiometry: Radiometry = Radiometry(),
    model: Dinov3 = Dinov3(),
    selection: Selection = Selection(),
    hub_token: str | None = None,
) -> Plan:
    """Settle every choice of a run. Reads the header, a decimated overview, and the checkpoint's files.

    Args:
        store: where results go; its credentials read a raster on S3.
        source: the registered raster.
        dataset_id: name of the dataset.
        profile: the raster's profile, if it was inspected already.
        grid: the tile grid.
        radiometry: how values become colour.
        model: which model.
        selection: which tiles, and how vectors are kept.
        hub_token: access token for gated weights.

    Raises:
        UsageError: if a choice does not fit the raster or the model.
        DataError: if the raster or the model cannot be used.
    """
    if profile is None:
        profile = inspect_raster(store, source.uri, allow_no_crs=selection.allow_no_crs)
    return Plan(
        dataset_id=dataset_id,
        source=source,
        profile=profile,
        sharding=plan_shards(grid, profile, selection.shard_tiles),
        radiometry=resolve_radiometry(store, source.uri, profile, radiometry),
        model=resolve_model(model, grid.size, hub_token),
        selection=selection,
    )
