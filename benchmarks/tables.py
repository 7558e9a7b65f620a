"""Update the tables and the picture in the documentation with the result files: python -m benchmarks.tables.

The table of a result is between two comments, `<!-- benchmarks/results/NAME.json -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    cold_start,
    collection_search,
    encodings,
    end_to_end,
    engines,
    explorer,
    explorer_clients,
    gpu_pipeline,
    growth,
    map_tiles,
    memory,
    neighbours,
    precision,
    prefect_overhead,
    reading,
    remote,
    report,
    scenes,
    search,
    search_peers,
    search_s3,
    slow_store,
    small_vectors,
    tile_layers,
    uploads,
    warping,
)
from benchmarks.harness import RESULTS

DOCS = Path(__file__).parents[1] / "docs"

TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    engines.NAME: ("models.md", engines.markdown),
    cold_start.NAME: ("benchmarks.md", cold_start.markdown),
    collection_search.NAME: ("collections.md", collection_search.markdown),
    encodings.NAME: ("encoding.md", encodings.markdown),
    end_to_end.NAME: ("benchmarks.md", end_to_end.markdown),
    explorer.NAME: ("explorer.md", explorer.markdown),
    explorer_clients.NAME: ("explorer.md", explorer_clients.markdown),
    gpu_pipeline.NAME: ("models.md", gpu_pipeline.markdown),
    growth.NAME: ("benchmarks.md", growth.markdown),
    map_tiles.NAME: ("explorer.md", map_tiles.markdown),
    memory.NAME: ("benchmarks.md", memory.markdown),
    neighbours.NAME: ("neighbours.md", neighbours.markdown),
    prefect_overhead.NAME: ("benchmarks.md", prefect_overhead.markdown),
    reading.NAME: ("benchmarks.md", reading.markdown),
    remote.NAME: ("benchmarks.md", remote.markdown),
    scenes.NAME: ("scenes.md", scenes.markdown),
    slow_store.NAME: ("benchmarks.md", slow_store.markdown),
    report.NAME: ("benchmarks.md", report.markdown),
    search.NAME: ("search.md", search.markdown),
    search_peers.NAME: ("decisions/0020-faiss.md", search_peers.markdown),
    small_vectors.NAME: ("encoding.md", small_vectors.markdown),
    search_s3.NAME: ("search.md", search_s3.markdown),
    tile_layers.NAME: ("explorer.md", tile_layers.markdown),
    uploads.NAME: ("scaling.md", uploads.markdown),
    warping.NAME: ("benchmarks.md", warping.markdown),
    precision.NAME: ("search.md", precision.markdown),
}
"""For each result: the document with the result's table, and the function that makes the table."""


def with_table(document: str, name: str, table: str) -> str:
    """Return a document with the table of one result replaced.

    Args:
        document: text of the document.
        name: name of the result.
        table: the new table.

    Raises:
        ValueError: if the document has no place for the table.
    """
    opening, closing = f"<!-- benchmarks/results/{name}.json -->\n", "<!-- end -->"
    before, found, rest = document.partition(opening)
    _, ended, after = rest.partition(closing)
    if not found or not ended:
        raise ValueError(f"the document has no place for {name}: add {opening.strip()} and {closing}")
    return f"{before}{opening}\n{table.strip()}\n\n{closing}{after}"


def up_to_date(name: str) -> tuple[Path, str]:
    """Return the path of the document with a result's table, and the document's text with the new table."""
    file, markdown = TABLES[name]
    report = json.loads((RESULTS / f"{name}.json").read_text())
    return DOCS / file, with_table((DOCS / file).read_text(), name, markdown(report))


if __name__ == "__main__":
    for name in TABLES:
        if not (RESULTS / f"{name}.json").exists():
            print(f"no result yet: python -m benchmarks.{name}")
            continue
        path, text = up_to_date(name)
        path.write_text(text)
    if (RESULTS / f"{report.NAME}.json").exists():
        report.draw(json.loads((RESULTS / f"{report.NAME}.json").read_text()), DOCS / "images" / "benchmark.png")
