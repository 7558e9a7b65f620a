"""Unknown parameters of public functions: one line that says how to give the option."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rasterembed
from rasterembed import (
    Collection,
    CollectionSearcher,
    Dataset,
    ObjectStore,
    Searcher,
    UsageError,
    embed_collection,
    embed_raster,
)
from rasterembed.collection.catalogue import Catalogue

CLASSES = (Catalogue, Collection, CollectionSearcher, Dataset, Searcher)
"""Classes whose methods people call in a notebook."""

NOT_FOR_PEOPLE = {
    "Catalogue": {"of", "row", "state_of", "updated", "with_values"},
    "CollectionSearcher": {"datasets_of", "passing", "resolve"},
    "Searcher": {"datasets_of", "passing", "resolve"},
}
"""Methods that only the library calls."""


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public functions and methods with parameters, by their names."""
    for name in rasterembed.__all__:
        if inspect.isfunction(function := getattr(rasterembed, name)) and name != "decode_vectors":
            yield name, function
    for kind in CLASSES:
        for name, method in inspect.getmembers(kind, callable):
            is_public = not name.startswith("_") and name not in NOT_FOR_PEOPLE.get(kind.__name__, ())
            if is_public and len(inspect.signature(method).parameters) > (not inspect.ismethod(method)):
                yield f"{kind.__name__}.{name}", method


FUNCTIONS = dict(public_functions())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_refuses_an_unknown_parameter_with_a_text_for_people(name: str) -> None:
    with pytest.raises(UsageError, match=r"has no parameter `zzz`: it has [a-z]"):
        FUNCTIONS[name](zzz=1)


STORE = ObjectStore(root="results")

WORDS_OF_COMMANDS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: embed_raster(STORE, "scene.tif", size=64),  # type: ignore[call-arg]
        "embed_raster has no parameter `size`: write options=EmbedOptions(grid=Grid(size=64))",
    ),
    (
        lambda: embed_raster(STORE, "scene.tif", secret_key="abc"),  # type: ignore[call-arg]
        "embed_raster has no parameter `secret_key`: write store=ObjectStore(secret_key=…)",
    ),
    (
        lambda: embed_collection(STORE, "town", "scenes", prune=True),  # type: ignore[call-arg]
        "embed_collection has no parameter `prune`: write options=CollectionOptions(prune=True)",
    ),
    (
        lambda: Dataset.search(None, tile="r000000_c000000"),  # type: ignore[arg-type, call-arg]
        "Dataset.search has no parameter `tile`: write query=Query(tile='r000000_c000000')",
    ),
    (
        lambda: Collection.search(None, max_cloud_cover=20),  # type: ignore[arg-type, call-arg]
        "Collection.search has no parameter `max_cloud_cover`: write where=Where(max_cloud_cover=20)",
    ),
    (
        lambda: Dataset.open(root="results"),  # type: ignore[call-arg]
        "Dataset.open has no parameter `root`: write store=ObjectStore(root=…)",
    ),
    (
        lambda: Searcher(STORE, dataset_id="scene"),  # type: ignore[call-arg]
        "Searcher has no parameter `dataset_id`: it has dataset_ids, ...",
    ),
    (
        lambda: Catalogue.filter(None, cloud_cover=20),  # type: ignore[arg-type, call-arg]
        "Catalogue.filter has no parameter `cloud_cover`: it has max_cloud_cover, ...",
    ),
    (
        lambda: Catalogue.filter(None, start=1),  # type: ignore[arg-type, call-arg]
        "Catalogue.filter has no parameter `start`: it has since, ...",
    ),
    (
        lambda: Catalogue.filter(None, end_datetime=1),  # type: ignore[arg-type, call-arg]
        "Catalogue.filter has no parameter `end_datetime`: it has until, ...",
    ),
    (
        lambda: Dataset.search(None, start="2024"),  # type: ignore[arg-type, call-arg]
        "Dataset.search has no parameter `start`: did you mean where=Where(since=…)?",
    ),
]


@pytest.mark.parametrize(("call", "said"), WORDS_OF_COMMANDS, ids=[said[:40] for _, said in WORDS_OF_COMMANDS])
def test_an_option_of_a_command_as_a_parameter_is_told_where_it_lives(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()

    assert str(caught.value) == said
