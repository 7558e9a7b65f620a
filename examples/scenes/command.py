"""The command line that all examples of scenes have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from rasterembed import EmbedResult
from rasterembed.number_text import counted


def run(documentation: str | None, embed: Callable[[Path], Mapping[str, EmbedResult]]) -> None:
    """Read the folder from the command line, run an example, and print a line for each dataset.

    Args:
        documentation: text for `--help`.
        embed: function that writes and embeds the scenes in a folder.
    """
    parser = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=True
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("scenes"), help="folder of scenes and results (default: scenes)"
    )
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in embed(folder).items():
        radiometry, manifest = result.plan.radiometry, result.manifest
        print(
            f"{name}: {manifest.state}, {counted(manifest.rows, 'tile')}, {manifest.skipped} skipped, "
            f"bands {radiometry.bands}, black {radiometry.low}, white {radiometry.high}, "
            f"acquired {result.plan.profile.acquired}"
        )
