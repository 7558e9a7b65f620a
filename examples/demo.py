"""Embed, check and search a generated scene and its second date with the command `rasterembed`: `make demo`.

Both dates become one collection on an anchored grid, so the same ground has the same tile ids in both.

The demo needs no server. It stores the demo model in the folder XDG_CACHE_HOME, by default ~/.cache. This folder must
be writable.

python -m examples.demo [FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from shlex import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rasterio

from examples.landscape import make_scene, make_second_date
from rasterembed.collection.collection import Collection
from rasterembed.collection.members import member_id
from rasterembed.command_line.run import run
from rasterembed.command_line.this_program import this_program
from rasterembed.commands.main import app
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import RasterEmbedError
from rasterembed.escape import escape_terminal
from rasterembed.raster.grid import Grid, anchored_id
from rasterembed.store.object_store import ObjectStore

COLLECTION = "demo"

GRID = Grid(anchor="crs")

_EQUAL = 1e-5
"""Two vectors agree if they differ by at most this share of their length. See docs/models.md."""


def main(folder: Path) -> None:
    """Generate two scenes in `folder`, embed and search them, and print the paths of the results."""
    first, second = folder / "scene.tif", folder / "scene-2025.tif"
    listing, store, sheet = folder / "scenes.txt", folder / "store", folder / "search.png"
    if not first.exists():
        print(f"generating a landscape in {first}")
        make_scene(folder)
    if not second.exists():
        make_second_date(first, second)
    listing.write_text(f"{first.resolve()}\n{second.resolve()}\n")
    collection = run(
        app,
        ["collection", "embed", str(listing), "--collection", COLLECTION, "--root", str(store), "--anchor", "crs"],
    )
    # A tile that both dates show. Its example is that of the second date.
    tile = f"{member_id(COLLECTION, str(second.resolve()))}/{shared_tile(second)}"
    question = ["--tile", tile, "-k", "8", "--sheet", str(sheet)]
    answer = run(app, ["search", "--collection", COLLECTION, "--root", str(store), *question])
    print(f"\n{answer}\n\n{collection}")
    print(compare_dates(Collection.open(ObjectStore(root=str(store)), COLLECTION)))
    print(f"catalogue: {store}/collections/{COLLECTION}/items.parquet")
    print(f"table: {store}/collections/{COLLECTION}/table/*.parquet")
    print(f"shards: {store}/embeddings/*/*.parquet")
    print(f"quality report: {store}/collections/{COLLECTION}/qa/report.md")
    print(f"contact sheet: {sheet}")
    print(f"truth: {folder}/scene-classes.tif")
    print(f"look at it: {this_program()} explore --root {quote(str(store))}")


def shared_tile(raster: Path) -> str:
    """Return the id of the tile that lies about one tile from the raster's upper left corner."""
    with rasterio.open(raster) as file:
        x, y = file.transform @ (1.25 * GRID.size, 1.25 * GRID.size)
        return anchored_id(int(x / file.transform.a // GRID.step), int(y / file.transform.a // GRID.step))


def compare_dates(collection: Collection) -> str:
    """Return a sentence about the tiles that two scenes have in common."""
    one, other = (_whole_tiles(dataset) for dataset in collection.datasets())
    shared = sorted(one.keys() & other.keys())
    differences = [np.linalg.norm(one[name] - other[name]) / np.linalg.norm(one[name]) for name in shared]
    equal = sum(difference <= _EQUAL for difference in differences)
    return (
        f"both dates: {len(shared)} whole tiles have the same id; {equal} of them have the same vector, and "
        f"{len(shared) - equal} show changed ground"
    )


def _whole_tiles(dataset: Dataset) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Return the vectors of the tiles that lie wholly in the scene, by tile id."""
    table = pa.Table.from_batches(dataset.batches(["tile_id", "valid_fraction", "embedding"]))
    rows = table.filter(pc.equal(table["valid_fraction"], 1.0)).to_pylist()
    return {row["tile_id"]: np.array(row["embedding"], np.float64) for row in rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Embed, check and search a generated scene and its second date with the command `rasterembed`.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("demo"),
        help="folder of the scenes and the results (default: demo)",
    )
    try:
        main(parser.parse_args().folder)
    except RasterEmbedError as error:
        sys.exit(f"error: {escape_terminal(str(error))}")
