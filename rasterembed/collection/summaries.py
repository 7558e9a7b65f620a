"""List the collections of a store, with a short description of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rasterembed.collection.configuration import CollectionConfiguration
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.collection.threaded import map_threaded
from rasterembed.errors import DataError, StoreError
from rasterembed.store.known_collections import embed_command, list_collections, made_again
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.lease import running_run
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.stored_model import read_model


class Unreadable(StrEnum):
    """State of a collection whose description cannot be read."""

    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class CollectionSummary:
    """A collection in the list of a store. Of an unreadable collection, only the id and the problem are known."""

    id: str
    state: CollectionState | Unreadable
    scenes: int = 0
    """Number of scenes."""
    counts: tuple[tuple[SceneState, int], ...] = ()
    """Number of scenes in each state that occurs."""
    rows: int = 0
    """Number of vectors of all scenes together."""
    first: datetime | None = None
    """First time of acquisition, UTC. None if no scene has one."""
    last: datetime | None = None
    """Last time of acquisition, UTC."""
    model: str = ""
    """Id of the model, or `demo (untrained)`."""
    running: bool = False
    """Whether a run works on the collection now. A killed run counts for up to a minute."""
    continue_with: str = ""
    """Command that goes on with a collection in state `embedding`. Empty in other states."""
    problem: str = ""
    """Reason why the description cannot be read. Empty if it can be read."""


class _Temporal(BaseModel):
    interval: tuple[tuple[datetime | None, datetime | None]]


class _Extent(BaseModel):
    temporal: _Temporal


class _Described(BaseModel):
    """The entries of a stored STAC Collection that a summary needs."""

    model_config = ConfigDict(frozen=True)

    extent: _Extent
    configuration: CollectionConfiguration = Field(alias="rasterembed:configuration")
    state: CollectionState = Field(alias="rasterembed:state")
    listing: str | None = Field(default=None, alias="rasterembed:listing")
    scenes: dict[SceneState, Annotated[int, Field(ge=0)]] = Field(alias="rasterembed:scenes")
    vectors: int = Field(alias="rasterembed:vectors", ge=0)


def summarise_collections(store: ObjectStore) -> list[CollectionSummary]:
    """Return all collections of a store, in the order of their ids. Unreadable collections are included.

    The numbers are those of the STAC Collection. While a run works, they may be a minute old.

    Args:
        store: the store. One object is read for each collection, and the lease of each unfinished one.

    Raises:
        StoreError: if the store refuses or does not answer.

    Example:
        >>> import tempfile
        >>> summarise_collections(ObjectStore(root=tempfile.mkdtemp()))
        []
    """
    found = map_threaded(lambda name: _summary(store, name), list_collections(store))
    return [summary for summary in found if summary is not None]


def stored_numbers(store: ObjectStore, layout: CollectionLayout) -> tuple[dict[SceneState, int], int] | None:
    """Return the numbers of scenes by state and of vectors that a STAC Collection states. None if it does not exist.

    Args:
        store: the store.
        layout: layout of the collection.

    Raises:
        DataError: if this version cannot read the STAC Collection.
    """
    remedy = made_again(layout.collection_id)
    stored = read_model(store, layout.stac_collection, _Described, name="collection", remedy=remedy)
    return None if stored is None else (stored.scenes, stored.vectors)


def _summary(store: ObjectStore, collection_id: str) -> CollectionSummary | None:
    """Return the summary of a collection, or None if it was deleted after it was listed."""
    key = CollectionLayout(collection_id).stac_collection
    try:
        stored = read_model(store, key, _Described, name="collection", remedy=made_again(collection_id))
    except StoreError:
        raise
    except DataError as error:
        return CollectionSummary(collection_id, Unreadable.UNREADABLE, problem=str(error))
    if stored is None:
        return None
    first, last = stored.extent.temporal.interval[0]
    unfinished = stored.state is CollectionState.EMBEDDING
    return CollectionSummary(
        id=collection_id,
        state=stored.state,
        scenes=sum(stored.scenes.values()),
        counts=tuple((state, stored.scenes[state]) for state in SceneState if state in stored.scenes),
        rows=stored.vectors,
        first=first,
        last=last,
        model=stored.configuration.model.name,
        running=unfinished and running_run(store, CollectionLayout(collection_id)) is not None,
        continue_with=embed_command(store, collection_id, stored.listing) if unfinished else "",
    )
