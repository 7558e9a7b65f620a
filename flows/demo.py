"""The main job on a generated scene: `make demo`.

python -m flows.demo [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from flows.command import run
from flows.raster_embeddings import raster_embeddings
from rasterembed.scene import make_scene

DATASET = "demo-scene"


def main(folder: Path) -> None:
    """Write a scene below `folder`, embed it with the demo model, and say where everything is."""
    raster, store = folder / "scene.tif", folder / "store"
    if not raster.exists():
        print(f"generating a landscape in {raster}")
        make_scene(folder)
    summary = run(raster_embeddings, [str(raster), "--root", str(store), "--dataset-id", DATASET])
    print()
    for name, value in summary.model_dump(mode="json").items():
        print(f"{name.replace('_', ' '):>18}: {value}")
    print(f"{'shards':>18}: {store}/embeddings/{DATASET}/*.parquet")
    print(f"{'index':>18}: {store}/tiles/{DATASET}/index.parquet")
    print(f"{'truth':>18}: {folder}/scene-classes.tif")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
