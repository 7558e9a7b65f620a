"""The datasets of a store: listed, shown, read, verified and deleted, by the command and in Python."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest

from rasterembed.command_line.run import run
from rasterembed.command_line.this_program import as_typed
from rasterembed.commands.embed import _summary
from rasterembed.commands.main import app
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.listing import Unlisted
from rasterembed.dataset.manifest import read_manifest
from rasterembed.dataset.verify import DamageKind
from rasterembed.errors import DataError, LeaseHeldError, LeaseLostError, StoreError, UsageError
from rasterembed.pipeline import EmbedOptions, EmbedResult, embed_raster
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.search.examples import scaled
from rasterembed.search.query import Query, Where
from rasterembed.store import lease
from rasterembed.store.known_datasets import check_known
from rasterembed.store.layout import CollectionLayout, DatasetLayout
from rasterembed.store.lease import hold_lease
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.unknown_id import unknown_id
from rasterembed.store.uploads import dataset_dates
from tests.support.pictures import plain_pictures
from tests.support.runs import DATASET, choices, write_raster

LAYOUT = DatasetLayout(DATASET)


@pytest.fixture(scope="module")
def options(tiny_vit: Path) -> EmbedOptions:
    return EmbedOptions(**choices(tiny_vit))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, options: EmbedOptions) -> Path:
    """A folder with a raster, and the store of its ready dataset."""
    folder = tmp_path_factory.mktemp("embedded")
    with plain_pictures():
        embed_raster(ObjectStore(root=str(folder / "store")), str(write_raster(folder / "scene.tif")), options)
    return folder


@pytest.fixture
def store(embedded: Path, tmp_path: Path) -> ObjectStore:
    """A copy of the store that a test may change."""
    shutil.copytree(embedded / "store", tmp_path / "store")
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture
def dataset(store: ObjectStore) -> Dataset:
    return Dataset.open(store, DATASET)


def _command(store: ObjectStore, *words: str) -> str:
    return str(run(app, ["datasets", *words, "--root", store.root]))


def test_a_path_object_is_as_good_as_text(embedded: Path, options: EmbedOptions) -> None:
    store = ObjectStore.model_validate({"root": embedded / "store"})
    assert store == ObjectStore(root=str(embedded / "store"))
    assert embed_raster(store, embedded / "scene.tif", options).already_complete
    assert Query.model_validate({"image": Path("a.png")}) == Query(image="a.png")
    assert Where.model_validate({"within": Path("a.json")}) == Where(within="a.json")


def test_a_parameter_of_a_wrong_type_is_named(dataset: Dataset) -> None:
    wrong: Any = "results"
    calls = {
        "store is of type str: give an ObjectStore": lambda: embed_raster(wrong, "scene.tif"),
        "raster is of type int: give a path": lambda: embed_raster(dataset.store, cast(Any, 3)),
        "options is of type dict: give EmbedOptions": lambda: embed_raster(dataset.store, "a.tif", cast(Any, {})),
        "store is of type str: give an ObjectStore,": lambda: Dataset.open(wrong, DATASET),
        "dataset_id is of type int: give": lambda: Dataset.open(dataset.store, cast(Any, 3)),
        "query is of type str: give a Query": lambda: dataset.search(wrong),
        "where is of type dict: give a Where": lambda: dataset.search(Query(tile="r000000_c000000"), cast(Any, {})),
    }
    for text, call in calls.items():
        with pytest.raises(UsageError, match=text):
            call()


def test_the_list_has_every_dataset_with_its_state(
    store: ObjectStore, dataset: Dataset, embedded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write("datasets/started/plan-0123456789ab.json", b"{}")
    store.write("datasets/broken/manifest.json", b"[]")
    store.write("datasets/no dataset/manifest.json", b"{}")
    store.write("datasets/leased/lease/00000001.json", b"{}")
    broken, scene, started = store.datasets()
    assert (broken.id, broken.state, started.id, started.state) == (
        "broken",
        Unlisted.UNREADABLE,
        "started",
        Unlisted.UNFINISHED,
    )
    assert "this version cannot read the manifest" in broken.problem
    size = sum(Path(store.uri(shard.path)).stat().st_size for shard in dataset.shards)
    assert (scene.state, scene.tiles, scene.rows, scene.bytes) == ("ready", 35, dataset.manifest.rows, size)
    assert scene.raster == str(embedded / "scene.tif")

    lines = _command(store, "list").splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["dataset", "state"],
        ["broken", "unreadable"],
        ["scene", "ready"],
        ["started", "unfinished"],
    ]
    assert lines[4] == broken.problem
    assert lines[5].startswith("started is unfinished: its plan cannot be read, and no run writes it, ")
    listed = json.loads(_command(store, "list", "--json"))
    assert [(entry["id"], entry["bytes"]) for entry in listed] == [("broken", 0), ("scene", size), ("started", 0)]
    missing = f"{store.root}/empty"
    capsys.readouterr()
    with pytest.raises(SystemExit, match=r"^2$"):
        _command(ObjectStore(root=missing), "list")
    said = f"error: there is no folder {missing}: check the root, or embed a raster first\n"
    assert capsys.readouterr() == ("", said)
    Path(missing).mkdir()
    assert f"no dataset in {missing}: check the root" in _command(ObjectStore(root=missing), "list")


def test_the_list_shows_the_date_of_the_manifest_and_not_that_of_its_file(store: ObjectStore, dataset: Dataset) -> None:
    store.write("datasets/started/plan-0123456789ab.json", b"{}")
    for path in Path(store.root).rglob("*.json"):
        os.utime(path, (1e9, 1e9))  # 2001-09-09 01:46:40 UTC, as if the store had been copied.
    scene, started = store.datasets()
    assert (scene.created, started.created) == (dataset.manifest.created, None)
    heads, own, other, _ = _command(store, "list").splitlines()
    assert "created (UTC)" in heads
    assert f"  {dataset.manifest.created:%Y-%m-%d %H:%M}  " in own
    assert "  file of 2001-09-09 01:46  " in f"{other}  "


def test_an_unfinished_dataset_is_called_unfinished(
    store: ObjectStore, dataset: Dataset, embedded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.delete(LAYOUT.manifest)
    (listed,) = store.datasets()
    assert (listed.state, listed.tiles, listed.rows) == (Unlisted.UNFINISHED, 35, 0)
    assert listed.raster == str(embedded / "scene.tif")
    assert listed.model == dataset.manifest.model
    show = f"`{as_typed('rasterembed datasets show scene')} --root {store.root}`"
    for command in (["datasets", "verify"], ["qa"]):
        with pytest.raises(SystemExit) as ended:
            run(app, [*command, DATASET, "--root", store.root])
        assert ended.value.code == 2
        assert capsys.readouterr().err == (
            f"error: dataset 'scene' in {store.root} is unfinished: {show} says how many shards are written, and how "
            "to go on\n"
        )
    with pytest.raises(UsageError, match=f"`rasterembed datasets show scene --root {store.root}` says how many shards"):
        Dataset.open(store, DATASET)


def test_an_unfinished_dataset_is_listed_and_shown_with_the_command_that_completes_it(
    store: ObjectStore, dataset: Dataset, embedded: Path, options: EmbedOptions
) -> None:
    store.delete(LAYOUT.manifest)
    store.delete(dataset.shards[1].path)
    (listed,) = store.datasets()
    assert (listed.shards, listed.written_shards, listed.running) == (4, 3, False)
    _, row, line = _command(store, "list").splitlines()
    assert row.split()[:5] == [DATASET, "unfinished", "35", "-", "-"]
    assert line.startswith("scene is unfinished: 3 of 4 shards are written, and no run writes it, because its run ")
    facts = dict(line.split(": ", 1) for line in _command(store, "show", DATASET).splitlines())
    assert facts["state"].startswith("unfinished: 3 of 4 shards are written, and no run writes it, ")
    assert facts["raster"].startswith(f"{embedded / 'scene.tif'}, ")
    assert facts["shards"] == "4 planned, 3 written"
    assert facts["or delete"].endswith(f" datasets delete scene --root {store.root}")
    told = json.loads(_command(store, "show", DATASET, "--json"))
    assert (told["state"], told["shards"], told["written_shards"]) == ("unfinished", 4, 3)
    assert told["plan"]["dataset_id"] == DATASET

    with hold_lease(store, LAYOUT, "other run", wait_s=0, on_wait=print):
        assert store.datasets()[0].running
        assert "and a run writes it, or was killed in the last minute;" in _command(store, "list")

    kept = [Path(store.uri(shard.path)).stat().st_mtime_ns for shard in (dataset.shards[0], dataset.shards[2])]
    words = shlex.split(facts["continue"])
    run(app, words[words.index("embed") :])
    whole = Dataset.open(store, DATASET)
    assert whole.manifest.fingerprint == dataset.manifest.fingerprint
    assert kept == [Path(store.uri(shard.path)).stat().st_mtime_ns for shard in (whole.shards[0], whole.shards[2])]
    assert facts["continue"].endswith(listed.continue_with.removeprefix("rasterembed "))


@pytest.mark.parametrize(
    "wanted",
    ["survey--town", "survey--twon", "town.tif", "/rasters/town.tif", "Town.tif", "survey--town-aaaaaaaaaaaaaaaa"],
)
def test_the_id_of_a_scene_is_found_by_the_name_of_its_file(wanted: str, store: ObjectStore) -> None:
    scene = "survey--town-vo2xc7huyiaxvppb"
    for name in (scene, "survey--a-lake-mo2xc7huyiaxvppc", "other"):
        store.write(f"datasets/{name}/manifest.json", b"{}")
    error = unknown_id(store, "dataset", wanted, sorted(dataset_dates(store)), first="embed a raster")
    assert str(error).endswith(f"the store has {scene}, ...")


def test_an_unfinished_scene_of_a_collection_is_completed_by_its_collection(
    store: ObjectStore, dataset: Dataset
) -> None:
    scene = DatasetLayout("survey--a-vo2xc7huyiaxvppb")
    plan = json.loads(store.read(LAYOUT.plan(dataset.manifest.fingerprint)) or b"")
    store.write(scene.plan(dataset.manifest.fingerprint), json.dumps(plan | {"dataset_id": scene.dataset_id}).encode())
    store.write("collections/survey/collection.json", b"{}")
    facts = dict(line.split(": ", 1) for line in _command(store, "show", scene.dataset_id).splitlines())
    assert facts["state"].startswith("unfinished: 0 of 4 shards are written")
    assert facts["collection"] == "survey"
    assert facts["continue"].endswith(f" collection embed SCENES --collection survey --root {store.root}")
    assert "or delete" not in facts  # It is deleted with its scene.


def test_a_dataset_is_shown_as_text_and_as_its_manifest(store: ObjectStore, dataset: Dataset, embedded: Path) -> None:
    facts = dict(line.split(": ", 1) for line in _command(store, "show", DATASET).splitlines())
    assert facts["state"] == "ready"
    source = embedded / "scene.tif"
    seen = source.stat()
    changed = datetime.fromtimestamp(seen.st_mtime_ns // 10**9, UTC)
    assert facts["raster"] == f"{source}, {seen.st_size / 2**10:.1f} KiB, changed {changed:%Y-%m-%d %H:%M:%S} UTC"
    assert dataset.manifest.configuration["model"]["weights_sha256"][:12] in facts["weights"]
    assert "weights_sha256" not in facts["weights"]
    assert facts["tiles"] == f"35 planned, {dataset.manifest.rows} embedded, {dataset.manifest.skipped} skipped"
    reasons = Counter(dataset.tiles()["reason"].drop_null().to_pylist())
    assert len(reasons) > 0
    texts = ", ".join(f"{count} x {SkipReason(reason).describe(0.05)}" for reason, count in reasons.most_common())
    assert facts["skipped"] == f"{reasons.total()} ({texts})"
    result = _summary(store, EmbedResult(dataset.plan, dataset.manifest, None))
    assert f"skipped: {facts['skipped']}" in result.splitlines()
    assert " passed" in facts["quality checks"]
    assert facts["shard 3"].endswith(dataset.shards[3].path)
    assert json.loads(_command(store, "show", DATASET, "--json")) == json.loads(store.read(LAYOUT.manifest) or b"")


def _flip(store: ObjectStore, key: str) -> None:
    path = Path(store.uri(key))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def _make_folder(store: ObjectStore, key: str) -> None:
    store.delete(key)
    Path(store.uri(key)).mkdir()


def _make_pipe(store: ObjectStore, key: str) -> None:
    store.delete(key)
    os.mkfifo(store.uri(key))


def _make_huge(store: ObjectStore, key: str) -> None:
    with open(store.uri(key), "r+b") as file:
        file.truncate(3 * 2**30)


def _edit_manifest(store: ObjectStore, *path: str) -> None:
    content = owner = json.loads(store.read(LAYOUT.manifest) or b"")
    for name in path[:-1]:
        owner = owner[name]
    owner[path[-1]] = "other"
    store.write(LAYOUT.manifest, json.dumps(content).encode())


DAMAGES: dict[str, tuple[str, Callable[[ObjectStore, str], None], DamageKind]] = {
    "a flipped byte in a shard": ("shard", _flip, DamageKind.OTHER_CONTENT),
    "a lost shard": ("shard", ObjectStore.delete, DamageKind.MISSING),
    "a flipped byte in the tile index": ("index", _flip, DamageKind.OTHER_CONTENT),
    "half a shard": ("shard", lambda store, key: store.write(key, b"PAR1"), DamageKind.OTHER_SIZE),
    "a lost plan": ("plan", ObjectStore.delete, DamageKind.MISSING),
    "a plan of another shape": ("plan", lambda store, key: store.write(key, b"[]"), DamageKind.UNREADABLE),
    "a lost STAC Item": ("stac", ObjectStore.delete, DamageKind.MISSING),
    "another STAC Item": ("stac", lambda store, key: store.write(key, b"{}"), DamageKind.UNREADABLE),
}


@pytest.mark.parametrize(("which", "damage", "kind"), DAMAGES.values(), ids=DAMAGES)
def test_verify_names_the_damaged_file_and_its_advice_repairs_it(
    which: str,
    damage: Callable[[ObjectStore, str], None],
    kind: DamageKind,
    store: ObjectStore,
    dataset: Dataset,
    embedded: Path,
    options: EmbedOptions,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _command(store, "verify", DATASET) == "dataset 'scene': all 8 files are as the manifest says"
    key = {
        "shard": dataset.shards[0].path,
        "index": LAYOUT.tile_index,
        "plan": LAYOUT.plan(dataset.manifest.fingerprint),
        "stac": LAYOUT.stac_item,
    }[which]
    damage(store, key)

    with pytest.raises(SystemExit) as ended:
        _command(store, "verify", DATASET)
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"{store.uri(key)}: ")
    assert len(said.out.splitlines()) == 1
    assert said.err == "error: dataset 'scene': 1 of 8 files is missing or damaged\n"
    (found,) = dataset.verify()
    assert (found.key, found.kind) == (key, kind)

    if "delete this file" in found.remedy:
        store.delete(key)
    assert "embed the raster again with the same options" in found.remedy
    embed_raster(store, str(embedded / "scene.tif"), options)
    assert Dataset.open(store, DATASET).verify() == ()


def test_verify_reports_every_file_also_if_some_are_no_files(store: ObjectStore, dataset: Dataset) -> None:
    plan = LAYOUT.plan(dataset.manifest.fingerprint)
    _make_folder(store, dataset.shards[0].path)
    _make_pipe(store, dataset.shards[1].path)
    _flip(store, dataset.shards[2].path)
    _make_pipe(store, LAYOUT.tile_index)
    _make_folder(store, plan)
    _make_huge(store, LAYOUT.stac_item)
    found = dataset.verify()
    no_file = DamageKind.UNREADABLE, "it is not a file"
    assert [(damage.key, damage.kind, damage.found) for damage in found if "sha256" not in damage.found] == [
        (dataset.shards[0].path, *no_file),
        (dataset.shards[1].path, *no_file),
        (LAYOUT.tile_index, *no_file),
        (plan, *no_file),
        (LAYOUT.stac_item, DamageKind.UNREADABLE, "it has more than 32 MiB, too much for a STAC Item"),
    ]
    assert [damage.key for damage in found if "sha256" in damage.found] == [dataset.shards[2].path]


@pytest.mark.parametrize(
    "path", [("configuration", "source", "uri"), ("configuration", "model", "id"), ("model",), ("crs",)], ids=".".join
)
def test_verify_compares_the_manifest_with_the_plan(path: tuple[str, ...], store: ObjectStore) -> None:
    _edit_manifest(store, *path)
    (found,) = Dataset.open(store, DATASET).verify()
    assert (found.key, found.kind) == (LAYOUT.manifest, DamageKind.OTHER_CONTENT)
    assert found.found.startswith(f"{'.'.join(path)} is ")
    assert "other" in found.found.partition(", and the plan says ")[0]


@pytest.mark.parametrize(("length", "shown"), [(80, "x" * 80), (81, "x" * 79 + "…")])
def test_verify_shows_at_most_80_letters_of_a_value(length: int, shown: str, store: ObjectStore) -> None:
    content = json.loads(store.read(LAYOUT.manifest) or b"")
    store.write(LAYOUT.manifest, json.dumps(content | {"model": "x" * length}).encode())
    (found,) = Dataset.open(store, DATASET).verify()
    assert found.found.startswith(f"model is {shown}, and the plan says ")


def test_verify_compares_the_manifest_with_its_fingerprint_if_the_plan_is_lost(store: ObjectStore) -> None:
    _edit_manifest(store, "configuration", "source", "uri")
    dataset = Dataset.open(store, DATASET)
    store.delete(LAYOUT.plan(dataset.manifest.fingerprint))
    assert [(damage.key, damage.kind) for damage in dataset.verify()] == [
        (LAYOUT.plan(dataset.manifest.fingerprint), DamageKind.MISSING),
        (LAYOUT.manifest, DamageKind.OTHER_CONTENT),
    ]


def test_a_deleted_dataset_leaves_nothing_and_its_manifest_goes_first(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("datasets/other/manifest.json", b"{}")
    store.write("datasets/scene-2/manifest.json", b"{}")
    store.write(f"indexes/{DATASET}/index.json", b"{}")
    deleted: list[str] = []
    delete = ObjectStore.delete
    monkeypatch.setattr(ObjectStore, "delete", lambda self, key: (deleted.append(key), delete(self, key)))
    assert _command(store, "delete", DATASET, "--yes").startswith("dataset 'scene' was deleted: ")
    ours = [key for key in deleted if "/lease/" not in key]
    assert ours[0] == LAYOUT.manifest
    left = [str(path.relative_to(store.root)) for path in Path(store.root).rglob("*") if path.is_file()]
    assert sorted(left) == ["datasets/other/manifest.json", "datasets/scene-2/manifest.json"]
    with pytest.raises(UsageError, match=r"^there is no dataset 'scene' in "):
        Dataset.open(store, DATASET)
    with pytest.raises(SystemExit) as ended:
        _command(store, "delete", DATASET, "--yes")
    assert ended.value.code == 2


def test_a_delete_that_lost_the_dataset_deletes_nothing_more(
    store: ObjectStore, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = {Path(store.uri(shard.path)) for shard in dataset.shards}
    delete = ObjectStore.delete
    taken: list[set[Path]] = []

    def stand_still(self: ObjectStore, key: str) -> None:
        delete(self, key)
        if not taken and key.startswith(LAYOUT.shards_folder):  # Another run takes the dataset over meanwhile.
            taken.append({path for path in shards if path.exists()})
            store.write(LAYOUT.lease(99), b"{}")

    monkeypatch.setattr(ObjectStore, "delete", stand_still)
    with pytest.raises(LeaseLostError, match="another run took the dataset over"):
        dataset.delete()
    assert len(taken[0]) == len(shards) - 1
    assert {path for path in shards if path.exists()} == taken[0]
    assert Path(store.uri(LAYOUT.lease(99))).exists()


@pytest.mark.parametrize("deletions", [1, 2, 5])
def test_a_killed_delete_leaves_an_unfinished_dataset_in_the_list(
    deletions: int, store: ObjectStore, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete, count = ObjectStore.delete, iter(range(deletions))

    def killed(self: ObjectStore, key: str) -> None:
        if "/lease/" not in key and next(count, None) is None:
            raise KeyboardInterrupt
        delete(self, key)

    monkeypatch.setattr(ObjectStore, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        dataset.delete()
    monkeypatch.setattr(ObjectStore, "delete", delete)
    assert [(summary.id, summary.state) for summary in store.datasets()] == [(DATASET, Unlisted.UNFINISHED)]
    dataset.delete()
    assert not [path for path in Path(store.root).rglob("*") if path.is_file()]


def test_a_delete_follows_no_link_out_of_the_store(store: ObjectStore, tmp_path: Path, dataset: Dataset) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    for name in ("a.parquet", "inner/b.parquet", "c.part"):
        (outside / name).write_bytes(b"precious")
    shards = Path(store.uri(LAYOUT.shards_folder))
    shutil.rmtree(shards)
    shards.symlink_to(outside)
    Path(store.root, "indexes").mkdir(exist_ok=True)
    Path(store.uri(LAYOUT.vector_index_folder)).symlink_to(tmp_path / "nowhere")
    Path(store.uri(LAYOUT.qa_file("inner"))).symlink_to(outside / "inner")
    dataset.delete()
    assert not [path for path in Path(store.root).rglob("*") if path.is_file() or path.is_symlink()]
    assert len([path for path in outside.rglob("*") if path.is_file()]) == 3


def test_a_link_in_place_of_the_folder_of_the_manifest_is_refused_or_removed(
    store: ObjectStore, tmp_path: Path, dataset: Dataset
) -> None:
    folder, outside = Path(store.uri(LAYOUT.dataset_folder)), tmp_path / "outside"
    folder.rename(outside)
    folder.symlink_to(outside)
    files = sorted(outside.rglob("*"))
    with pytest.raises(StoreError, match=r"/datasets/scene: it is a link to a folder outside the store, so nothing"):
        dataset.delete()
    assert sorted(outside.rglob("*")) == files
    assert Path(store.uri(dataset.shards[0].path)).exists()
    outside.rename(tmp_path / "elsewhere")  # Now the link leads nowhere.
    dataset.delete()
    assert not [path for path in Path(store.root).rglob("*") if path.is_file() or path.is_symlink()]


@pytest.mark.parametrize("kind", ["pipe", "loop", "through a file"])
def test_an_entry_that_is_no_file_stops_neither_the_list_nor_a_deletion(
    kind: str, store: ObjectStore, dataset: Dataset
) -> None:
    for folder in LAYOUT.folders:
        path = Path(store.uri(folder)) / "odd.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(path if kind == "loop" else f"{store.uri(LAYOUT.manifest)}/x")
    assert [summary.state for summary in store.datasets()] == ["ready"]
    assert list(dataset_dates(store)) == [DATASET]
    check_known(store, [DATASET])
    dataset.delete()
    assert not [path for path in Path(store.root).rglob("*") if not path.is_dir()]


def test_a_dataset_is_deleted_only_on_demand(
    store: ObjectStore, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _command(store, "delete", DATASET)
    assert ended.value.code == 2
    assert "give --yes" in capsys.readouterr().err

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return "no\n"

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert _command(store, "delete", DATASET) == "nothing was deleted"
    assert Dataset.open(store, DATASET).verify() == ()

    monkeypatch.setattr("rasterembed.dataset.deletion.DEAD_RUN_S", 0.0)
    monkeypatch.setattr(lease, "POLL_S", 0.01)
    with (
        hold_lease(store, LAYOUT, "another run", wait_s=0, on_wait=print),
        pytest.raises(LeaseHeldError, match="written by run another run"),
    ):
        dataset.delete()
    assert dataset.delete() > 5


def test_a_deleted_dataset_says_that_it_is_gone(dataset: Dataset) -> None:
    dataset.delete()
    with pytest.raises(DataError, match=f"dataset 'scene' was deleted from {dataset.store.root}"):
        dataset.vectors()


def test_vectors_and_rows_are_those_of_the_files(store: ObjectStore, dataset: Dataset) -> None:
    table = pq.read_table(store.uri(LAYOUT.shards_folder))
    expected = np.array(table["embedding"].to_pylist(), np.float32)
    vectors = dataset.vectors()
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, expected)

    frame = dataset.to_geodataframe()
    files = geopandas.read_parquet(store.uri(LAYOUT.shards_folder))
    assert frame.crs == files.crs
    assert list(frame["tile_id"]) == list(files["tile_id"])
    assert frame.geometry.geom_equals(files.geometry).all()
    np.testing.assert_array_equal(np.stack(list(frame["embedding"])), expected)
    assert set(frame.columns) == set(files.columns) - {"bbox"}
    assert list(dataset.to_geodataframe(["norm"], vectors=False).columns) == ["norm", "geometry"]


@pytest.mark.parametrize(
    "read", [lambda dataset, columns: list(dataset.batches(columns)), Dataset.to_geodataframe], ids=["batches", "frame"]
)
def test_a_column_that_does_not_exist_is_refused(
    dataset: Dataset, read: Callable[[Dataset, Sequence[str]], object]
) -> None:
    with pytest.raises(UsageError, match=r"^dataset 'scene' has no column 'embeding': choose from tile_id, row, "):
        read(dataset, ["tile_id", "embeding"])
    with pytest.raises(UsageError, match=r"^the columns are a list: give \['norm'\], not 'norm'$"):
        read(dataset, "norm")


def test_the_accepted_states_are_a_list(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"^the states are a list: give \['ready'\], not 'ready'$"):
        Dataset.open(dataset.store, dataset.id, "ready")  # type: ignore[arg-type]


def test_without_geopandas_there_is_one_line(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(UsageError, match=r"^a GeoDataFrame needs the package geopandas.*: pip install geopandas$"):
        dataset.to_geodataframe()


def test_a_vector_is_searched_as_numpy_would(dataset: Dataset) -> None:
    vectors, ids = dataset.vectors().astype(np.float64), dataset.to_geodataframe(["tile_id"])["tile_id"]
    wanted = 3.0 * vectors[:4].mean(axis=0)
    cosines = vectors @ wanted / np.linalg.norm(vectors, axis=1) / np.linalg.norm(wanted)
    answer = dataset.search(vector=wanted, k=5)
    assert [hit.tile_id for hit in answer.hits] == [ids[i] for i in np.argsort(-cosines)[:5]]
    assert [hit.distance for hit in answer.hits] == pytest.approx(np.sort(1 - cosines)[:5], abs=1e-6)
    for vector in (wanted[:-1], np.zeros_like(wanted), np.full_like(wanted, np.nan), np.array(["x"] * len(wanted))):
        with pytest.raises(UsageError, match=r"^the vector "):
            dataset.search(vector=vector)
    odd = ([[1.0], [1.0, 2.0]], wanted + 1j, [10**400] * len(wanted), wanted.astype("m8[s]"), wanted * np.inf)
    for vector in odd:
        with pytest.raises(UsageError, match=r"^the vector "):
            dataset.search(vector=vector)
    for both in ({}, {"query": Query(tile="r000000_c000000"), "vector": wanted}):
        with pytest.raises(UsageError, match="give a query or a vector"):
            dataset.search(**both)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e-300, 1e-44, 1e-25, 1e25, 1e38, 1e300])
def test_the_length_of_a_vector_does_not_matter(dataset: Dataset, scale: float) -> None:
    vectors = dataset.vectors().astype(np.float64)
    wanted = vectors[:4].mean(axis=0)
    cosines = vectors @ wanted / np.linalg.norm(vectors, axis=1) / np.linalg.norm(wanted)
    answer = dataset.search(vector=wanted * scale, k=5)
    assert [hit.distance for hit in answer.hits] == pytest.approx(np.sort(1 - cosines)[:5], abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.int64, np.uint64])
def test_a_vector_is_scaled_without_rounding(dtype: type[np.number[Any]]) -> None:
    vector = np.arange(1, 100).astype(dtype)
    assert np.array_equal(scaled(vector), np.arange(1, 100, dtype=np.float32) / 128)


def test_shards_that_hold_other_vectors_end_in_one_line(store: ObjectStore, dataset: Dataset) -> None:
    path = store.uri(dataset.shards[0].path)
    pq.write_table(pq.read_table(path).slice(0, 3), path)
    with pytest.raises(DataError, match=r"^dataset 'scene': its shards do not hold \d+ vectors of 64 numbers.* verify"):
        dataset.vectors()
    store.write(dataset.shards[0].path, b"no parquet")
    store.write(LAYOUT.tile_index, b"no parquet")
    for read in (dataset.vectors, dataset.tiles):
        with pytest.raises(DataError, match=r": it cannot be read .*: run `rasterembed datasets verify scene --root "):
            read()


def test_only_a_dataset_of_a_collection_of_the_store_is_advised_as_one(tmp_path: Path) -> None:
    """A person may have given a dataset an id that looks like one of a collection."""
    store = ObjectStore(root=str(tmp_path))
    store.write(DatasetLayout("mine--a").manifest, b"{")
    with pytest.raises(DataError, match=r"embed the raster again .*--dataset-id mine--a --replace"):
        read_manifest(store, "mine--a")
    store.write(CollectionLayout("mine").stac_collection, b"{}")
    with pytest.raises(DataError, match="collection remove-scene mine mine--a"):
        read_manifest(store, "mine--a")
