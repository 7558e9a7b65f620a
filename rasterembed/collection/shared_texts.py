"""Sentences about a collection that commands, tasks and flows share. Longer texts are where they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.comparison import Comparison
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.collection.summaries import Unreadable
from rasterembed.number_text import agreeing, counted, first_names, part_of

NO_VECTORS = "no vectors"
"""State that people see if a collection is complete, and none of its scenes could be embedded."""

UNFINISHED = "unfinished"
"""State that people see if a run of a collection failed or was stopped."""

SHOWN_SCENES = 3
"""Largest number of scenes that a sentence names."""


def state_text(state: CollectionState | Unreadable, vectors: int, *, running: bool = True) -> str:
    """Return the state of a collection for people. A complete collection without vectors is of no use yet.

    Args:
        state: the state.
        vectors: number of vectors.
        running: whether a run works on the collection now. Without it, a collection in state `embedding` stays so.

    Example:
        >>> state_text(CollectionState.READY, 8), state_text(CollectionState.READY, 0)
        ('ready', 'no vectors')
        >>> state_text(CollectionState.EMBEDDING, 8, running=False)
        'unfinished'
    """
    if state is CollectionState.EMBEDDING and not running:
        return UNFINISHED
    return NO_VECTORS if state is CollectionState.READY and not vectors else state.value


def counts_text(scenes: int, counts: Mapping[SceneState, int]) -> str:
    """Return numbers of scenes for people.

    Example:
        >>> counts_text(3, {SceneState.READY: 2, SceneState.FAILED: 1})
        '3: 2 ready, 1 failed'
    """
    parts = ", ".join(f"{count} {state.value}" for state, count in counts.items())
    return f"{scenes}: {parts}" if parts else str(scenes)


def undated_text(catalogue: Catalogue, options: str = "--since and --until") -> str:
    """Return a sentence about the scenes without a time of acquisition.

    Args:
        catalogue: the catalogue. It has such scenes.
        options: names of the options that choose scenes by their times.
    """
    embedded = catalogue.count - catalogue.counts().get(SceneState.FAILED, 0)
    return (
        f"{part_of(catalogue.undated, embedded, 'embedded scene', 'has', 'have')} no "
        f"time of acquisition: {options} use the "
        + agreeing(catalogue.undated, "time at which its file was", "times at which their files were")
        + " last changed"
    )


def nothing_to_embed(comparison: Comparison) -> str | None:
    """Return a sentence if a run found no scene to embed, else None.

    Args:
        comparison: result of the comparison before the run.
    """
    return None if comparison.to_embed_count else "no scene is new or changed, so nothing was computed"


def datasets_are_lost(collection_id: str, lost: Sequence[str]) -> str:
    """Return a warning about scenes whose datasets are missing.

    Example:
        >>> datasets_are_lost("survey", ["survey--a"])
        "the dataset of 1 scene is missing ('survey--a'): `rasterembed collection verify survey` says what to do"
    """
    scenes = "the dataset of 1 scene is" if len(lost) == 1 else f"the datasets of {len(lost)} scenes are"
    names = first_names([repr(name) for name in lost], 1)
    return f"{scenes} missing ({names}): `rasterembed collection verify {collection_id}` says what to do"


def scenes_are_gone(ids: Sequence[str]) -> str:
    """Return a text for people that says how many scenes are gone. It names the first of them.

    Args:
        ids: ids of the scenes that are gone. One or more.

    Example:
        >>> scenes_are_gone(["survey--a"])
        '1 scene is gone (survey--a)'
        >>> scenes_are_gone(["survey--a", "survey--b", "survey--c", "survey--d"])
        '4 scenes are gone (survey--a, survey--b, survey--c and 1 more)'
    """
    names = first_names(ids, SHOWN_SCENES)
    return f"{counted(len(ids), 'scene')} {agreeing(len(ids), 'is', 'are')} gone ({names})"


def listings_unknown(collection_id: str) -> str:
    """Return a warning after a catalogue was made again, and the old one could not be read."""
    return (
        "the old catalogue is lost or damaged, so the listings of the scenes, their failures and the quality of the "
        "collection are not known: the next run of each listing finds them again; a scene that is gone already is not "
        f"found, and no run deletes it: use `rasterembed collection remove-scene {collection_id} SCENE`"
    )


def work_text(comparison: Comparison) -> str:
    """Return in one line how many scenes of each kind a run found."""
    kinds = {
        "new": comparison.new,
        "changed": comparison.changed,
        "tried again": comparison.again,
        "unchanged": comparison.unchanged,
    }
    return ", ".join(f"{len(scenes)} {kind}" for kind, scenes in kinds.items() if scenes)
