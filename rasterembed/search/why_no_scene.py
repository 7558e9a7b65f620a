"""Say which filters for whole scenes left no scene, and what the scenes have instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

from rasterembed.name_pattern import fits_pattern
from rasterembed.number_text import agreeing, counted, number_text
from rasterembed.raster.acquisition_time import time_text
from rasterembed.search.query import Where

_LISTED = 3
"""Largest number of scenes that a text names."""


_LETTERS = 3
"""Smallest number of letters of a name that a wider pattern is made from."""


@dataclass(frozen=True)
class SceneFacts:
    """What the filters for whole scenes look at. A dataset has one scene."""

    dataset_id: str
    source: str
    """Address of the scene's file."""
    acquired: datetime | None
    """Time of acquisition. None if it is not known."""
    cloud_cover: float | None
    """Share of the scene that clouds cover, in percent. None if it is not known."""


@dataclass(frozen=True)
class _Filter:
    """A filter for whole scenes."""

    names: str
    """Names of the parameters, in backticks."""
    passes: Callable[[SceneFacts], bool]
    """Whether a scene passes this filter."""
    instead: Callable[[], str]
    """Text about what the scenes have, if no scene passes this filter."""


def why_no_scene(where: Where, scenes: Sequence[SceneFacts]) -> list[str]:
    """Return lines that say which filters no scene passes. The list is empty if a scene passes all filters.

    Args:
        where: the filters. Only those for whole scenes are looked at: the time, the clouds and the names.
        scenes: the scenes that could be searched, at least one.

    Returns:
        One line for each filter that no scene passes. If each filter leaves some scenes, it is one line about all.
    """
    filters = _given(where, scenes)
    if any(all(one.passes(scene) for one in filters) for scene in scenes):
        return []
    counts = [(one, sum(map(one.passes, scenes))) for one in filters]
    alone = [one for one, count in counts if not count]
    if alone:
        none = "the scene does not pass" if len(scenes) == 1 else f"none of the {len(scenes)} scenes passes"
        return [f"{none} {one.names}: {one.instead()}" for one in alone]
    shares = ", ".join(f"{count:,} {agreeing(count, 'passes', 'pass')} {one.names}" for one, count in counts)
    return [f"no scene passes all filters together: of {counted(len(scenes), 'scene')}, {shares}"]


def _given(where: Where, scenes: Sequence[SceneFacts]) -> list[_Filter]:
    """Return the filters for whole scenes that a search gives."""
    filters = []
    if where.scenes:
        filters.append(
            _Filter(
                "`scenes`",
                lambda scene: where.names_scene(scene.dataset_id, scene.source),
                lambda: _known_names(where.scenes, scenes),
            )
        )
    if where.since is not None or where.until is not None:
        names = " and ".join(f"`{name}`" for name in ("since", "until") if getattr(where, name) is not None)
        filters.append(
            _Filter(names, lambda scene: where.acquired_within(scene.acquired), lambda: _known_times(where, scenes))
        )
    if where.max_cloud_cover is not None:
        filters.append(
            _Filter(
                "`max_cloud_cover`",
                lambda scene: where.allows_clouds(scene.cloud_cover),
                lambda: _known_clouds(scenes),
            )
        )
    return filters


def _known_names(patterns: Sequence[str], scenes: Sequence[SceneFacts]) -> str:
    """Return a text with wider patterns, if there are scenes that match them, or with the names of scenes."""
    texts = (pattern.strip("*") for pattern in patterns)
    found = {f"*{text}*": _matching(f"*{text}*", scenes) for text in texts if len(text) >= _LETTERS}
    near = list(dict.fromkeys(chain.from_iterable(found.values())))
    if near:
        wider = ",".join(pattern for pattern, matching in found.items() if matching)
        return f"did you mean {wider!r}? It finds {_listed(near)}"
    asked = " or ".join(map(repr, patterns))
    scenes_are = "the scene is" if len(scenes) == 1 else "the scenes are"
    return f"no dataset id or address is {asked}, or matches it; {scenes_are} {_listed(scenes)}"


def _matching(pattern: str, scenes: Sequence[SceneFacts]) -> list[SceneFacts]:
    """Return the scenes whose id or file name matches a pattern."""
    names = ((scene, scene.dataset_id, scene.source.rsplit("/", 1)[-1]) for scene in scenes)
    return [scene for scene, *texts in names if any(fits_pattern(text, pattern) for text in texts)]


def _listed(scenes: Sequence[SceneFacts]) -> str:
    names = ", ".join(f"{scene.dataset_id} ({scene.source})" for scene in scenes[:_LISTED])
    return names + (", ..." if len(scenes) > _LISTED else "")


def _known_times(where: Where, scenes: Sequence[SceneFacts]) -> str:
    """Return a text about the dates of scenes, none of which is in the searched time."""
    start, end = where.interval()
    if start is not None and end is not None and start > end:
        return "no time is between them, because `since` is after `until`"
    exact = any(isinstance(bound, datetime) for bound in (where.since, where.until))
    times = sorted(scene.acquired for scene in scenes if scene.acquired is not None)
    if not times:
        return "no date is known" if len(scenes) > 1 else "its date is not known"

    def text(time: datetime) -> str:
        return time_text(time) if exact else time.astimezone(UTC).date().isoformat()

    known = f"the dates are from {text(times[0])} to {text(times[-1])}"
    if text(times[0]) == text(times[-1]):
        known = f"the date is {text(times[0])}"
    before = [time for time in times if start is not None and time < start]
    after = [time for time in times if end is not None and time > end]
    if before and after:
        known += f", and none is between {text(before[-1])} and {text(after[0])}"
    unknown = len(scenes) - len(times)
    return known + (
        f"; {unknown:,} of {len(scenes):,} scenes {agreeing(unknown, 'has', 'have')} no date" if unknown else ""
    )


def _known_clouds(scenes: Sequence[SceneFacts]) -> str:
    """Return a text about the cloud cover of scenes, all of which have too much of it or an unknown one."""
    known = [scene.cloud_cover for scene in scenes if scene.cloud_cover is not None]
    if not known:
        return "no cloud cover is known" if len(scenes) > 1 else "its cloud cover is not known"
    unknown = len(scenes) - len(known)
    text = f"the smallest cloud cover is {number_text(min(known))} %"
    return text + (
        f"; {unknown:,} of {len(scenes):,} scenes {agreeing(unknown, 'has', 'have')} no known cloud cover"
        if unknown
        else ""
    )
