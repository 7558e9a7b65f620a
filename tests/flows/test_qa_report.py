"""The flow that checks a dataset: it sets the state, prints the metrics and shows the report on a Prefect server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from examples.landscape import make_scene
from flows.command import run
from flows.qa_report import qa_report
from rasterembed.dataset.manifest import Manifest, read_manifest, set_state
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import embed
from tests.support.http import request
from tests.support.prefect_server import PrefectServer

ID = "scene"


@pytest.fixture
def store(tmp_path: Path, tiny_vit: Path, prefect_api: PrefectServer) -> ObjectStore:
    """Return a store with one dataset: 256 tiles of 64 px in four shards."""
    store = ObjectStore(root=str(tmp_path / "store"))
    raster = make_scene(tmp_path, width=1024, height=1024).raster
    model, selection = Dinov3(model=str(tiny_vit), device="cpu"), Selection(shard_tiles=64)
    embed(store, str(raster), dataset_id=ID, grid=Grid(size=64), model=model, selection=selection)
    return store


def _manifest(store: ObjectStore) -> Manifest:
    manifest = read_manifest(store, ID)
    assert manifest is not None
    return manifest


def _newest_artifact(server: PrefectServer) -> dict[str, Any]:
    answer = request("POST", f"{server.api_url}/artifacts/filter", json={"artifacts": {"key": {"any_": [f"qa-{ID}"]}}})
    return max(answer.raise_for_status().json(), key=lambda each: each["created"])


def test_the_flow_makes_a_good_dataset_ready_and_shows_the_report(
    store: ObjectStore, prefect_api: PrefectServer, capsys: pytest.CaptureFixture[str]
) -> None:
    set_state(store, _manifest(store), "embedded")
    tried = run(qa_report, ["--root", store.root, "--dataset", ID, "--dry-run"])
    assert (tried.model_dump()["state"], _manifest(store).state) == (None, "embedded")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("dry run: ")]
    assert line.endswith("would pass with these thresholds; nothing was changed, so its state is still embedded")
    verdict = run(qa_report, ["--root", store.root, "--dataset", ID])
    assert verdict.model_dump() == {
        "dataset_id": ID,
        "state": "ready",
        "metrics": "23 passed",
        "report": f"{store.root}/qa/{ID}/report.md",
        "search": f"rasterembed search {ID} --root {store.root} --tile r000000_c000000",
    }
    assert _manifest(store).state == "ready"
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table if line.endswith("passed")][:2] == ["shards_missing", "shards_mismatched"]

    artifact = _newest_artifact(prefect_api)
    assert artifact["type"] == "markdown"
    assert len(artifact["data"]) < 500_000
    assert artifact["description"] == "Quality of dataset scene: 23 passed"
    assert len(re.findall(r"\(data:image/webp;base64,[A-Za-z0-9+/=]+\)", artifact["data"])) == 3


@pytest.mark.usefixtures("plain_pictures")
def test_a_breach_fails_the_flow_after_the_report_is_written(
    store: ObjectStore, prefect_api: PrefectServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ObjectStore.read

    def read_too_late(self: ObjectStore, key: str, *most: int) -> bytes | None:
        """Read an object. A picture vanishes before it is read, as another run may delete it."""
        if key.endswith("norms.png"):
            self.delete(key)
        return read(self, key, *most)

    monkeypatch.setattr(ObjectStore, "read", read_too_late)
    gone = _manifest(store).shards[0]
    store.delete(gone.path)
    with pytest.raises(SystemExit) as end:
        run(qa_report, ["--root", store.root, "--dataset", ID, "--min-coverage", "0.5"])
    assert end.value.code == 1
    output = capsys.readouterr()
    assert "tiles_missing" in output.out
    assert "BREACHED" in output.out
    (error,) = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert "tiles_missing is 64, more than --max-tiles-missing 0" in error
    assert "coverage" not in error
    assert _manifest(store).state == "failed_qa"
    written = json.loads(store.read(f"qa/{ID}/report.json") or b"")
    assert (written["passed"], written["thresholds"]["min_coverage"]) == (False, 0.5)
    page = _newest_artifact(prefect_api)["data"]
    assert page.count("(data:image/webp;base64,") == 2
    assert "Which tiles have a vector" in page
    assert "Norms and valid fractions" not in page

    with pytest.raises(SystemExit) as end:
        run(qa_report, ["--root", store.root, "--dataset", "unknown"])
    assert end.value.code == 2
    assert "error: there is no dataset 'unknown'" in capsys.readouterr().err
