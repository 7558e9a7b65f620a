"""Reasons why a search leaves out a requested dataset."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class NotSearchedReason(StrEnum):
    """Reason why a dataset was not searched."""

    NOT_CHECKED = "not_checked"
    """The dataset's quality checks have not passed yet."""
    FAILED_QA = "failed_qa"
    """The dataset did not pass its quality checks."""
    EMPTY = "empty"
    """The dataset has no embedded tile."""
    UNREADABLE = "unreadable"
    """A file of the dataset is missing or damaged."""
    OTHER_MODEL = "other_model"
    """The dataset was embedded with another model or other settings, so its vectors cannot be compared."""
    NO_PLACE = "no_place"
    """The raster has no place on Earth, but the search asked for a place or an area."""
    OUTSIDE_DATES = "outside_dates"
    """The raster was not acquired in the requested time."""
    UNKNOWN_DATE = "unknown_date"
    """The search asked for a time, but the raster's time of acquisition is not known."""
    TOO_CLOUDY = "too_cloudy"
    """The scene has more clouds than requested, or its cloud cover is not known."""
    OTHER_SCENE = "other_scene"
    """The search asked for other scenes."""


class NotSearched(BaseModel):
    """A dataset that was not searched, and the reason."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    reason: NotSearchedReason
    detail: str = ""
    """Text of the error for `UNREADABLE`, and the differences for `OTHER_MODEL`. Empty for all other reasons."""

    def describe(self) -> str:
        """Return the reason as text for people.

        Example:
            >>> NotSearched(dataset_id="scene", reason=NotSearchedReason.EMPTY).describe()
            'all tiles were skipped'
        """
        match self.reason:
            case NotSearchedReason.NOT_CHECKED:
                return "quality checks have not passed yet"
            case NotSearchedReason.FAILED_QA:
                return "failed its quality checks"
            case NotSearchedReason.EMPTY:
                return "all tiles were skipped"
            case NotSearchedReason.UNREADABLE:
                return f"cannot be read: {self.detail}"
            case NotSearchedReason.OTHER_MODEL:
                return f"vectors cannot be compared: {self.detail}"
            case NotSearchedReason.NO_PLACE:
                return "no place on Earth"
            case NotSearchedReason.OUTSIDE_DATES:
                return "not acquired in the requested time"
            case NotSearchedReason.UNKNOWN_DATE:
                return "its time of acquisition is not known"
            case NotSearchedReason.TOO_CLOUDY:
                return "too many clouds, or an unknown cloud cover"
            case NotSearchedReason.OTHER_SCENE:
                return "other scenes were asked for"


def describe_all(not_searched: Sequence[NotSearched]) -> str:
    """Return one text for people with the datasets and the reasons. Datasets with the same reason are listed together.

    Example:
        >>> failed = [NotSearched(dataset_id=name, reason=NotSearchedReason.FAILED_QA) for name in ("a", "b")]
        >>> describe_all(failed)
        'a, b (failed its quality checks)'
    """
    by_reason: dict[str, list[str]] = {}
    for one in not_searched:
        by_reason.setdefault(one.describe(), []).append(one.dataset_id)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
