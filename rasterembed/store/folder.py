"""Objects as files in a folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rasterembed.errors import ObjectMissingError, StoreError, os_errors
from rasterembed.store.storage import ObjectInfo


class FolderStorage:
    """Objects as files. A file is written aside, flushed to the disk and moved into place."""

    def read(self, path: str) -> bytes | None:
        """Content of the file, or None."""
        with os_errors(path):
            try:
                return Path(path).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, path: str, data: bytes) -> None:
        """Write aside, then `os.replace`."""
        with self._aside(path, data) as file:
            self.write_from_file(path, file)

    def create(self, path: str, data: bytes) -> bool:
        """Write aside, then a hard link, which fails if the name is taken."""
        with self._aside(path, data) as file:
            return self.create_from_file(path, file)

    @contextmanager
    def _aside(self, path: str, data: bytes) -> Iterator[Path]:
        folder = os.path.dirname(path)
        file = self.scratch(folder) / f"{uuid.uuid4().hex}.part"
        try:
            with os_errors(folder):
                file.write_bytes(data)
            yield file
        finally:
            file.unlink(missing_ok=True)

    def write_from_file(self, path: str, file: Path) -> None:
        """Move the file into place."""
        with os_errors(path):
            _flush(file)
            os.replace(file, path)

    def create_from_file(self, path: str, file: Path) -> bool:
        """Link the file into place unless the name is taken."""
        with os_errors(path):
            _flush(file)
            try:
                os.link(file, path)
            except FileExistsError:
                return False
            return True

    def open(self, path: str) -> IO[bytes]:
        """Open for reading."""
        with os_errors(path):
            return Path(path).open("rb")

    def sizes(self, folder: str) -> dict[str, int]:
        """Files directly in the folder; files on their way (`.part`) are no objects."""
        found = {}
        with os_errors(folder):
            if not os.path.isdir(folder):
                return {}
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".part") or not entry.is_file():
                        continue
                    try:
                        found[entry.name] = entry.stat().st_size
                    except FileNotFoundError:  # deleted since the folder was read
                        continue
        return found

    def find(self, folder: str) -> Iterator[tuple[str, ObjectInfo]]:
        """Walk the folder; a file that goes meanwhile is left out."""
        for parent, _, names in os.walk(folder):
            for path in (os.path.join(parent, name) for name in names if not name.endswith(".part")):
                with suppress(ObjectMissingError):
                    yield path, self.describe(path)

    def delete(self, path: str) -> None:
        """Unlink; the folder is left."""
        with os_errors(path):
            Path(path).unlink(missing_ok=True)

    def describe(self, path: str) -> ObjectInfo:
        """Size and modification time."""
        with os_errors(path):
            stat = os.stat(path)
        if not os.path.isfile(path):
            raise StoreError(f"{path}: it is not a file")
        return ObjectInfo(stat.st_size, str(stat.st_mtime_ns), stat.st_mtime)

    def scratch(self, folder: str) -> Path:
        """The folder itself, so that a move into place stays on one file system."""
        with os_errors(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder)


def _flush(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
