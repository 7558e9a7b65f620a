"""Legends: which value or class each colour of the tiles stands for."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Colour(StrEnum):
    """How tiles are coloured. The values are parts of addresses."""

    PCA = "pca"
    VALIDITY = "validity"
    QA = "qa"
    CLUSTER = "cluster"
    DATE = "date"
    SIMILARITY = "similarity"

    @property
    def label(self) -> str:
        """The colour as text for people."""
        return _LABELS[self]


_LABELS = {
    Colour.PCA: "Vectors (PCA)",
    Colour.VALIDITY: "Valid pixels",
    Colour.QA: "Quality",
    Colour.CLUSTER: "Classes",
    Colour.SIMILARITY: "Similarity to the query",
    Colour.DATE: "Date",
}


class _LegendBase(BaseModel):
    """The fields of every legend."""

    model_config = ConfigDict(frozen=True)

    colour: Colour
    label: str
    """The colour as text for people."""
    note: str
    """Remark for people. Empty if there is nothing to say."""


class Stop(BaseModel):
    """A value on a ramp of colours."""

    model_config = ConfigDict(frozen=True)

    value: float
    colour: str
    """Colour in the form #rrggbb."""


class RampLegend(_LegendBase):
    """Legend of values from low to high."""

    type: Literal["ramp"] = "ramp"
    stops: list[Stop]
    """Values from low to high. Colours between two stops are mixed."""
    low: float | None
    """Smallest value that has its own colour. Smaller values have the same colour. None if no value is known."""
    high: float | None
    """Largest value that has its own colour. None if no value is known."""
    low_text: str
    """`low` as text for people."""
    high_text: str
    """`high` as text for people."""
    unit: Literal["share", "similarity", "time"]
    """Unit of the values. A time is in seconds since 1970, UTC."""


class LegendClass(BaseModel):
    """A class of tiles."""

    model_config = ConfigDict(frozen=True)

    label: str
    colour: str
    """Colour in the form #rrggbb."""
    tiles: int
    """Number of tiles."""


class ClassesLegend(_LegendBase):
    """Legend of classes."""

    type: Literal["classes"] = "classes"
    classes: list[LegendClass]


class RgbLegend(_LegendBase):
    """Legend of three values as red, green and blue."""

    type: Literal["rgb"] = "rgb"
    channels: list[str]
    """What red, green and blue stand for, as text for people."""


Legend = RampLegend | ClassesLegend | RgbLegend
