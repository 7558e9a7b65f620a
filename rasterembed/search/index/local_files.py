"""The files of a vector index on this machine. Files on S3 are downloaded once, into the user's cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rasterembed.errors import Access, ObjectMissingError, os_errors
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.index.description import SegmentFile, VectorIndex
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.checked_files import note_checked, seconds_until_notable, was_checked
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.write_aside import new_file

DEAD_AFTER_S = 24 * 3600
"""Age of an unfinished file, in seconds. An older one is removed, because its process was probably killed."""

_CHUNK_BYTES = 16 * 2**20


@contextmanager
def checked_file(files: VectorFiles, file: SegmentFile) -> Iterator[tuple[Path, bool]]:
    """Yield the path of a file of an index on this machine, after a check of its size and its digest.

    The digest is checked once on a machine. The `with` block must check the content too. If it raises no error, the
    file is remembered as checked. A build may delete a file of a folder store at any time. It is then a missing file,
    whether the check or the `with` block finds that out. A download stays until the end of the `with` block. What the
    block opened can still be read afterwards.

    Args:
        files: the files whose vectors are in the index.
        file: the file. On S3, it is downloaded unless the cache folder has it.

    Yields:
        The path, and whether the file was checked before.

    Raises:
        IndexUnusableError: if the file is missing, or if its size or digest is wrong.
        StoreError: if the store refuses or does not answer, or if the file cannot be read or written.
    """
    key = files.layout.vector_index_file(file.name)
    with ExitStack() as stack:
        try:
            if files.store.is_s3:
                path = _download(files, key, file, stack.enter_context(_downloads_kept(files)))
            else:
                path = Path(files.store.uri(key))
            with os_errors(str(path)):
                status = path.stat()
                known = was_checked(path, file.sha256)
                if not path.is_file() or status.st_size != file.bytes or not (known or _digest(path) == file.sha256):
                    if files.store.is_s3:
                        path.unlink(missing_ok=True)  # The next search downloads it again.
                    raise IndexUnusableError(NoIndexReason.FILE_DAMAGED)
                yield path, known
        except ObjectMissingError as error:
            raise IndexUnusableError(NoIndexReason.FILE_DAMAGED) from error
    if not known:
        note_checked(path, file.sha256, status)


@contextmanager
def _downloads_kept(files: VectorFiles) -> Iterator[Path]:
    """Yield the cache folder of an index, and let no process delete a file from it until the end of the block.

    A process that has read an older description of the index would delete the files of the present one. Several
    processes may use the folder at the same time: each of them holds a shared lock on it.
    """
    folder = _cache_of(files)
    with os_errors(str(folder), Access.WRITE):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _open_folder(folder)
    try:
        with suppress(OSError):  # Some network file systems have no locks. No process then deletes old downloads.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield folder
    finally:
        os.close(descriptor)


def _open_folder(folder: Path) -> int:
    """Return a descriptor of a folder, which a lock on the folder needs. The lock ends when it is closed."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def note_built(files: VectorFiles, index: VectorIndex) -> None:
    """Remember that the files of an index were checked. Call this in the process that has just written them.

    The build computes the digests from the content of the files, so the first search need not do it again. Files on S3
    are checked after the download.

    Args:
        files: the files whose vectors are in the index.
        index: the new index. Its earlier segments were checked before.
    """
    if files.store.is_s3:
        return
    for file in index.files:
        path = Path(files.store.uri(files.layout.vector_index_file(file.name)))
        with suppress(FileNotFoundError):  # Another build may have deleted it.
            status = path.stat()
            time.sleep(seconds_until_notable(status))
            note_checked(path, file.sha256, status)


def forget_old_downloads(files: VectorFiles, index: VectorIndex) -> None:
    """Delete the files of older indexes from the cache folder, unless another process opens an index from it now.

    A process that has one of the files open can still read it. What stays is deleted when the index is opened again.

    Args:
        files: the files whose vectors are in the index.
        index: the present index.
    """
    folder = _cache_of(files)
    if not files.store.is_s3 or not folder.is_dir():
        return
    kept = {file.name for file in index.files}
    # The index is open. It can be searched, even if the folder is locked or a file cannot be deleted.
    with suppress(OSError), ExitStack() as stack:
        descriptor = _open_folder(folder)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in folder.iterdir():
            with suppress(OSError):
                is_fresh = path.suffix == ".part" and time.time() - path.stat().st_mtime < DEAD_AFTER_S
                if path.name not in kept and not is_fresh:
                    path.unlink()


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _cache_of(files: VectorFiles) -> Path:
    """Return the folder with the downloaded index of a dataset or a collection."""
    origin = f"{files.store.endpoint_url} {files.store.uri(files.layout.vector_index_folder)}"
    return cache_folder() / "indexes" / hashlib.sha256(origin.encode()).hexdigest()[:16]


def _download(files: VectorFiles, key: str, file: SegmentFile, folder: Path) -> Path:
    """Return the path of a file in the cache folder. Download the file if the folder lacks it.

    Raises:
        ObjectMissingError: if the store has no such file.
        IndexUnusableError: if the object is larger or smaller than `index.json` says.
    """
    path = folder / file.name
    with os_errors(str(path), Access.WRITE):
        if path.is_file():
            return path
        with files.store.open(key) as source:
            if source.seek(0, os.SEEK_END) != file.bytes:
                raise IndexUnusableError(NoIndexReason.FILE_DAMAGED)
            source.seek(0)
            with new_file(path) as part, part.open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
    return path
