"""Commands in the errors of the library."""

from __future__ import annotations

from shlex import quote

from rasterembed.store.object_store import ObjectStore


def store_command(store: ObjectStore, command: str) -> str:
    """Return a command for an error, in backticks. It has the root, so that a person can paste it anywhere.

    Args:
        store: the store that the error is about.
        command: name and arguments of a command of `rasterembed` that has the option `--root`.

    Example:
        >>> store_command(ObjectStore(root="/tmp/my store"), "datasets show scene")
        "`rasterembed datasets show scene --root '/tmp/my store'`"
    """
    return f"`rasterembed {command} --root {quote(store.root)}`"
