"""Scenes of a collection that differ from the others, and scenes that repeat another scene."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.scene_means import SceneMeans

_NORMAL_MAD = 0.6745
"""Median absolute deviation of a standard normal distribution: its 0.75 quantile."""
_NORMAL_MEAN_AD = 1.253314
"""Standard deviation of a normal distribution divided by its mean absolute deviation: the root of pi / 2."""

_ROUNDING = 1e-6
"""Deviations below this share of the median are rounding noise of float32."""

_COPY = 1e-4
"""Largest distance between the mean vectors of two copies, as a share of the standard deviation within a scene. The
vectors of equal pixels differ only by rounding, about 1e-6 of their norm."""

_CONSTANT = 1e-4
"""A scene is constant if the standard deviation of its vectors is below this share of their norm. All scenes of open
sea have the same vectors, so a constant scene does not count as a repetition."""

_COMPONENTS = 8
"""Number of principal components that are compared before whole vectors are compared."""
_COMPONENT_SCENES = 2000
"""Largest number of scenes that the principal components are computed from."""
_WINDOW = 256
"""Each scene is compared with at most this number of scenes that follow it along the first principal component."""
_CHUNK = 64
"""Number of scenes whose overlapping scenes are listed at once. Each of them may overlap all other scenes."""


@dataclass(frozen=True)
class Outliers:
    """How far each scene is from the others."""

    norm_score: NDArray[np.float64]
    """Modified z-score of the mean norm, shape (n,). Negative if the norm is smaller than the median."""
    vector_score: NDArray[np.float64]
    """Modified z-score of the distance of the mean vector's direction from the median direction, shape (n,)."""

    @property
    def score(self) -> NDArray[np.float64]:
        """The larger of the two scores, shape (n,). A vector that is nearer than the median is no outlier."""
        return np.maximum(np.abs(self.norm_score), self.vector_score)


