"""Import Prefect in half the time, for the flows' commands."""

from __future__ import annotations

import gc


def import_prefect() -> None:
    """Import all of Prefect while the garbage collector is off, and exempt it from later collections.

    The many objects that this import makes live as long as the process. Looking through them for garbage, repeatedly
    during the import and once more at the end, takes a third of the time that a flow's `--help` takes. This changes the
    collector of the whole process, so only a command's entry point may call it.
    """
    enabled = gc.isenabled()
    gc.disable()
    import prefect.main  # noqa: F401  The package `prefect` alone would import its parts later, one by one.

    gc.freeze()
    if enabled:
        gc.enable()
