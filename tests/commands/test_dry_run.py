"""A dry run of the quality checks says whether the dataset would pass, and which state it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.dataset.manifest import State, read_manifest, set_state
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import embed, noise_raster


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> ObjectStore:
    """Return a store with the dataset `scene`."""
    folder = tmp_path_factory.mktemp("dry-run")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(tiny_vit), device="cpu")
    embed(store, str(noise_raster(folder / "scene.tif")), dataset_id="scene", grid=Grid(size=32), model=model)
    return store


@pytest.mark.parametrize("state", ["ready", "failed_qa", "embedded"])
@pytest.mark.parametrize(("bound", "verdict"), [("1", "would pass"), ("-0.9", "would not pass")])
def test_the_line_has_the_verdict_and_the_stored_state(
    state: State, bound: str, verdict: str, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(store, "scene")
    assert manifest is not None
    set_state(store, manifest, state)
    others = ("--min-effective-rank", "1", "--min-neighbour-pairs", "1000", "--max-dead-dimension-share", "1")
    words = ["qa", "scene", "--root", store.root, "--dry-run", "--max-mean-cosine", bound, *others]
    if verdict == "would pass":
        print(run(app, words))
    else:
        with pytest.raises(SystemExit) as end:
            run(app, words)
        assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    expected = f"dry run: dataset 'scene' {verdict} with these thresholds; nothing was changed, so its state is still "
    assert f"{expected}{state}" in lines
    assert [line for line in lines if state in line] == [f"{expected}{state}"]
    after = read_manifest(store, "scene")
    assert after is not None
    assert after.state == state
