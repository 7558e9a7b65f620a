"""The part of an answer that says which scenes of a collection were searched."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rasterembed.number_text import counted


class LeftOut(BaseModel):
    """Scenes of a collection that were not searched, and the reason."""

    model_config = ConfigDict(frozen=True)

    scenes: int
    """Number of scenes."""
    reason: str
    """Reason as text for people."""


class SearchedCollection(BaseModel):
    """A collection that was searched."""

    model_config = ConfigDict(frozen=True)

    id: str
    scenes: int
    """Number of scenes in the catalogue."""
    searched: int
    """Number of searched scenes."""
    left_out: tuple[LeftOut, ...] = ()
    """Scenes that were not searched, by reason."""
    is_current: bool = True
    """Whether the table has the scenes that the catalogue calls ready, and no others."""

    def notes(self) -> list[str]:
        """Return lines about the searched scenes, as text for people."""
        lines = [f"searched {self.searched:,} of {counted(self.scenes, 'scene')} of collection {self.id}"]
        if self.left_out:
            lines.append("not searched: " + ", ".join(f"{one.scenes} ({one.reason})" for one in self.left_out))
        if not self.is_current:
            lines.append(
                "warning: the table of the collection is older than its catalogue, so new and changed scenes are "
                f"missing or old: run `rasterembed collection rebuild {self.id}`"
            )
        return lines


def scene_text(scene: str, day: str) -> str:
    """Return the day of acquisition and the name of a scene's file, for a caption.

    Ids of a collection's datasets are long, and all begin with the id of the collection.

    Args:
        scene: address of the file, or another name of the scene.
        day: the day as text. Empty if it is not known.
    """
    return ", ".join(filter(None, (day, scene.rsplit("/", 1)[-1])))
