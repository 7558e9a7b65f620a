"""Embed, check and search a generated scene with the command `rasterembed`: `make demo`.

The demo needs no server. It stores the demo model in the folder XDG_CACHE_HOME, by default ~/.cache. This folder must
be writable.

python -m examples.demo [FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.landscape import make_scene
from rasterembed.commands.main import app
from rasterembed.commands.run import run

DATASET = "demo-scene"

TILE = "r000008_c000008"
"""Id of a tile that shows fields, forest and a lake shore."""


def main(folder: Path) -> None:
    """Generate a scene in `folder`, embed and search it with the demo model, and print the paths of the results."""
    raster, store, sheet = folder / "scene.tif", folder / "store", folder / "search.png"
    if not raster.exists():
        print(f"generating a landscape in {raster}")
        make_scene(folder)
    dataset = run(app, ["embed", str(raster), "--root", str(store), "--dataset-id", DATASET])
    question = ["--tile", TILE, "-k", "8", "--sheet", str(sheet)]
    answer = run(app, ["search", DATASET, "--root", str(store), *question])
    print(f"\n{answer}\n\n{dataset}")
    print(f"shards: {store}/embeddings/{DATASET}/*.parquet")
    print(f"tile index: {store}/tiles/{DATASET}/index.parquet")
    print(f"quality report: {store}/qa/{DATASET}/report.md")
    print(f"contact sheet: {sheet}")
    print(f"truth: {folder}/scene-classes.tif")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Embed, check and search a generated scene with the command `rasterembed`.",
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("demo"), help="folder of the scene and the results (default: demo)"
    )
    main(parser.parse_args().folder)
