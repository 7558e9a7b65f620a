"""Run a module in a process that ends when its parent process ends, even if somebody kills the parent by SIGKILL.

python -P flows/ends_with_parent.py MODULE [ARGUMENT ...]

The parent gives this process a pipe as standard input, and writes nothing into the pipe. The operating system closes
the parent's end of the pipe when the parent ends.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

_GRACE_S = 5.0
"""Seconds that the module gets to end after SIGTERM."""


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass  # Standard input has no data until the parent's end of the pipe is closed.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)


def main() -> None:
    """Run the module that is named in the arguments of this process."""
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
