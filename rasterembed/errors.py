"""Errors that a person can correct. The text of each error is one line for that person."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING

from rasterembed.escape import cut, escape_terminal

if TYPE_CHECKING:
    from pydantic import ValidationError


class RasterEmbedError(Exception):
    """Base of all errors of this library. The text says what was wrong, where, and what to do."""

    exit_code = 1
    """Exit status of the command: 2 for wrong usage, 1 for data that cannot be processed."""

    def __str__(self) -> str:
        """Return the text in one line, with control characters escaped. Names in it may come from a stranger's file."""
        return escape_terminal(super().__str__())


class UsageError(RasterEmbedError):
    """A parameter is wrong. Nothing was read or written."""

    exit_code = 2


class DataError(RasterEmbedError):
    """The raster, the model or the dataset cannot be processed."""


class RasterChangedError(DataError):
    """The raster or its mask file changed after the plan was made."""


class StoreError(DataError):
    """The store refused a request: wrong keys, a missing bucket, no permission, a full disk."""


class ObjectMissingError(StoreError):
    """The object or file does not exist."""


class StoreUnavailableError(StoreError):
    """The store did not answer, or the connection broke. The same call may succeed later."""


class ConfigurationChangedError(DataError):
    """The dataset exists with another configuration, and `replace` was not given."""


class LeaseHeldError(DataError):
    """Another run is writing the dataset."""


class LeaseLostError(DataError):
    """This run's lease expired, and another run took the dataset over."""


class Cancelled(RasterEmbedError):  # noqa: N818 - nobody made an error; the name says what happened
    """The run was told to stop. Only complete shards stay in the store."""


@contextmanager
def told_when_interrupted(describe: Callable[[], str | None]) -> Iterator[None]:
    """Add a note to the KeyboardInterrupt of a block: what stands. A command prints it, and a notebook shows it.

    Args:
        describe: function that returns the note in one line, or None for no note. It may read the store. It is not
            called if a block inside this one has made a note.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if not getattr(error, "__notes__", None):
            with suppress(RasterEmbedError):  # The store may be away. The interruption is what people must see.
                note = describe()
                if note is not None:
                    error.add_note(escape_terminal(note))
        raise


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return the text of an exception in one line.

    Args:
        error: any exception, of this library or of another one.
        limit: largest length in characters. A longer text is cut and ends with "…".

    Returns:
        The text, with one space in place of each run of white space. If the exception has no text: its class name.

    Example:
        >>> from rasterembed.errors import one_line
        >>> one_line(ValueError("first line\\n  second line"))
        'first line second line'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return cut(text, limit)


def validation_reason(error: ValidationError) -> str:
    """Return pydantic's message about the first wrong field, without the name of the field."""
    message: str = error.errors(include_url=False)[0]["msg"]
    return message.removeprefix("Value error, ")


def check_type(value: object, kind: type, name: str, advice: str) -> None:
    """Refuse a value of the wrong type at a public function.

    Args:
        value: the value that the caller gave.
        kind: class that the value must have.
        name: name of the parameter.
        advice: what to give instead, such as `ObjectStore(root="embeddings")`.

    Raises:
        UsageError: if `value` is not of the class.

    Example:
        >>> from rasterembed.errors import check_type
        >>> check_type("results", dict, "options", "a dict")
        Traceback (most recent call last):
        rasterembed.errors.UsageError: the parameter options is of type str: give a dict
    """
    if not isinstance(value, kind):
        raise UsageError(f"the parameter {name} is of type {type(value).__name__}: give {advice}")


def name_list(names: Sequence[str], what: str) -> list[str]:
    """Return names as a list.

    Args:
        names: the names.
        what: word for the names, such as `columns`.

    Raises:
        UsageError: if the names are one text. Its letters would be taken as names.

    Example:
        >>> name_list("scene", "dataset ids")
        Traceback (most recent call last):
        rasterembed.errors.UsageError: the dataset ids are a list: give ['scene'], not 'scene'
    """
    if isinstance(names, str):
        raise UsageError(f"the {what} are a list: give [{names!r}], not {names!r}")
    return list(names)


def path_text(value: object) -> object:
    """Return a path object as text. Return any other value unchanged, because its validator refuses it."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def why_not_utf8(name: str) -> str | None:
    r"""Return an error text of one line for a path or name that is not UTF-8. Return None if it is UTF-8.

    On Linux a file name is a sequence of bytes. Python turns each byte that is not UTF-8 into a lone surrogate. GDAL,
    JSON and Parquet accept no text with lone surrogates.

    Args:
        name: a path or name, as the operating system or the command line gave it.

    Example:
        >>> from rasterembed.errors import why_not_utf8
        >>> why_not_utf8("caf\udce9.tif")
        "'caf\\xe9.tif' is not UTF-8 (\\x marks the bytes that are not): rename the file or folder"
    """
    if name.isascii():
        return None
    try:
        name.encode()
    except UnicodeEncodeError:
        by_byte = re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", name)
        shown = by_byte.encode(errors="backslashreplace").decode()
        return f"'{shown}' is not UTF-8 (\\x marks the bytes that are not): rename the file or folder"
    return None


def utf8_text(text: str) -> str:
    r"""Return a text that UTF-8 can hold. A question mark replaces each lone surrogate, which JSON can hold.

    Example:
        >>> from rasterembed.errors import utf8_text
        >>> utf8_text("scene \ud800")
        'scene ?'
    """
    return text if text.isascii() else text.encode(errors="replace").decode()


class Access(Enum):
    """What a block does with a path. The value says what this user has no permission to do, and the remedy.

    `{folder}` stands for the folder that must be changed: the path itself if it is a folder, else the first folder
    above it that exists.
    """

    READ = "read it: let this user read the file, and enter the folders above it"
    LIST = "list the folder: let this user read and enter it"
    WRITE = "write in {folder}: let this user write in this folder, or choose another folder"
    DELETE = "delete it: let this user write in {folder}"


_NO_PERMISSION = (errno.EACCES, errno.EPERM)

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space and run again",
    errno.EDQUOT: "the quota is used up: free some space and run again",
    errno.EFBIG: "the file is larger than the system allows",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EISDIR: "it is a folder",
}


@contextmanager
def os_errors(path: str, access: Access = Access.READ) -> Iterator[None]:
    """Turn an OSError of the operating system into a StoreError that names `path`.

    An OSError without an error number comes from a library, not from the operating system. Such an error is raised
    unchanged.

    Args:
        path: the file or folder that the block reads or writes.
        access: what the block does with it.

    Raises:
        ObjectMissingError: if the file does not exist.
        StoreError: if the operating system refused for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        kind = ObjectMissingError if error.errno == errno.ENOENT else StoreError
        if error.errno in _NO_PERMISSION:
            refused = access.value.replace("{folder}", _existing_folder(path))
            raise kind(f"{path}: no permission to {refused}") from error
        raise kind(f"{path}: {_HINTS.get(error.errno) or error.strerror}") from error


def _existing_folder(path: str) -> str:
    """Return the path itself if it is a folder, else the first folder above it that exists."""
    folder = path
    while folder and not os.path.isdir(folder):
        parent = os.path.dirname(folder)
        folder = "" if parent == folder else parent
    return folder or "."
