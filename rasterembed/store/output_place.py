"""Local files that a person names for a result, compared with the files of a store in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from rasterembed.errors import UsageError
from rasterembed.store.layout import OUTPUT_FOLDERS
from rasterembed.store.object_store import ObjectStore


def key_of_file(store: ObjectStore, path: str | Path) -> str | None:
    """Return the key of a local file, or None if the file is outside the store.

    Symbolic links to folders are resolved before the paths are compared. A link in the place of the file itself is not
    resolved.

    Args:
        store: the store.
        path: absolute or relative path. The file and its folder need not exist.
    """
    file = _resolved_folder(path) / Path(path).name
    root = Path(os.path.realpath(store.root))
    return None if store.is_s3 or not file.is_relative_to(root) else file.relative_to(root).as_posix()


def check_local_file(path: str | Path) -> None:
    """Check that a person can mean this path as a file for a result. The file may exist.

    Args:
        path: absolute or relative path.

    Raises:
        UsageError: if the folder of the file does not exist, if the path is that of a folder, or if it has a zero
            character.
    """
    if "\0" in str(path):
        raise UsageError(f"{str(path)!r}: a file name cannot have a zero character")
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{path}: there is no folder {folder}")
    if os.path.isdir(path) and not os.path.islink(path):
        raise UsageError(f"{path}: it is a folder: give the name of a file")


def check_not_of_dataset(store: ObjectStore, path: str | Path) -> None:
    """Check that a local file is in no folder that holds files of datasets.

    Args:
        store: the store.
        path: absolute or relative path.

    Raises:
        UsageError: if the file is in such a folder.
    """
    if store.is_s3:
        return
    folder = _resolved_folder(path)
    for name in OUTPUT_FOLDERS:
        # Compare the folders, not only their paths: the folder can be mounted twice, and on some file systems
        # `Embeddings` is the same folder as `embeddings`.
        owned = Path(os.path.realpath(store.uri(name)))
        if any(above == owned or _is_same(above, owned) for above in (folder, *folder.parents)):
            raise UsageError(f"{path}: the folder {owned} belongs to datasets: choose another")


def _resolved_folder(path: str | Path) -> Path:
    return Path(os.path.realpath(os.path.dirname(path)))


def _is_same(folder: Path, other: Path) -> bool:
    try:
        return folder.samefile(other)
    except OSError:  # One of the folders does not exist.
        return False
