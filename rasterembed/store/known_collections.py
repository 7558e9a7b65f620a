"""Find out which collections a store has, without reading them. This module imports only packages that load fast."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import join

from rasterembed.errors import UsageError
from rasterembed.store.https_url import is_https
from rasterembed.store.layout import COLLECTIONS_FOLDER, MEMBER_MARK, CollectionLayout, name_of
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import ObjectInfo
from rasterembed.store.unknown_id import unknown_id


def list_collections(store: ObjectStore) -> list[str]:
    """Return the ids of all collections in a store, in alphabetical order.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    found = find_collection_objects(store)
    return sorted(layout.collection_id for layout, key, _ in found if key == layout.stac_collection)


def find_collection_objects(store: ObjectStore) -> Iterator[tuple[CollectionLayout, str, ObjectInfo]]:
    """Yield all objects in the folders of collections, with the layout of the collection and the key of the object.

    A folder that a run has begun may have no `collection.json` yet. No object is read.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    for key, info in store.find(COLLECTIONS_FOLDER):
        name = key.removeprefix(f"{COLLECTIONS_FOLDER}/").partition("/")[0]
        try:
            layout = CollectionLayout(name)
        except UsageError:  # A person may have made a folder whose name is not a collection id.
            continue
        yield layout, key, info


def has_collection(store: ObjectStore, layout: CollectionLayout) -> bool:
    """Return whether a store has a collection. The answer is one listing of the collection's folder."""
    return name_of(layout.stac_collection) in store.sizes(layout.collection_folder)


def embed_command(store: ObjectStore, collection_id: str, listing: str | None = None) -> str:
    """Return the command that goes on with a collection. The collection gives its own settings.

    The assets of STAC Items are not in the command, because the address of a listing does not hold them.

    Args:
        store: store of the collection.
        collection_id: name of the collection.
        listing: address of the listing. That of a STAC API holds the search behind `#`. If the address is not known,
            the command has the word SCENES in its place. Of a long search, the address holds only a digest, and the
            command has the word SEARCH.
    """
    scenes, search = listing or "SCENES", ""
    if is_https(scenes):  # In other addresses, `#` is a letter like any other.
        scenes, _, search = scenes.partition("#")
    words = ["--search", search if search.startswith("{") else "SEARCH"] if search else []
    where = ["--collection", collection_id, "--root", store.root]
    return join(["rasterembed", "collection", "embed", scenes, *words, *where])


def check_known_collection(store: ObjectStore, collection_id: str) -> None:
    """Refuse the name of a collection that the store does not have.

    A command calls this function before it imports the packages that read a collection. A wrong name is then reported
    at once.

    Raises:
        UsageError: if the store has no collection of this name.
    """
    if not has_collection(store, CollectionLayout(collection_id)):
        raise unknown_collection(store, collection_id)


def unknown_collection(store: ObjectStore, collection_id: str) -> UsageError:
    """Return the error for a collection that does not exist. The text names similar ids, if there are any."""
    return unknown_id(store, "collection", collection_id, list_collections(store), first="embed a collection")


def made_again(collection_id: str) -> str:
    """Return advice for a collection whose STAC Collection cannot be used."""
    return (
        "restore the file, or delete it and make the collection again of its datasets "
        f"(`rasterembed collection rebuild {collection_id} --datasets '{collection_id}{MEMBER_MARK}*'`)"
    )
