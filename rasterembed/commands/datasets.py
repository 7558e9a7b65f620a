"""`rasterembed datasets`: list, show, verify and delete the datasets of a store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter

from rasterembed.command_line.command_app import OptionsApp, command_app
from rasterembed.command_line.outputs import print_message
from rasterembed.command_line.wrong_options import in_command_words
from rasterembed.commands.confirmation import confirmed
from rasterembed.errors import DataError, UsageError
from rasterembed.escape import escape_terminal
from rasterembed.number_text import agreeing, counted, part_of
from rasterembed.store.known_datasets import check_known
from rasterembed.store.layout import is_pattern
from rasterembed.store.object_store import open_store

_Json = Annotated[bool, Parameter(name="--json", negative=())]


def list_(root: str | None = None, as_json: _Json = False) -> str:
    """List all datasets of a store. Unfinished and unreadable datasets are listed too.

    Args:
        root: Folder or s3://bucket/prefix of the datasets. The default is the folder rasterembed-store.
        as_json: Print JSON: a list with an object for each dataset.
    """
    # Import these modules only when the command runs. They import pyarrow and rasterio, which would delay the help.
    from rasterembed.commands.dataset_texts import table
    from rasterembed.dataset.listing import list_datasets

    store = open_store(root)
    store.check_folder()
    datasets = list_datasets(store)
    if as_json:
        return json.dumps([dataclasses.asdict(dataset) for dataset in datasets], indent=1, default=datetime.isoformat)
    if not datasets:
        return in_command_words(
            f"no dataset in {store.root}{store.why_empty}: check the root, or embed a raster "
            "(`rasterembed embed RASTER`)"
        )
    return table(datasets)


def _refuse_pattern(dataset: str) -> None:
    if is_pattern(dataset):
        raise UsageError(f"give the id of one dataset, not {dataset!r}: only a search takes patterns")


def show(dataset: str, root: str | None = None, as_json: _Json = False) -> str:
    """Show what is known about a dataset: its state, raster, model, colours, shards and quality checks.

    Of an unfinished dataset, show its plan, how many shards are written, and the command that goes on with it.

    Args:
        dataset: Name of the dataset.
        root: Folder or s3://bucket/prefix of the dataset. The default is the folder rasterembed-store.
        as_json: Print the dataset's manifest, which is JSON. Of an unfinished dataset, print the plan and its progress.
    """
    _refuse_pattern(dataset)
    store = open_store(root)
    check_known(store, [dataset], unfinished=True)
    from rasterembed.commands.dataset_texts import describe, describe_unfinished, unfinished_as_json
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.dataset.listing import find_unfinished
    from rasterembed.dataset.manifest import ALL_STATES

    unfinished = find_unfinished(store, dataset)
    if unfinished is not None:
        if as_json:
            return json.dumps(unfinished_as_json(unfinished), indent=1)
        return describe_unfinished(store, unfinished)
    opened = Dataset.open(store, dataset, states=ALL_STATES)
    return opened.manifest.model_dump_json(indent=1) if as_json else describe(opened)


def verify(dataset: str, root: str | None = None) -> str:
    """Read every file of a dataset, and compare each file with the manifest. A search does not make this check.

    The files of the vector index are compared with its description. The exit status is 1 if a file is missing or
    damaged. One line for each such file says what to do.

    Args:
        dataset: Name of the dataset.
        root: Folder or s3://bucket/prefix of the dataset. The default is the folder rasterembed-store.
    """
    _refuse_pattern(dataset)
    store = open_store(root)
    check_known(store, [dataset])
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.dataset.manifest import ALL_STATES
    from rasterembed.dataset.verify import Damage, verify_dataset
    from rasterembed.progress.progress_bar import terminal_bar
    from rasterembed.progress.progress_lines import progress_lines
    from rasterembed.search.index.verifying import verify_index

    opened = Dataset.open(store, dataset, states=ALL_STATES)
    results: list[Damage | None] = []
    files = len(opened.shards) + 4
    lines = progress_lines(lambda _: f"{len(results):,} of about {files:,} files")
    with lines, terminal_bar(files, "file") as bar:
        for result in verify_dataset(store, opened.manifest):
            results.append(result)
            bar.update()
    of_index = list(verify_index(opened))
    results += of_index
    damages = [result for result in results if result is not None]
    for damage in damages:
        print(escape_terminal(in_command_words(damage.sentence(store))))
    if damages:
        raise DataError(f"dataset {dataset!r}: {part_of(len(damages), len(results), 'file')} missing or damaged")
    more = (
        f"; {len(of_index)} of them {agreeing(len(of_index), 'is', 'are')} the vector index, as index.json says"
        if of_index
        else ""
    )
    return f"dataset {dataset!r}: all {counted(len(results), 'file')} are as the manifest says{more}"


def delete(dataset: str, root: str | None = None, yes: Annotated[bool, Parameter(negative=())] = False) -> str:
    """Delete a dataset with its vectors, its reports and its vector index. The raster is not touched.

    A dataset of a collection is refused, also if it joined the collection: remove its scene from the collection first,
    with `rasterembed collection remove-scene`.

    Args:
        dataset: Name of the dataset. The dataset may be unfinished or unreadable.
        root: Folder or s3://bucket/prefix of the dataset. The default is the folder rasterembed-store.
        yes: Delete without asking. This option is necessary if the command does not run in a terminal.
    """
    from rasterembed.collection.replacing import check_deletion
    from rasterembed.dataset.deletion import delete_dataset, has_objects
    from rasterembed.store.known_datasets import unknown_dataset

    _refuse_pattern(dataset)
    store = open_store(root)
    # It is refused before the question.
    if not has_objects(store, dataset):
        raise unknown_dataset(store, dataset)
    check_deletion(store, dataset)
    if not yes and not confirmed(f"dataset {dataset!r}", store.root):
        return "nothing was deleted"
    count = delete_dataset(store, dataset, on_wait=print_message)
    return f"dataset {dataset!r} was deleted: {counted(count, 'object')}"


app = OptionsApp(name="datasets", help="List, show, verify and delete the datasets of a store.", version_flags=[])
_COMMANDS: dict[str, Callable[..., str]] = {"list": list_, "show": show, "verify": verify, "delete": delete}
for _name, _function in _COMMANDS.items():
    app.command(command_app(_name, _function, keeps_work=_function is delete), name=_name)
