"""Storage in a folder: every object is a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rasterembed.errors import Access, ObjectMissingError, StoreError, os_errors, why_not_utf8
from rasterembed.store.storage import ObjectInfo
from rasterembed.store.write_aside import flush_to_disk, link_into_place, part_file


class FolderStorage:
    """Keeps each object as a file. A file is written under a temporary name, flushed to the disk, and then renamed."""

    def read(self, path: str, most: int | None = None) -> bytes | None:
        """Return the content of the file, or its first `most` bytes. Return None if the file does not exist."""
        try:
            with self.open(path) as file, os_errors(path):
                return file.read(-1 if most is None else most)
        except ObjectMissingError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Write a file with a temporary name, then move the file to its path."""
        with self._part(path, data) as file:
            self.write_from_file(path, file)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file with a temporary name, then make a hard link at the path. Return False if the path is taken."""
        with self._part(path, data) as file:
            return self.create_from_file(path, file)

    @contextmanager
    def _part(self, path: str, data: bytes) -> Iterator[Path]:
        folder = os.path.dirname(path)
        with part_file(self.scratch(folder)) as file:
            with os_errors(folder, Access.WRITE):
                file.write_bytes(data)
            yield file

    def write_from_file(self, path: str, file: Path) -> None:
        """Move a local file to a path of the store."""
        with os_errors(path, Access.WRITE):
            flush_to_disk(file)
            os.replace(file, path)

    def create_from_file(self, path: str, file: Path) -> bool:
        """Make a hard link at `path` to the file. Return False if `path` is taken."""
        with os_errors(path, Access.WRITE):
            flush_to_disk(file)
            return link_into_place(file, Path(path))

    def open(self, path: str) -> IO[bytes]:
        """Open the file for reading. Refuse a named pipe, a device and a folder."""
        with os_errors(path):
            # Without O_NONBLOCK, this call would wait for a process at the other end of a named pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StoreError(f"{path}: it is not a file")
        return os.fdopen(descriptor, "rb")

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes in bytes, by name, of the files directly in the folder.

        Skip unfinished files (`.part`), and files whose name is not UTF-8, because no store writes such a name. Skip
        entries that are no regular files too: named pipes, devices, and links that lead to no file.
        """
        sizes = {}
        with os_errors(folder, Access.LIST):
            try:
                listing = os.scandir(folder)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            with listing as entries:
                for entry in entries:
                    if _is_name(entry.name) and (status := _regular_file(entry.path)):
                        sizes[entry.name] = status.st_size
        return sizes

    def find(self, folder: str, beginning: str = "") -> Iterator[tuple[str, ObjectInfo]]:
        """Yield every file in the folder and its subfolders. Skip the same files as `sizes` does.

        A file that another process deletes during the search is skipped too. With `beginning`, skip the files and the
        subfolders of the folder whose names begin in another way.

        Raises:
            StoreError: if a subfolder cannot be listed. Without its files, a caller would take them as deleted.
        """
        for parent, folders, names in os.walk(folder, onerror=_raise_unless_gone):
            if parent == folder:
                folders[:] = [name for name in folders if name.startswith(beginning)]
                names = [name for name in names if name.startswith(beginning)]
            for path in (os.path.join(parent, name) for name in names if _is_name(name)):
                with os_errors(path):
                    status = _regular_file(path)
                if status and not why_not_utf8(path):
                    yield path, _info(status)

    def find_deletable(self, folder: str) -> Iterator[str]:
        """Yield every file, link, named pipe and device in the folder and its subfolders. Follow no link.

        If the folder itself is a link, yield only the folder. Its content is outside the store.

        Raises:
            StoreError: if a subfolder cannot be listed.
        """
        if os.path.islink(folder):
            yield folder
            return
        for parent, folders, names in os.walk(folder, onerror=_raise_unless_gone):
            # `os.walk` counts a link to a folder as a folder, and does not enter it.
            links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
            yield from (os.path.join(parent, name) for name in (*names, *links) if _is_name(name))

    def delete(self, path: str) -> None:
        """Remove the file; keep its folder."""
        with os_errors(path, Access.DELETE):
            Path(path).unlink(missing_ok=True)

    def describe(self, path: str) -> ObjectInfo:
        """Return size and modification time of the file."""
        with os_errors(path):
            status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{path}: it is not a file")
        return _info(status)

    def scratch(self, folder: str) -> Path:
        """Return the folder itself. A file in it can be moved to its path in one step: both are on one file system."""
        with os_errors(folder, Access.WRITE):
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
            except FileNotFoundError as error:  # For example, nobody can make a folder in /proc.
                raise StoreError(f"{folder}: the folder cannot be made: choose a root that you can write to") from error
        return Path(folder)


def _raise_unless_gone(error: OSError) -> None:
    """Raise an error of `os.walk`, unless another process has deleted the folder.

    Without this function, `os.walk` leaves a folder out if it cannot list it.
    """
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        with os_errors(str(error.filename), Access.LIST):
            raise error


def _is_name(name: str) -> bool:
    """Return False for the name of an unfinished file, and for a name that is not UTF-8."""
    return not name.endswith(".part") and why_not_utf8(name) is None


def _regular_file(path: str) -> os.stat_result | None:
    """Return the status of a file, or of the file that a link leads to. Return None if the path leads to no file.

    Raises:
        OSError: if the operating system refuses for a reason that is not in the entry itself.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:  # Another process may have deleted the file after the folder was read.
        return None
    except OSError:
        # A link may lead to itself, or through a file, or into a folder that this user may not enter.
        if os.path.islink(path):
            return None
        raise
    return status if stat.S_ISREG(status.st_mode) else None


def _info(status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(status.st_size, str(status.st_mtime_ns), status.st_mtime)
