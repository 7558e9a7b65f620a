"""The command that goes on with an unfinished dataset plans the same shards as the run that began it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.dataset.continuing import continue_command
from rasterembed.dataset.plan import Plan
from rasterembed.pipeline import EmbedResult
from rasterembed.store.object_store import ObjectStore
from tests.support.scenes import write_bands, write_scene


class _PlannedError(Exception):
    pass


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans of the commands that were run. Each command ends before it computes anything."""
    plans: list[Plan] = []

    def stop(store: ObjectStore, plan: Plan, *_: object) -> EmbedResult:
        plans.append(plan)
        raise _PlannedError

    monkeypatch.setattr("rasterembed.pipeline._bring_to_end", stop)
    return plans


def _plan(planned: list[Plan], *words: str) -> Plan:
    with pytest.raises(_PlannedError):
        run(app, words)
    return planned[-1]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--size", "32", "--stride", "16", "--edge", "shift"],
        ["--anchor", "crs", "--resolution", "12.5", "--crs", "EPSG:32635", "--origin", "-5", "0.25"],
        ["--bands", "3,2,1", "--range", "-5", "300.5"],
        ["--bands", "2", "--percentile", "1", "99.5"],
        ["--scale", "sentinel2-l2a", "--nodata", "-0", "--min-valid-fraction", "0.125"],
        ["--nodata", "7", "--mask", "mask-red.tif"],
        ["--pooling", "cls+mean", "--input-size", "64", "--mean", "0.5,0.25,0.125", "--std", "0.1,0.2,0.3"],
        ["--dtype", "bfloat16", "--vector-dtype", "int8", "--shard-tiles", "3", "--on-bad-window", "skip"],
        ["--allow-no-crs", "--model", "model"],
    ],
    ids=" ".join,
)
def test_the_command_gives_the_same_plan_from_any_folder(
    words: list[str], tmp_path: Path, tiny_vit: Path, planned: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene(tmp_path / "it's here.tif")
    write_bands(write_scene(tmp_path / "mask.tif"))
    (tmp_path / "model").symlink_to(tiny_vit)
    monkeypatch.chdir(tmp_path)
    begun = _plan(planned, "embed", "it's here.tif", "--root", "a store", "--dataset-id", "scene", *words)
    store = ObjectStore(root="a store")
    stored = Plan.model_validate_json(begun.model_dump_json())
    assert stored.fingerprint == begun.fingerprint
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = _plan(planned, *shlex.split(continue_command(store, stored))[1:])
    assert (again.dataset_id, again.fingerprint) == ("scene", begun.fingerprint)


def test_the_files_of_a_scene_are_in_the_command(
    tmp_path: Path, planned: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_bands(write_scene(tmp_path / "a.tif"))
    monkeypatch.chdir(tmp_path)
    raster = ",".join(f"{colour}={file.name}" for colour, file in files.items())
    begun = _plan(planned, "embed", raster, "--root", "store", "--dataset-id", "scene")
    again = _plan(planned, *shlex.split(continue_command(ObjectStore(root="store"), begun))[1:])
    assert again.fingerprint == begun.fingerprint


def test_a_plan_of_an_earlier_version_has_no_settings_of_a_person(
    tmp_path: Path, planned: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene(tmp_path / "a.tif")
    monkeypatch.chdir(tmp_path)
    begun = _plan(planned, "embed", "a.tif", "--root", "store", "--dataset-id", "scene", "--size", "32")
    older = begun.model_copy(update={"requested": None})
    assert "requested" not in older.model_dump(mode="json")
    command = continue_command(ObjectStore(root="store"), older)
    assert command == f"rasterembed embed {tmp_path}/a.tif --dataset-id scene --root {tmp_path}/store"
