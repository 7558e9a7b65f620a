"""Verify a vector index: compare each of its files with the size and the digest in `index.json`."""

from __future__ import annotations

from collections.abc import Iterator

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.verify import Damage, DamageKind, compare_file, delete_and
from rasterembed.errors import DataError, StoreError, StoreUnavailableError
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.index.description import SegmentFile, read_any_index
from rasterembed.search.vector_files import VectorFiles


def verify_index(owner: Dataset | Collection) -> Iterator[Damage | None]:
    """Read all files of a vector index, and yield the result for each file: its damage, or None.

    Each file is read as a whole, also if a search on this machine has checked it before. An index with other vectors
    than the dataset or the table is stale, and not damaged: its files are compared with its own description.

    Nothing is yielded if there is no index, or if the description of the collection's table cannot be read.

    Args:
        owner: the dataset or the collection.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    if isinstance(owner, Dataset):
        files = VectorFiles.of_dataset(owner)
        again, command = "embed the raster again", f"rasterembed embed RASTER --dataset-id {owner.id}"
    else:
        try:
            table = owner.table
        except StoreUnavailableError:
            raise
        except DataError:  # The check of the collection reports it.
            return
        if table is None:
            return
        files = VectorFiles.of_table(owner, table)
        again, command = "embed the collection again", f"rasterembed collection embed SCENES --collection {owner.id}"
    key = files.layout.vector_index_info
    purpose = "to build a new index; until then, a search compares all vectors"
    # A run without options keeps the engine of the index. With `--index always`, it would choose one by the rows. Only
    # the description tells a run that there is an index. Without it, a run needs the option.
    with_option = f"{again} (`{command} --index always`) {purpose}"
    again = f"{again} (`{command}`) {purpose}"
    try:
        index = read_any_index(files)
    except StoreUnavailableError:
        raise
    except StoreError as error:
        reason = str(error).removeprefix(f"{files.store.uri(key)}: ")
        yield Damage(key, DamageKind.UNREADABLE, reason, delete_and(with_option))
        return
    except IndexUnusableError as error:
        if error.reason is not NoIndexReason.ABSENT:
            yield Damage(key, DamageKind.UNREADABLE, "it is no description of a vector index", delete_and(with_option))
        return
    for file in index.files:
        path = files.layout.vector_index_file(file.name)
        damage = compare_file(files.store, path, file.sha256, file.bytes, described_by="index.json")
        if damage is None:
            yield None
        elif file in _present_files(files):  # Otherwise, a build has replaced the index meanwhile.
            yield damage.with_remedy(again)


def _present_files(files: VectorFiles) -> tuple[SegmentFile, ...]:
    """Return the files that the index has now."""
    try:
        return read_any_index(files).files
    except IndexUnusableError:
        return ()
