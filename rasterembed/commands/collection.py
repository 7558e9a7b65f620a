"""`rasterembed collection`: embed many scenes; list, show, verify, rebuild, change and delete collections."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime
from itertools import chain
from typing import Annotated

from cyclopts import Parameter

from rasterembed.comma_list import split_commas
from rasterembed.command_line.command_app import OptionsApp, command_app
from rasterembed.command_line.outputs import print_message
from rasterembed.command_line.wrong_options import in_command_words
from rasterembed.commands.confirmation import confirmed
from rasterembed.commands.words_of_embed import in_words_of_embed
from rasterembed.errors import ConfigurationChangedError, DataError
from rasterembed.escape import escape_terminal
from rasterembed.number_text import counted
from rasterembed.store.known_collections import check_known_collection
from rasterembed.store.object_store import open_store

# The functions import the packages that read a collection only when they run. These would delay the help.

_Json = Annotated[bool, Parameter(name="--json", negative=())]


def list_(root: str | None = None, as_json: _Json = False) -> str:
    """List all collections of a store, with their scenes, vectors and dates.

    Args:
        root: Folder or s3://bucket/prefix of the collections. The default is the folder rasterembed-store.
        as_json: Print JSON: a list with an object for each collection.
    """
    from rasterembed.commands.collection_show import table

    store = open_store(root)
    store.check_folder()
    collections = store.collections()
    if as_json:
        rows = [dataclasses.asdict(one) | {"counts": dict(one.counts)} for one in collections]
        return json.dumps(rows, indent=1, default=datetime.isoformat)
    if not collections:
        return in_command_words(
            f"no collection in {store.root}{store.why_empty}: check the root, or embed one (`rasterembed collection "
            "embed SCENES --collection ID`)"
        )
    return table(collections)


def show(collection: str, root: str | None = None, as_json: _Json = False) -> str:
    """Show what is known about a collection: its scenes by state, failures with reasons, model, grid, dates, bounds.

    Args:
        collection: Name of the collection.
        root: Folder or s3://bucket/prefix of the collection. The default is the folder rasterembed-store.
        as_json: Print JSON with all failed scenes and the whole configuration.
    """
    store = open_store(root)
    check_known_collection(store, collection)
    from rasterembed.collection.collection import Collection
    from rasterembed.commands.collection_show import describe, facts_as_json

    opened = Collection.open(store, collection)
    return json.dumps(facts_as_json(opened), indent=1) if as_json else describe(opened)


def verify(collection: str, root: str | None = None) -> str:
    """Read every file of a collection, of its scenes and of its vector index, and compare each with its description.

    The exit status is 1 if a file is missing or damaged. One line for each such file says what to do.

    Args:
        collection: Name of the collection.
        root: Folder or s3://bucket/prefix of the collection. The default is the folder rasterembed-store.
    """
    store = open_store(root)
    check_known_collection(store, collection)
    from rasterembed.collection.collection import Collection
    from rasterembed.collection.scene_row import SceneState
    from rasterembed.collection.verifying import verify_collection
    from rasterembed.progress.progress_bar import terminal_bar
    from rasterembed.progress.progress_lines import progress_lines
    from rasterembed.search.index.verifying import verify_index

    opened = Collection.open(store, collection)
    count, damages = 0, []
    with progress_lines(lambda _: counted(count, "check")), terminal_bar(None, "check") as bar:
        for result in chain(verify_collection(opened), verify_index(opened)):
            count += 1
            bar.update()
            if result is not None:
                damages.append(result)
    for damage in damages:
        print(escape_terminal(in_command_words(in_words_of_embed(damage.sentence(store)))))
    if damages:
        raise DataError(f"collection {collection!r}: {len(damages):,} of {counted(count, 'check')} failed")
    failed = opened.catalogue.counts().get(SceneState.FAILED, 0)
    more = f"; {failed} of them failed, without vectors in the collection" if failed else ""
    scenes = counted(opened.catalogue.count, "scene")
    return f"collection {collection!r}: all {counted(count, 'check')} passed, for {scenes}{more}"


def remove_scene(
    collection: str, scene: str, root: str | None = None, yes: Annotated[bool, Parameter(negative=())] = False
) -> str:
    """Remove a scene from a collection, with its dataset and its vectors. The files of the scene are not touched.

    A scene that still lies where it was found comes back with the next run. Move its file away first, or give a list of
    scenes without it.

    Args:
        collection: Name of the collection.
        scene: Id of the scene's dataset, or path or s3:// address of its file.
        root: Folder or s3://bucket/prefix of the collection. The default is the folder rasterembed-store.
        yes: Remove without asking. This option is necessary if the command does not run in a terminal.
    """
    store = open_store(root)
    check_known_collection(store, collection)
    from rasterembed.collection.collection import Collection
    from rasterembed.collection.removing import DatasetOutcome, find_scene
    from rasterembed.collection_upkeep import remove_from_collection

    opened = Collection.open(store, collection)
    find_scene(opened, scene)  # A wrong name is refused before the question.
    if not yes and not confirmed(f"scene {scene!r} of collection {collection!r}", store.root):
        return "nothing was deleted"
    removed = remove_from_collection(opened, scene, on_wait=print_message)
    outcomes = {
        DatasetOutcome.DELETED: f"dataset {removed.dataset_id} was deleted",
        DatasetOutcome.MISSING: "it had no dataset",
        DatasetOutcome.KEPT: f"dataset {removed.dataset_id} was embedded before it joined the collection, and stays",
    }
    lines = [f"scene {removed.source or removed.dataset_id!r} was removed; {outcomes[removed.dataset]}"]
    if removed.listing:
        lines.append(f"note: if the scene still lies at {removed.listing}, the next run from there embeds it again")
    return "\n".join(lines)


def delete(collection: str, root: str | None = None, yes: Annotated[bool, Parameter(negative=())] = False) -> str:
    """Delete a collection with its catalogue, its table and the datasets of its scenes.

    The files of the scenes are not touched. A dataset that was embedded before it joined the collection stays.

    Args:
        collection: Name of the collection. The collection may be unfinished or unreadable.
        root: Folder or s3://bucket/prefix of the collection. The default is the folder rasterembed-store.
        yes: Delete without asking. This option is necessary if the command does not run in a terminal.
    """
    store = open_store(root)
    check_known_collection(store, collection)
    from rasterembed.collection.deletion import delete_collection, own_datasets

    what = f"collection {collection!r} with its {counted(len(own_datasets(store, collection)), 'dataset')}"
    if not yes and not confirmed(what, store.root):
        return "nothing was deleted"
    deleted = delete_collection(store, collection, on_wait=print_message)
    return (
        f"collection {collection!r} was deleted: {counted(len(deleted.datasets), 'dataset')}, "
        f"{counted(deleted.objects, 'object')}; the files of its scenes stay"
    )


def rebuild(collection: str, root: str | None = None, datasets: str | None = None) -> str:
    """Make the catalogue and the table of a collection again, from the manifests of its scenes.

    Use it if the catalogue is lost or damaged. As long as the old catalogue can be read, its failed scenes stay in the
    new one.

    With --datasets, datasets that exist join the collection. A collection that does not exist is made, with the
    configuration of the first of them.

    Args:
        collection: Name of the collection.
        root: Folder or s3://bucket/prefix of the collection. The default is the folder rasterembed-store.
        datasets: Names and patterns of datasets that join the collection, such as scene-*,town.
    """
    store = open_store(root)
    joining = split_commas(datasets or "")
    if not joining:
        check_known_collection(store, collection)
    from rasterembed.collection.shared_texts import counts_text
    from rasterembed.collection_upkeep import rebuild_collection
    from rasterembed.command_line.this_program import as_typed
    from rasterembed.commands.collection_steps import QuietSteps
    from rasterembed.search.next_search import collection_search_command

    try:
        rebuilt = rebuild_collection(store, collection, datasets=joining, steps=QuietSteps())
    except ConfigurationChangedError as error:
        error.args = (in_words_of_embed(error.args[0]), *error.args[1:])
        raise
    catalogue = rebuilt.catalogue
    counts = counts_text(catalogue.count, catalogue.counts())
    lines = [f"collection {collection!r} was rebuilt: scenes {counts}; {counted(catalogue.vectors, 'row')}"]
    search = collection_search_command(rebuilt)
    return "\n".join([*lines, *([f"search: {as_typed(search)}"] if search else [])])


app = OptionsApp(
    name="collection",
    help="Embed many scenes as a collection; list, show, verify, rebuild, change and delete collections.",
    version_flags=[],
)
_EMBED = "Embed all scenes of a folder, a pattern, a list or a STAC document."
app.command("rasterembed.commands.collection_embed:app", name="embed", help=_EMBED)
_COMMANDS: dict[str, Callable[..., str]] = {
    "list": list_,
    "show": show,
    "verify": verify,
    "remove-scene": remove_scene,
    "rebuild": rebuild,
    "delete": delete,
}
_READING = (list_, show, verify)
for _name, _function in _COMMANDS.items():
    app.command(command_app(_name, _function, keeps_work=_function not in _READING), name=_name)
