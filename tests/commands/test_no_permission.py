"""A folder that may not be listed is an error. It is never an empty folder, whose files somebody has deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from rasterembed.collection.collection import Collection
from rasterembed.collection_pipeline import embed_collection
from rasterembed.raster.source import default_dataset_id
from rasterembed.store.object_store import ObjectStore
from tests.conftest import PROJECT
from tests.support.pictures import plain_pictures
from tests.support.runs import files
from tests.support.scenes import collection_options, write_scene

OVERRIDES = "-dac_override,-dac_read_search"
AS_A_USER = ["setpriv", "--bounding-set", OVERRIDES, "--inh-caps", OVERRIDES, "--"] if os.getuid() == 0 else []
"""Without these two rights, root obeys the permissions of files as every user does."""

PROGRAM = """
import json, sys
from rasterembed.command_line.run import run
from rasterembed.commands.main import app
for words in json.loads(sys.argv[1]):
    try:
        print(run(app, words))
    except SystemExit as end:
        print("status", end.code)
    print("end", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_vit: Path) -> Path:
    """A folder with two scenes in two subfolders, and the store with their collection."""
    for name in "ab":
        write_scene(tmp_path / "scenes" / name / f"{name}.tif")
    options = collection_options(tiny_vit, quality_checks=True)
    with plain_pictures():
        embed_collection(ObjectStore(root=str(tmp_path / "store")), "survey", str(tmp_path / "scenes"), options)
    return tmp_path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(mode)


def outcomes(folder: Path, *commands: str) -> list[tuple[str, str]]:
    """Run commands as a user without special rights. Return what each of them printed, and the errors of all."""
    words = json.dumps([command.split() for command in commands])
    done = subprocess.run(
        [*AS_A_USER, sys.executable, "-c", PROGRAM, words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert "Traceback" not in done.stderr, done.stderr
    printed = done.stdout.split("end\n")[:-1]
    assert len(printed) == len(commands), done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return [(text.strip(), errors.pop(0) if text.startswith("status") else "") for text in printed]


def stored(folder: Path) -> dict[str, object]:
    """Return the files of the store without the leases, which each run writes."""
    return {name: content for name, content in files(folder / "store").items() if "/lease/" not in name}


def refused(folder: Path, path: Path, commands: Sequence[str]) -> None:
    """Check that each command ends with an error that names the path, and that the store stays as it is."""
    before = stored(folder)
    with locked(path):
        found = outcomes(folder, *commands)
    assert [text for text, _ in found] == ["status 1"] * len(commands)
    for _, error in found:
        assert f"{path}: no permission" in error
    assert stored(folder) == before


def test_scenes_that_cannot_be_listed_are_not_gone(folder: Path) -> None:
    embed = "collection embed scenes --collection survey --root store"
    refused(folder, folder / "scenes/b", [f"{embed} --prune", embed, embed.replace("scenes ", "scenes/**/*.tif ")])
    refused(folder, folder / "scenes", [embed])


def test_datasets_that_cannot_be_listed_are_not_missing(folder: Path) -> None:
    commands = [
        "collection rebuild survey --root store", "collection verify survey --root store",
        "collection delete survey --yes --root store", "datasets list --root store",
    ]  # fmt: skip
    refused(folder, folder / "store/datasets", commands)
    dataset = Collection.open(ObjectStore(root=str(folder / "store")), "survey").catalogue.table["id"][1].as_py()
    refused(folder, folder / "store/datasets" / dataset, commands)
    refused(folder, folder / "store/collections", ["collection list --root store"])
    with locked(folder / "store/datasets"):
        ((_, error),) = outcomes(folder, "embed scenes/a/a.tif --root store")
    assert default_dataset_id(f"{folder}/scenes/a/a.tif") in error


def test_a_file_that_may_not_be_read_or_written_is_named_with_what_was_tried(folder: Path) -> None:
    dataset = Collection.open(ObjectStore(root=str(folder / "store")), "survey").catalogue.table["id"][0].as_py()
    search = f"search {dataset} --root store --tile r000000_c000000"
    (shard,) = (folder / "store/embeddings" / dataset).glob("*.parquet")
    with locked(shard):
        ((_, error),) = outcomes(folder, search)
    assert f"{shard}: no permission to read it: let this user read the file" in error
    with locked(folder / "scenes"):
        neighbours = f"neighbours {dataset} --root store --out scenes/neighbours.parquet"
        found = outcomes(folder, neighbours, "collection embed scenes --collection b")
    (_, writing), (_, listing) = found
    with locked(folder / "scenes/a/a.tif"):
        ((_, reading),) = outcomes(folder, "explore --root store --token-file scenes/a/a.tif")
    assert "scenes/a/a.tif: no permission to read it: let this user read the file" in reading
    assert "scenes/neighbours.parquet: no permission to write in scenes: let this user write in this folder" in writing
    assert f"{folder}/scenes: no permission to list the folder: let this user read and enter it" in listing


def test_one_unreadable_manifest_hides_no_other_dataset(folder: Path) -> None:
    first, second = Collection.open(ObjectStore(root=str(folder / "store")), "survey").catalogue.table["id"].to_pylist()
    with locked(folder / "store/datasets" / second / "manifest.json"):
        ((listed, _),) = outcomes(folder, "datasets list --root store")
    states = {line.split()[0]: line.split()[1] for line in listed.splitlines() if line.startswith((first, second))}
    assert states[first] == "ready"
    assert "unreadable" in listed
    assert "no permission" in listed
