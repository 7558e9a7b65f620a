"""The console command `rasterembed`."""

from __future__ import annotations

import atexit
import gc
import sys
from importlib.metadata import version
from typing import NoReturn

from rasterembed.command_line.command_app import OptionsApp
from rasterembed.command_line.outputs import print_result
from rasterembed.command_line.quick_stop import stop_at_once
from rasterembed.command_line.run import run
from rasterembed.command_line.this_program import PROGRAM
from rasterembed.escape import escape_lines

_COMMANDS = {
    "embed": "Embed a raster: it becomes a dataset that can be searched.",
    "search": "Find the tiles that are most similar to an example.",
    "neighbours": "Find the nearest tiles of every tile.",
    "deduplicate": "Find groups of tiles that are almost equal, and keep one tile of each.",
    "cluster": "Divide the tiles into classes.",
    "diversify": "Choose tiles that differ as much as possible, for example to label them.",
    "qa": "Check a dataset's vectors, write the report, and set its state.",
    "datasets": "List, show, verify and delete the datasets of a store.",
    "collection": "Embed many scenes as a collection; list, show, verify and rebuild collections.",
    "explore": "Open a web page: a map of the datasets and collections, and search by clicking.",
    "qa-overview": "Write a page about the quality of all datasets of a store.",
}
"""Commands and their summaries. The module of a command is imported only when the command is used."""

app = OptionsApp(
    name=PROGRAM,
    help="Embed rasters with DINOv3, search the embeddings and check them, without a Prefect server.",
    version=lambda: version("raster-embeddings"),
)
for _name, _summary in _COMMANDS.items():
    app.command(f"rasterembed.commands.{_name.replace('-', '_')}:app", name=_name, help=_summary)


def main() -> NoReturn:
    """Run the command that is named in the arguments of this process, print the command's result, and exit."""
    stop_at_once()  # The module of the command is imported before the command can be stopped.
    # At its end, Python looks for garbage among all objects of the imported libraries. This takes 0.6 s after an
    # embedding. Frozen objects are left out.
    atexit.register(gc.freeze)
    result = run(app, sys.argv[1:])
    print_result(None if result is None else escape_lines(result))
