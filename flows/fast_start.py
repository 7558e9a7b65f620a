"""Import Prefect in half the time, for the flows' commands."""

from __future__ import annotations

import gc

from rasterembed.command_line.quick_stop import stop_at_once


def import_prefect() -> None:
    """Import all of Prefect while the garbage collector is off, and exempt it from later collections.

    Ctrl-C and SIGTERM then end the process with one line, until the flow begins.

    The import creates many objects, which live as long as the process. The garbage collector would search these objects
    several times during the import, and again when the process ends. These searches take a third of the time of a
    flow's `--help`. This function changes the garbage collector of the whole process, so only the entry point of a
    command may call it.
    """
    stop_at_once()
    enabled = gc.isenabled()
    gc.disable()
    import prefect.main  # noqa: F401  `import prefect` alone imports only a part of Prefect.

    gc.freeze()
    if enabled:
        gc.enable()
