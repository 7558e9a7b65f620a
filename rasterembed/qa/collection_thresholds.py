"""Thresholds of the quality checks of a collection. Most fields define a metric and its threshold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rasterembed.options_model import OptionsModel
from rasterembed.qa.thresholds import Bound, ThresholdOf


class CollectionThresholds(OptionsModel):
    """Bounds that a collection must keep to pass its quality checks.

    A field with `ThresholdOf` is the threshold of one metric. The description of the field is the metric's title in the
    report. The fields without `ThresholdOf` say how outliers and near-duplicates are found.
    """

    max_failed_scene_share: Annotated[float, ThresholdOf("failed_scene_share", Bound.MAX)] = Field(
        default=0.1, ge=0, le=1, description="Share of scenes that could not be embedded."
    )
    max_failed_qa_scene_share: Annotated[float, ThresholdOf("failed_qa_scene_share", Bound.MAX)] = Field(
        default=0.1, ge=0, le=1, description="Share of embedded scenes that did not pass their own quality checks."
    )
    max_unreadable_scenes: Annotated[int, ThresholdOf("unreadable_scenes", Bound.MAX)] = Field(
        default=0, ge=0, description="Embedded scenes whose vectors cannot be read, or are not finite."
    )
    max_outlier_scene_share: Annotated[float, ThresholdOf("outlier_scene_share", Bound.MAX)] = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of scenes whose mean vector or mean norm is far from those of the other scenes.",
    )
    max_duplicate_scenes: Annotated[int, ThresholdOf("duplicate_scenes", Bound.MAX)] = Field(
        default=0, ge=0, description="Scenes that repeat another scene of the collection."
    )
    min_scenes: int = Field(
        default=10, ge=3, description="With fewer scenes that have vectors, outliers are not judged."
    )
    outlier_score: float = Field(
        default=3.5, gt=0, description="Modified z-score from which a scene is an outlier (Iglewicz and Hoaglin, 1993)."
    )
    duplicate_distance: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Largest distance between the mean vectors of two near-duplicate scenes that overlap, as a share "
        "of the standard deviation of the vectors within a scene.",
    )
    duplicate_overlap: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Smallest share of the smaller footprint that two near-duplicate scenes have in common.",
    )
