"""Remember the digests of local files, so that the next process on this machine need not read them again.

A note about a file is in the user's cache folder. It has the SHA-256 digest, the size and the times of the file, and
the numbers that the file system gives to it. A file that was written or replaced later has other ones: every change
sets the ctime to the present time, and a user cannot set it to another time. Notes are used only if no other user can
write them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from rasterembed.store.local_cache import cache_folder, is_private
from rasterembed.store.write_aside import new_file

_SAME_TICK_NS = 20_000_000
"""Smallest age in nanoseconds of a file that is noted. The clock of a file system has ticks of up to ten milliseconds,
so a file that was just written could change again without a new time."""

_SAME_SECOND_NS = 2 * 10**9
"""Smallest age in nanoseconds of a file that is noted, if its ctime is a whole second. Some file systems store times in
whole seconds."""


def was_checked(path: Path, sha256: str) -> bool:
    """Return whether this user's processes have checked a file, and the file was not changed since.

    Args:
        path: the file.
        sha256: digest that the file must have.
    """
    return _noted_digest(path) == sha256


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal digits. A file that was not changed since is not read again.

    Args:
        path: the file.

    Raises:
        OSError: if the file cannot be read.
    """
    before = path.stat()
    noted = _noted_digest(path)
    if noted is not None:
        return noted
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    note_checked(path, digest, before)
    return digest


def note_checked(path: Path, sha256: str, before: os.stat_result) -> None:
    """Remember that a file was checked. Forget the files that are gone from its folder.

    Nothing is remembered if the file changed during the check, or if the cache folder cannot be written.

    Args:
        path: the file.
        sha256: digest of the file.
        before: status of the file from before the check.
    """
    note = _note(path)
    with suppress(OSError):
        now = path.stat()
        if seconds_until_notable(now) or _state(now, sha256) != _state(before, sha256):
            return
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with new_file(note) as part:
            part.write_text(json.dumps(_state(now, sha256)))
        for other in note.parent.iterdir():
            if not (path.parent / other.name.removesuffix(".json")).exists():
                other.unlink(missing_ok=True)


def seconds_until_notable(status: os.stat_result) -> float:
    """Return the time in seconds until a file is old enough for a note. It is 0 if the file is old enough.

    Args:
        status: status of the file. A file from the future is as old as one that was just written.
    """
    age = max(0, time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns))
    least = _SAME_TICK_NS if status.st_ctime_ns % 10**9 else _SAME_SECOND_NS
    return max(0, least - age) / 1e9


def _noted_digest(path: Path) -> str | None:
    """Return the digest in the note about a file, or None if there is no valid note or the file was changed since."""
    note = _note(path)
    try:
        if not is_private(note.parent):
            return None
        content = json.loads(note.read_text())
        digest = str(content["sha256"])
        return digest if content == _state(path.stat(), digest) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(status: os.stat_result, sha256: str) -> dict[str, str | int]:
    """Return the content of a note."""
    names = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    return {"sha256": sha256} | {name: getattr(status, name) for name in names}


def _note(path: Path) -> Path:
    """Return the path of the note about a file."""
    absolute = path.absolute()
    folder = hashlib.sha256(os.fsencode(absolute.parent)).hexdigest()[:24]
    return cache_folder() / "checked" / folder / f"{absolute.name}.json"
