"""Search on the generated scene, whose classes are known, finds tiles of the query's class."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.precision import compare, markdown
from examples.landscape import make_scene
from rasterembed.dataset.embedding import Execution
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("precision")
    scene = make_scene(folder, width=1024, height=1024)
    store = ObjectStore(root=str(folder / "store"))
    embed_raster(
        store,
        str(scene.raster),
        EmbedOptions(
            dataset_id="scene", grid=Grid(size=64), model=Dinov3(device="cpu"), execution=Execution(shard_threads=1)
        ),
    )
    return compare(scene, store)


def test_neighbours_are_of_the_same_class_far_more_often_than_by_chance(found: dict[str, Any]) -> None:
    assert set(found["classes"]) == {"water", "forest", "field", "town", "bare"}
    assert found["all"]["tiles"] == sum(line["tiles"] for line in found["classes"].values())
    for line in (*found["classes"].values(), found["all"]):
        assert line["search"] > 2 * line["chance"]
        assert line["colour"] > 2 * line["chance"]
    assert found["all"]["search"] > 0.6


def test_the_three_stand_side_by_side(found: dict[str, Any]) -> None:
    report = found | {"model": "demo (untrained)", "parameters": {"side": 1024, "size": 64}}
    lines = markdown(report).splitlines()
    assert lines[2] == "| class | tiles | search, demo (untrained) | mean colour | chance |"
    everything = found["all"]
    assert lines[-1] == (
        f"| all | {everything['tiles']} | {everything['search']:.2f} | {everything['colour']:.2f} "
        f"| {everything['chance']:.2f} |"
    )
