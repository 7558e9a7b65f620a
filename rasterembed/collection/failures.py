"""The failed scenes of a collection, in groups: scenes that failed for the same reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rasterembed.collection.scene_row import SceneRow
from rasterembed.number_text import counted

_NUMBER = re.compile(r"\d+")

_SHOWN_GROUPS = 5
"""Largest number of groups in a text for people."""


@dataclass(frozen=True)
class FailureGroup:
    """Scenes that failed for the same reason."""

    example: SceneRow
    """The first of these scenes."""
    scenes: int
    """Number of these scenes."""


def failure_groups(failed: Iterable[SceneRow]) -> list[FailureGroup]:
    """Return the failed scenes in groups. The largest group comes first.

    Two reasons are the same if they differ only by the address of the scene, and by numbers such as the size of a file.

    Args:
        failed: rows of failed scenes.
    """
    found: dict[str, list[SceneRow]] = {}
    for row in failed:
        # Most reasons begin with the address of the scene.
        found.setdefault(_NUMBER.sub("0", (row.reason or "").replace(row.source, "…")), []).append(row)
    groups = [FailureGroup(rows[0], len(rows)) for _, rows in sorted(found.items())]
    return sorted(groups, key=lambda group: -group.scenes)


def group_texts(failed: Sequence[SceneRow], why: Callable[[SceneRow], str]) -> list[str]:
    """Return one line for each group of failed scenes. If there are many groups, the last line counts the others.

    Args:
        failed: rows of failed scenes.
        why: function that returns address and reason of a failed scene in one line.
    """
    groups = failure_groups(failed)
    shown = groups[:_SHOWN_GROUPS]
    lines = [f"{_such_as(group.scenes)}{why(group.example)}" for group in shown]
    rest = sum(group.scenes for group in groups[_SHOWN_GROUPS:])
    return [*lines, f"{counted(rest, 'scene')} for other reasons"] if rest else lines


def _such_as(scenes: int) -> str:
    return "" if scenes == 1 else f"{scenes:,} scenes, such as "
