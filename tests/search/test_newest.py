"""Files that a run replaces while they are opened."""

from __future__ import annotations

import pytest

from rasterembed.errors import DataError, StoreUnavailableError
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.newest import open_newest


class Files:
    """Files of which the store has only the newest version.

    Args:
        newest: number of the version.
        error: error of every other version.
    """

    def __init__(self, newest: int, error: Exception) -> None:
        self.newest, self.error = newest, error
        self.descriptions_read = 0

    def open(self, version: int) -> str:
        if version != self.newest:
            raise self.error
        return f"files of version {version}"

    def newer(self, version: int) -> int | None:
        """Return the next version, as if a run had written one since the last call."""
        self.descriptions_read += 1
        return None if version == self.newest else version + 1


@pytest.mark.parametrize("error", [DataError("missing"), IndexUnusableError(NoIndexReason.FILE_DAMAGED)])
def test_the_files_of_the_newest_version_are_opened(error: Exception) -> None:
    files = Files(3, error)
    assert open_newest(1, files.open, files.newer) == "files of version 3"
    files = Files(4, error)
    with pytest.raises(type(error)) as raised:  # The third attempt is the last one.
        open_newest(1, files.open, files.newer)
    assert raised.value is error


def test_files_that_no_run_replaced_are_damaged() -> None:
    error = DataError("damaged")
    files = Files(0, error)
    files.newer = lambda _: None  # type: ignore[method-assign]
    with pytest.raises(DataError, match="damaged"):
        open_newest(1, files.open, files.newer)


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("no answer"), IndexUnusableError(NoIndexReason.FAILED, "no answer")]
)
def test_a_silent_store_is_not_asked_for_a_newer_version(error: Exception) -> None:
    files = Files(2, error)
    with pytest.raises(type(error), match="no answer"):
        open_newest(1, files.open, files.newer)
    assert files.descriptions_read == 0