def find_outliers(means: SceneMeans) -> Outliers:
    """Compare the mean norm and the mean vector of each scene with those of all scenes.

    Args:
        means: statistics of the scenes, at least one.
    """
    unit = means.mean / np.maximum(np.linalg.norm(means.mean, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    distance = np.linalg.norm(unit - np.median(unit, axis=0), axis=1)
    return Outliers(modified_z_score(means.norm), modified_z_score(distance, noise=_ROUNDING))


def modified_z_score(values: NDArray[np.floating], noise: float = 0.0) -> NDArray[np.float64]:
    """Return the modified z-score of each value: 0.6745 (x - median) / MAD.

    MAD is the median of the absolute deviations from the median. The score does not depend on the outliers themselves,
    as long as they are fewer than half. A value whose absolute score is above 3.5 is called an outlier. Source: B.
    Iglewicz and D. Hoaglin, "How to Detect and Handle Outliers", ASQC Basic References in Quality Control 16, 1993.

    If more than half of the values are equal, MAD is 0. The mean absolute deviation then takes its place, with the
    factor 1 / 1.253314.

    Args:
        values: shape (n,), n > 0.
        noise: deviations up to this number are only rounding.

    Returns:
        Shape (n,). All zero if all values are equal.
    """
    deviation = values.astype(np.float64) - float(np.median(values))
    noise = max(noise, _ROUNDING * abs(float(np.median(values))))
    deviation[np.abs(deviation) <= noise] = 0.0
    mad = float(np.median(np.abs(deviation)))
    if mad > 0:
        return np.asarray(_NORMAL_MAD * deviation / mad)
    mean_deviation = float(np.mean(np.abs(deviation)))
    if mean_deviation > 0:
        return np.asarray(deviation / (_NORMAL_MEAN_AD * mean_deviation))
    return np.zeros(len(values))


def principal_axes(centred: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the first principal components of vectors, from a sample of at most 2,000 of them.

    Args:
        centred: vectors whose mean is zero, shape (n, D), n > 0.
        count: number of components.

    Returns:
        Unit vectors at right angles, shape (min(count, D), D). The one with the largest variance comes first.
    """
    sample = centred[:: -(-len(centred) // _COMPONENT_SCENES)].astype(np.float64)
    vectors = np.linalg.eigh(sample.T @ sample)[1]
    return np.asarray(vectors[:, ::-1][:, :count].T.astype(np.float32))


@dataclass(frozen=True)
class Repetition:
    """A scene that repeats another one."""

    first: int
    """Number of the scene that is repeated, in `SceneMeans`."""
    second: int
    """Number of the scene that repeats it. It is larger than `first`."""
    distance: float
    """Distance between the mean vectors, as a share of the standard deviation within a scene."""
    overlap: float | None
    """Share of the smaller footprint that both scenes have in common. None if a scene has no place on Earth."""


@dataclass(frozen=True)
class Repetitions:
    """All scenes that repeat another scene."""

    found: tuple[Repetition, ...]
    """One entry for each such scene, in the order of the scenes."""
    compared: NDArray[np.bool_]
    """False for constant scenes, which are not compared, shape (n,)."""


def find_repetitions(means: SceneMeans, geometry: NDArray[np.object_], thresholds: CollectionThresholds) -> Repetitions:
    """Find copies and near-duplicates among the scenes.

    A copy has the same number of vectors and the same mean vector, wherever its footprint is. A near-duplicate has
    nearly the same mean vector, and its footprint overlaps that of the other scene.

    The distance of two mean vectors is given as a share of the standard deviation of the vectors within a scene. Two
    scenes with n vectors each of the same landscape have a distance of about sqrt(2 / n).

    Args:
        means: statistics of n scenes.
        geometry: footprint of each of these scenes, shape (n,), or None.
        thresholds: how near two near-duplicates are.
    """
    comparison = _Comparison.of(means)
    placed = ~shapely.is_missing(geometry)
    shapes = geometry.copy()
    shapes[placed] = _valid(geometry[placed])
    # The smallest number of a scene that each scene repeats. The scene's own number if it repeats none.
    repeated = np.arange(means.count)
    for first, second in comparison.neighbours(_COPY):
        same = means.tiles[first] == means.tiles[second]
        np.minimum.at(repeated, second[same], first[same])
    for first, second in _near_and_overlapping(comparison, shapes, placed, thresholds):
        np.minimum.at(repeated, second, first)
    second = np.flatnonzero(repeated < np.arange(means.count))
    first = repeated[second]
    overlap = np.full(len(second), np.nan)
    both = placed[first] & placed[second]
    overlap[both] = _overlap(shapes[first[both]], shapes[second[both]])
    columns = (first, second, comparison.distance(first, second), overlap)
    found = [
        Repetition(one, other, distance, None if np.isnan(share) else share)
        for one, other, distance, share in zip(*(column.tolist() for column in columns), strict=True)
    ]
    return Repetitions(tuple(found), comparison.compared)


def _near_and_overlapping(
    comparison: _Comparison, shapes: NDArray[np.object_], placed: NDArray[np.bool_], thresholds: CollectionThresholds
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield pairs with overlapping footprints and nearly equal mean vectors: their smaller and their larger numbers.

    A scene that repeats one scene is not compared with others that it might repeat too.
    """
    numbers = np.flatnonzero(comparison.compared & placed)
    tree = shapely.STRtree(shapes[numbers])
    seen = np.zeros(len(shapes), dtype=bool)
    for start in range(0, len(numbers), _CHUNK):
        here, there = tree.query(shapes[numbers[start : start + _CHUNK]])
        first, second = numbers[here + start], numbers[there]
        later = (second > first) & ~seen[second]  # Each pair occurs once.
        first, second = first[later], second[later]
        near = comparison.are_near(first, second, thresholds.duplicate_distance)
        first, second = first[near], second[near]
        enough = _overlap(shapes[first], shapes[second]) >= thresholds.duplicate_overlap
        seen[second[enough]] = True
        yield first[enough], second[enough]


def _valid(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return the footprints without crossing edges. GEOS refuses to intersect footprints that have them."""
    fixed = geometry.copy()
    wrong = ~shapely.is_valid(geometry)
    fixed[wrong] = shapely.make_valid(geometry[wrong])
    return fixed


def _overlap(first: NDArray[np.object_], second: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return the share of the smaller footprint that both have in common, shape (n,)."""
    smaller = np.minimum(shapely.area(first), shapely.area(second))
    common = shapely.area(shapely.intersection(first, second))
    share = np.divide(common, smaller, out=np.zeros(len(first)), where=smaller > 0)
    return np.asarray(np.minimum(share, 1.0))  # The common area is rounded.


@dataclass(frozen=True)
class _Comparison:
    """Compares mean vectors. Principal components rule out most pairs before whole vectors are compared."""

    mean: NDArray[np.float32]
    """Mean vectors of the scenes, shape (n, D)."""
    coordinates: NDArray[np.float32]
    """Principal components of the mean vectors, shape (n, k). A distance in them is never above the whole distance."""
    spread: NDArray[np.float64]
    """Standard deviation within each scene, shape (n,)."""
    rounding: NDArray[np.float64]
    """Largest error of the coordinates, shape (n,)."""
    compared: NDArray[np.bool_]
    """False for constant scenes, shape (n,)."""

    @classmethod
    def of(cls, means: SceneMeans) -> _Comparison:
        single = means.tiles == 1
        several = means.spread[~single & (means.spread > _CONSTANT * means.norm)]
        centred = means.centred()
        # A single vector has no spread. It gets the typical spread in other scenes, or else the spread of all scenes.
        typical = np.median(several) if len(several) else np.sqrt(np.mean(np.sum(centred**2, axis=1)))
        spread = np.where(single, typical, means.spread).astype(np.float64)
        coordinates = centred @ principal_axes(centred, _COMPONENTS).T
        rounding = _ROUNDING * np.linalg.norm(means.mean, axis=1).astype(np.float64)
        return cls(means.mean, coordinates, spread, rounding, spread > _CONSTANT * means.norm)

    def distance(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the distance of each pair as a share of the smaller standard deviation, shape (pairs,)."""
        spread = np.minimum(self.spread[first], self.spread[second])
        return np.asarray(np.linalg.norm(self.mean[first] - self.mean[second], axis=1) / spread)

    def are_near(self, first: NDArray[np.intp], second: NDArray[np.intp], most: float) -> NDArray[np.bool_]:
        """Return whether the distance of each pair is at most `most`, shape (pairs,)."""
        spread = np.minimum(self.spread[first], self.spread[second])
        short = np.linalg.norm(self.coordinates[first] - self.coordinates[second], axis=1)
        # The coordinates are rounded, so a pair at the limit must not be ruled out.
        near = short <= 1.01 * most * spread + self.rounding[first]
        near[near] = self.distance(first[near], second[near]) <= most
        return np.asarray(near)

    def neighbours(self, most: float) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Yield pairs whose distance is at most `most`: the smaller and the larger number of each pair.

        The scenes are sorted along the first principal component, and each is compared with those that follow it.
        """
        order = np.flatnonzero(self.compared)
        order = order[np.argsort(self.coordinates[order, 0], kind="stable")]
        line = self.coordinates[order, 0]
        reach = 1.01 * most * self.spread[order] + self.rounding[order]
        for offset in range(1, min(_WINDOW, len(order) - 1) + 1):
            close = np.flatnonzero(line[offset:] - line[:-offset] <= reach[:-offset])
            if not len(close):
                return
            one, other = order[close], order[close + offset]
            near = self.are_near(one, other, most)
            yield np.minimum(one, other)[near], np.maximum(one, other)[near]
