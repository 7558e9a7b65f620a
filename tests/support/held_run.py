"""Run a command that waits in the middle of its work until a signal stops it.

    python -m tests.support.held_run BATCHES MODULE ARGUMENT...

The first BATCHES batches of vectors are written as usual. Every later batch waits. A test can then send a signal to a
run that is under way for certain, also on a machine where the test gets its turn late.
"""

from __future__ import annotations

import runpy
import sys
import time
from itertools import count

from rasterembed.dataset.embedding import Progress
from rasterembed.dataset.shards import ShardWriter
from tests.support.runs import after, before


def main() -> None:
    """Run a module as a program."""
    batches, module, *arguments = sys.argv[1:]
    numbers, made = count(1), list[Progress]()

    def hold(*_: object) -> None:
        if next(numbers) > int(batches):
            while not any(progress.stop.is_set() for progress in made):
                time.sleep(0.01)

    after(Progress, "__init__", lambda progress, *_: made.append(progress))
    before(ShardWriter, "append", hold)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
