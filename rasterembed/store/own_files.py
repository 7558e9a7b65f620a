"""Remember the digests of the files that this user made on this machine, wherever these files are now.

Each digest is the name of an empty file in the user's cache folder. The names are used only if no other user can write
them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rasterembed.store.local_cache import cache_folder, is_private

_MOST_FILES = 1000
"""Number of digests that are remembered. The oldest ones are forgotten."""


def note_own_file(sha256: str) -> None:
    """Remember that this user made a file on this machine. Nothing is remembered if the cache folder cannot be written.

    Args:
        sha256: digest of the file in hexadecimal digits.
    """
    folder = _notes()
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / sha256).touch()
        notes = sorted(folder.iterdir(), key=lambda note: note.stat().st_mtime_ns)
        for note in notes[:-_MOST_FILES]:
            note.unlink(missing_ok=True)


def is_own_file(sha256: str) -> bool:
    """Return whether this user made a file with this digest on this machine.

    A digest that somebody else wrote down next to a file shows that the file is complete. Only this function shows that
    no stranger made it.

    Args:
        sha256: digest of the file in hexadecimal digits.
    """
    folder = _notes()
    try:
        return is_private(folder) and (folder / sha256).is_file()
    except OSError:
        return False


def _notes() -> Path:
    """Return the folder of the names."""
    return cache_folder() / "own-files"
