"""The file for a result of a search: a local file, or an object of the store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rasterembed.errors import Access, RasterEmbedError, UsageError, os_errors, told_when_interrupted
from rasterembed.store.layout import OUTPUT_FOLDERS
from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.output_place import check_local_file, check_not_of_dataset, key_of_file
from rasterembed.store.write_aside import new_file

ANSWER_ENDINGS = (".geojson", ".parquet", ".csv")
"""Endings of files with the tiles of an answer. `rasterembed.search.output` writes each format."""

STORE_PREFIX = "store:"
"""Prefix that marks the name of an object of the store."""


@dataclass(frozen=True)
class OutputFile:
    """A file for a result: a local file, or an object of a store. `find_output` makes it from the name of the file."""

    place: str
    """Path of the local file, or key of the object."""
    store: ObjectStore | None = None
    """The store of the object. None for a local file."""

    @property
    def ending(self) -> str:
        """Ending of the name in lower case, such as `.csv`."""
        return PurePosixPath(self.place).suffix.lower()

    def __str__(self) -> str:
        """Return the path of the local file, or the URI of the object."""
        return self.place if self.store is None else self.store.uri(self.place)

    def write(self, data: bytes) -> None:
        """Write the file in one atomic step. An existing file is replaced.

        Raises:
            StoreError: if the file cannot be written.
        """
        if self.store is not None:
            self.store.write(self.place, data)
            return
        with os_errors(self.place, Access.WRITE), new_file(Path(self.place)) as part:
            part.write_bytes(data)

    @contextmanager
    def new_local_file(self) -> Iterator[Path]:
        """Yield the path of a new local file. At the end of the block, it becomes this file in one atomic step.

        An existing file is replaced. If the block raises an exception, nothing changes.

        Raises:
            StoreError: if the file cannot be written.
        """
        if self.store is not None:
            with local_file(self.store, self.place, replace=True) as file:
                yield file.path
            return
        with os_errors(self.place, Access.WRITE), new_file(Path(self.place)) as part:
            yield part

    def check_not_read(self, addresses: Iterable[str | None]) -> None:
        """Refuse a result that would replace a file which the search reads.

        Args:
            addresses: paths, or s3://bucket/key, of files that are read. None is left out.

        Raises:
            UsageError: if the result is one of these files.
        """
        own = _entry(str(self))
        for address in filter(None, addresses):
            if PurePosixPath(address).name == PurePosixPath(own).name and _entry(address) == own:
                raise UsageError(f"{self}: the search reads this file, and would replace it: choose another file")


def _entry(address: str) -> str:
    """Return the absolute form of an address. Symbolic links to folders are resolved.

    A result replaces a link in the place of the file itself, and not the file that the link leads to.
    """
    if "://" in address:
        return address
    path = Path(address).expanduser()
    return os.path.join(os.path.realpath(path.parent), path.name)


def find_output(store: ObjectStore | None, text: str | Path, *endings: str, local: bool = True) -> OutputFile:
    """Return the file for a result. Call this function first, so that a wrong name is found before the search.

    Args:
        store: the store of the datasets. None if only a local file is possible.
        text: path of a local file, `store:KEY` for an object of the store, or the s3:// URI of an object below the
            store's root. A local file below the root of a store is an object too.
        endings: allowed endings of the name, such as `.csv`.
        local: whether a local file is allowed. Local files of a container are lost with the container.

    Raises:
        UsageError: if the name has none of these endings; if the folder of a local file does not exist; if the key is
            not allowed; if the file is a folder, or is in a folder of the datasets; or if a local file is not allowed.
    """
    name = str(text)
    if not name.lower().endswith(endings):
        raise UsageError(f"{name}: give a file name that ends in {' or '.join(endings)}")
    key = _key(store, name)
    if store is not None and key is not None:
        check_not_of_dataset(store, store.uri(_check_key(name, key)))
        return OutputFile(key, store)
    if not local:
        raise UsageError(
            f"{name}: this run is in a container, and its local files are lost with it: write into the store, for "
            f"example to {STORE_PREFIX}searches/{PurePosixPath(name).name}"
        )
    check_local_file(name)
    if store is not None:
        check_not_of_dataset(store, name)
    return OutputFile(name)


def _key(store: ObjectStore | None, name: str) -> str | None:
    """Return the key of an object of the store, or None if the name is that of a local file."""
    if name.startswith(STORE_PREFIX):
        if store is None:
            raise UsageError(f"{name}: no store is known here: give the path of a local file")
        return name.removeprefix(STORE_PREFIX)
    if store is not None and store.is_s3 and name.startswith(f"{store.root}/"):
        return name.removeprefix(f"{store.root}/")
    if "://" in name:
        where = "this store" if store is None else store.root
        raise UsageError(
            f"{name}: it is not below {where}: give a local file, or {STORE_PREFIX}KEY for an object of the store"
        )
    return None if store is None else key_of_file(store, name)


def _check_key(name: str, key: str) -> str:
    """Return the key, if a result may be written to it. A result never replaces a file of a dataset."""
    segments = key.split("/")
    if not key.isprintable() or any(segment in ("", ".", "..") for segment in segments):
        raise UsageError(
            f"{name}: {key!r} is no key: give names that are separated by single slashes, without . and .."
        )
    if segments[0] in OUTPUT_FOLDERS:
        raise UsageError(f"{name}: the folder {segments[0]} belongs to datasets: choose another, such as searches")
    return key


def find_outputs(
    store: ObjectStore,
    out: str | None,
    sheet: str | None,
    *,
    local: bool = True,
    inputs: Sequence[str | None] = (),
) -> tuple[OutputFile | None, OutputFile | None]:
    """Return the files for an answer and its contact sheet. See `find_output`.

    Args:
        store: the store of the datasets.
        out: file for the tiles of an answer, or None.
        sheet: file for a contact sheet, or None.
        local: whether local files are allowed.
        inputs: files that the search reads: paths, `s3://bucket/key`, or `store:KEY`. None is left out.

    Raises:
        UsageError: see `find_output`; or if a file is one of the inputs.
    """
    tiles = None if out is None else find_output(store, out, *ANSWER_ENDINGS, local=local)
    picture = None if sheet is None else find_output(store, sheet, ".png", local=local)
    addresses = [
        store.uri(address.removeprefix(STORE_PREFIX)) if address and address.startswith(STORE_PREFIX) else address
        for address in inputs
    ]
    for file in (tiles, picture):
        if file is not None:
            file.check_not_read(addresses)
    return tiles, picture


@contextmanager
def picture_after(table: OutputFile | None) -> Iterator[None]:
    """Draw a picture in this block. If this fails or is interrupted, the message says that the table is complete.

    Args:
        table: the file that was written before the picture. None if there is none.
    """
    try:
        with told_when_interrupted(lambda: None if table is None else f"no picture was drawn, but {table} is complete"):
            yield
    except RasterEmbedError as error:
        if table is not None:
            error.args = (f"{error.args[0]}; no picture was drawn, but {table} is complete", *error.args[1:])
        raise
