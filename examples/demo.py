"""Embed a generated scene with the main flow, and search in the result: `make demo`.

python -m examples.demo [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from examples.landscape import make_scene
from flows.command import run
from flows.raster_embeddings import raster_embeddings
from flows.search_embeddings import search_embeddings

DATASET = "demo-scene"

TILE = "r000008_c000008"
"""Id of a tile that shows fields, forest and a lake shore."""


def main(folder: Path) -> None:
    """Generate a scene in `folder`, embed it with the demo model, search it, and print where the results are."""
    raster, store, sheet = folder / "scene.tif", folder / "store", folder / "search.png"
    if not raster.exists():
        print(f"generating a landscape in {raster}")
        make_scene(folder)
    summary = run(raster_embeddings, [str(raster), "--root", str(store), "--dataset-id", DATASET])
    answer = run(search_embeddings, [DATASET, "--root", str(store), "--tile", TILE, "-k", "8", "--sheet", str(sheet)])
    print(f"\n{answer}\n")
    for name, value in summary.model_dump(mode="json").items():
        print(f"{name.replace('_', ' '):>18}: {value}")
    print(f"{'shards':>18}: {store}/embeddings/{DATASET}/*.parquet")
    print(f"{'tile index':>18}: {store}/tiles/{DATASET}/index.parquet")
    print(f"{'quality report':>18}: {store}/qa/{DATASET}/report.md")
    print(f"{'contact sheet':>18}: {sheet}")
    print(f"{'truth':>18}: {folder}/scene-classes.tif")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
