"""`rasterembed collection`: what a person types, and what the person gets."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

import rasterembed
from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.collection import Collection, write_collection
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.command_line.run import run
from rasterembed.command_line.this_program import as_typed, this_program
from rasterembed.commands.main import app
from rasterembed.errors import DataError, UsageError
from rasterembed.store.lease import hold_lease
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write
from tests.support.scenes import write_scene

pytestmark = pytest.mark.usefixtures("plain_pictures")

FAIL_LATE = ("--max-failed-fraction", "1")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two good scenes, and one without CRS, which fails."""
    write_scene(tmp_path / "scenes" / "a.tif", 0)
    write_scene(tmp_path / "scenes" / "b.tif", 1)
    write_scene(tmp_path / "scenes" / "no-crs.tif", 2, crs=None)
    return tmp_path / "scenes"


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def command(*words: str) -> str:
    """Run a command in this process, and return its text."""
    return str(run(app, ["collection", *words]))


def facts(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run a command that fails, and return its exit status and its only line of error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as error:
        command(*words)
    (line,) = capsys.readouterr().err.splitlines()
    assert isinstance(error.value.code, int)
    return error.value.code, line


def embed(scenes: Path, root: str, model: Path, *words: str) -> str:
    chosen = ("--model", str(model), "--size", "32", "--device", "cpu", "--lease-wait", "0")
    late = () if FAIL_LATE[0] in words else FAIL_LATE
    return command("embed", str(scenes), "--collection", "survey", "--root", root, *chosen, *late, *words)


def test_a_folder_is_embedded_shown_listed_and_searched(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = embed(scenes, root, tiny_vit)
    told = facts(printed)
    assert told["scenes"] == "3: 2 ready, 1 failed"
    assert told["this run"] == "3 new"
    # The reason is printed once. Scene a or b fixes the settings.
    advice = "or allow footprints in pixels with --allow-no-crs (in a new collection: this one keeps its settings)"
    assert told["failed"].startswith(f"{scenes}/no-crs.tif: ")
    assert told["failed"].endswith(advice)
    assert capsys.readouterr().err == ""
    assert facts(command("show", "survey", "--root", root))["failed"].endswith(advice)
    catalogue = f"{root}/collections/survey/items.parquet"
    assert told["catalogue"] == catalogue
    counted = duckdb.execute("SELECT sum(rows) FROM read_parquet(?)", [catalogue]).fetchall()
    assert told["rows"] == str(counted[0][0]) == "8"

    # The search command of the last line can be pasted.
    words = shlex.split(told["search"])
    assert words[0].endswith("rasterembed") or words[1:3] == ["-m", "rasterembed"]
    answer = str(run(app, words[words.index("search") :]))
    assert "survey--" in answer

    # The name of a collection in place of a dataset's is recognised.
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(app, ["qa", "survey", "--root", root])
    assert "'survey' is a collection: give --collection survey where " in capsys.readouterr().err

    # An existing collection gives its settings. Only the scene that failed is tried again.
    capsys.readouterr()
    again = command("embed", str(scenes), "--collection", "survey", "--root", root, *FAIL_LATE)
    assert facts(again)["failed"].endswith(advice)
    assert facts(again)["this run"] == "1 tried again, 2 unchanged"
    (scenes / "no-crs.tif").unlink()
    complete = command("embed", str(scenes), "--collection", "survey", "--root", root, "--device", "cpu", "--prune")
    assert facts(complete)["note"] == "no scene is new or changed, so nothing was computed"
    pruned = facts(complete)["pruned"]
    assert re.fullmatch(r"1 scene that is gone \(survey--no-crs-\w+\)", pruned)
    assert facts(complete)["this run"] == "2 unchanged"
    assert facts(complete)["scenes"] == "2: 2 ready"

    (head, row) = command("list", "--root", root).splitlines()
    assert head.split() == ["collection", "state", "scenes", "rows", "dates", "(UTC)", "model"]
    assert row.split()[:6] == ["survey", "ready", "2:", "2", "ready", "8"]
    (listed,) = json.loads(command("list", "--root", root, "--json"))
    assert (listed["id"], listed["scenes"], listed["counts"], listed["rows"]) == ("survey", 2, {"ready": 2}, 8)
    (summary,) = rasterembed.ObjectStore(root=root).collections()
    assert (summary.id, summary.scenes, summary.rows) == ("survey", 2, 8)


def pasted(line: str) -> str:
    """Run the search command in the last line of a result, and return the answer."""
    words = shlex.split(line.removeprefix("search: "))
    return str(run(app, words[words.index("search") :]))


def test_a_partly_failed_run_tells_what_worked_and_then_one_error(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    with pytest.raises(SystemExit) as error:
        embed(scenes, root, tiny_vit, "--max-failed-fraction", "0.25")
    assert error.value.code == 1
    printed = capsys.readouterr()
    told = facts(printed.out)
    assert told["this run"] == "3 new"
    assert told["scenes"] == "3: 2 ready, 1 failed"
    assert told["table"] == f"{root}/collections/survey/table/table.json"
    assert "--collection survey" in told["search"]
    (line,) = printed.err.splitlines()
    assert line.startswith(
        "error: collection 'survey': 1 of 3 scenes failed, more than --max-failed-fraction 0.25 allows: the reasons "
    )
    show = as_typed(f"rasterembed collection show survey --root {root}")
    assert line.endswith(f"; `{show}` lists them")
    assert "no-crs.tif" in str(run(app, shlex.split(show)[1:]))
    assert told["failed"].startswith(f"{scenes}/no-crs.tif: ")
    assert (printed.out + printed.err).count(f"{scenes}/no-crs.tif") == 1


def test_scenes_that_fail_for_the_same_reason_are_told_in_one_line(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (scenes / "a.tif").read_bytes()
    for name, size in (("a.tif", 3000), ("b.tif", 3001), ("c.tif", 2000)):
        (scenes / name).write_bytes(whole[:size])
    with pytest.raises(SystemExit) as error:
        embed(scenes, root, tiny_vit, "--max-failed-fraction", "0")
    assert error.value.code == 1
    printed = capsys.readouterr()
    cut, no_crs = (line for line in printed.out.splitlines() if line.startswith("failed: "))
    assert cut.startswith(f"failed: 3 scenes, such as {scenes}/a.tif: the file is cut off: ")
    assert no_crs.startswith(f"failed: {scenes}/no-crs.tif: ")
    (line,) = printed.err.splitlines()
    assert line.startswith("error: collection 'survey': 4 of 4 scenes failed, more than --max-failed-fraction 0 allows")
    # Nothing else says that all scenes failed: the quality of no vector is not worth a line.
    assert "quality: " not in printed.out
    report = json.loads((Path(root) / "collections/survey/qa/report.json").read_bytes())
    assert [failure["scenes"] for failure in report["failures"]] == [3, 1]


def test_a_breach_other_than_the_share_of_failed_scenes_is_a_warning(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bounds = ("--max-failed-qa-scene-share", "0", "--min-rows", "2", "--max-norm-ratio", "1")
    told = facts(embed(scenes, root, tiny_vit, *bounds))
    assert "failed_scene_share" in told["quality"]
    (warning,) = capsys.readouterr().err.splitlines()
    assert "did not pass its quality checks of all 3 scenes: failed_qa_scene_share is 1, " in warning
    assert "failed_scene_share" not in warning.replace("failed_qa_scene_share", "")
    assert f"--collection survey --max-failed-qa-scene-share BOUND --root {root}`" in warning


def test_a_collection_whose_scenes_all_failed_has_no_vectors_no_dates_and_the_whole_remedy(
    scenes: Path, root: str, tiny_vit: Path
) -> None:
    told = facts(embed(scenes, root, tiny_vit, "--anchor", "crs", "--origin", "5", "0"))
    assert (told["state"], told["rows"]) == ("no vectors", "0")
    assert command("list", "--root", root).splitlines()[1].split()[:6] == [
        "survey",
        "no",
        "vectors",
        "3:",
        "3",
        "failed",
    ]
    assert told["failed"].startswith(f"{scenes}/no-crs.tif: ")  # It is the last of the lines `failed`.
    assert "new collection" not in told["failed"]
    shown = command("show", "survey", "--root", root)
    assert "new collection" not in shown
    assert facts(shown)["state"] == "no vectors"
    assert facts(shown)["dates"] == "not known"
    # The message about the origin is long, and ends with what to do.
    assert f"failed: {scenes}/a.tif: " in shown
    assert "`gdalwarp -tap -tr 10 10`, or count tiles from the raster's corner" in shown
    assert "…" not in shown
    # The file of the collection says that the last run has ended, as before.
    stored = json.loads((Path(root) / "collections/survey/collection.json").read_bytes())
    assert stored["rasterembed:state"] == "ready"
    assert stored["extent"]["temporal"]["interval"] == [[None, None]]


def test_the_dates_are_those_of_embedded_scenes(scenes: Path, root: str, tiny_vit: Path) -> None:
    day = 86_400
    for name, time in (("a.tif", 100 * day), ("b.tif", 101 * day), ("no-crs.tif", 200 * day)):
        os.utime(scenes / name, (time, time))
    told = facts(embed(scenes, root, tiny_vit))
    shown = facts(command("show", "survey", "--root", root))
    assert shown["dates"] == "1970-04-11 to 1970-04-12"
    # The rasters have no time of acquisition. Without this line, a person would think that --since goes by it.
    assert told["undated"] == shown["undated"]
    assert told["undated"].startswith("2 of 2 embedded scenes have no time of acquisition: --since and --until use ")
    assert json.loads(command("show", "survey", "--root", root, "--json"))["undated"] == 2
    hits = Collection.open(ObjectStore(root=root), "survey").search(vector=np.ones(64)).hits
    assert hits
    assert {hit.acquired for hit in hits} == {None}  # The time of a file is no time of acquisition.
    (listed,) = json.loads(command("list", "--root", root, "--json"))
    assert (listed["first"], listed["last"]) == ("1970-04-11T00:00:00+00:00", "1970-04-12T00:00:00+00:00")


def test_a_file_that_became_unreadable_keeps_its_dataset_and_leaves_the_collection(
    scenes: Path, root: str, tiny_vit: Path
) -> None:
    embed(scenes, root, tiny_vit)
    (scenes / "b.tif").write_bytes((scenes / "b.tif").read_bytes()[:5000])
    embed(scenes, root, tiny_vit)
    shown = command("show", "survey", "--root", root)
    (line,) = (line for line in shown.splitlines() if f"{scenes}/b.tif" in line)
    assert line.endswith("has the vectors of an earlier run; the collection does not use them)")
    assert command("verify", "survey", "--root", root).endswith(
        "for 3 scenes; 2 of them failed, without vectors in the collection"
    )
    printed = command("rebuild", "survey", "--root", root)
    said, search = printed.splitlines()
    assert said == "collection 'survey' was rebuilt: scenes 3: 1 ready, 2 failed; 4 rows"
    assert "distance" in pasted(search)
    every = ("--max-failed-scene-share", "1", "--max-duplicate-scenes", "9")
    assert "distance" in pasted(
        str(run(app, ["qa", "--collection", "survey", "--root", root, *every])).splitlines()[-1]
    )


def test_show_of_a_scene_tells_the_result_of_its_quality_checks_though_no_report_was_written(
    scenes: Path, root: str, tiny_vit: Path
) -> None:
    embed(scenes, root, tiny_vit)
    dataset_id = ObjectStore(root=root).datasets()[0].id
    told = facts(str(run(app, ["datasets", "show", dataset_id, "--root", root])))
    assert told["state"] == "ready"
    assert re.fullmatch(
        f"passed, without a report: `.*rasterembed.* qa {dataset_id}.*` writes it", told["quality checks"]
    )


def test_show_tells_failures_with_their_reasons_and_the_bounds(scenes: Path, root: str, tiny_vit: Path) -> None:
    embed(scenes, root, tiny_vit)
    shown = command("show", "survey", "--root", root)
    told = facts(shown)
    assert told["failed"].startswith(f"{scenes}/no-crs.tif: ")
    assert told["scenes from"] == str(scenes)
    assert told["grid"].startswith("size 32, ")
    assert told["state"] == "ready"
    sides = [float(side) for side in told["bbox"].split(", ")]
    question = "SELECT min(bbox.xmin), min(bbox.ymin), max(bbox.xmax), max(bbox.ymax) FROM read_parquet(?)"
    (wanted,) = duckdb.execute(question, [f"{root}/collections/survey/items.parquet"]).fetchall()
    assert sides == pytest.approx(wanted, abs=1e-6)
    values = json.loads(command("show", "survey", "--root", root, "--json"))
    assert values["scenes"] == {"ready": 2, "failed": 1}
    assert [failure["source"] for failure in values["failures"]] == [f"{scenes}/no-crs.tif"]
    assert values["configuration"]["grid"]["size"] == 32


def test_verify_finds_a_flipped_byte_a_lost_dataset_and_an_old_table(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(scenes, root, tiny_vit)
    assert "checks passed, for 3 scenes" in command("verify", "survey", "--root", root)
    store = Path(root)
    (part,) = (store / "collections/survey/table").glob("part-*.parquet")
    (shard, _) = sorted(store.glob("embeddings/survey--*/*.parquet"))
    (store / "collections/survey/model.json").unlink()
    for file in (part, shard):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    capsys.readouterr()
    with pytest.raises(SystemExit) as error:
        command("verify", "survey", "--root", root)
    assert error.value.code == 1
    printed = capsys.readouterr()
    damages = printed.out.splitlines()
    assert len(damages) == 3
    assert damages[0].startswith(f"{store}/collections/survey/model.json: the file is missing: run ")
    assert damages[1].startswith(f"{part}: its sha256 is ")
    assert damages[2].startswith(f"{shard}: its sha256 is ")
    for damage in damages:
        (told,) = re.findall(f"`{re.escape(this_program())} (.*?)`", damage)
        app.parse_args(shlex.split(told), exit_on_error=False)
        assert told.endswith(f" --root {root}")
    assert "3 of " in printed.err

    # The advice in the lines repairs the collection. A table cannot be made while a shard is unreadable.
    command("remove-scene", "survey", shard.parent.name, "--root", root, "--yes")
    for part in (store / "collections/survey/table").glob("part-*.parquet"):
        part.unlink()
    command("rebuild", "survey", "--root", root)
    embed(scenes, root, tiny_vit)
    assert "checks passed" in command("verify", "survey", "--root", root)

    manifest = store / "datasets" / shard.parent.name / "manifest.json"
    manifest.unlink()
    with pytest.raises(SystemExit):
        command("verify", "survey", "--root", root)
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{manifest}: the file is missing: remove the scene")


@pytest.mark.parametrize(
    ("damaged", "asking"),
    [
        ("items.parquet", ["collection", "show", "survey"]),
        ("items.parquet", ["search", "--collection", "survey", "--lonlat", "24", "60"]),
        ("table/table.json", ["search", "--collection", "survey", "--lonlat", "24", "60"]),
        ("table/part-*", ["collection", "verify", "survey"]),
    ],
)
def test_the_remedy_for_a_damaged_file_is_the_command_that_writes_it_again(
    damaged: str, asking: list[str], scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(scenes, root, tiny_vit)
    for file in Path(root, "collections/survey").glob(damaged):
        file.unlink() if "part" in damaged else file.write_bytes(b"{")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(app, [*asking, "--root", root])
    said = "".join(capsys.readouterr())
    assert f": run `{this_program()} collection rebuild survey --root {root}`" in said
    command("rebuild", "survey", "--root", root)
    assert "checks passed" in command("verify", "survey", "--root", root)


def test_a_removed_scene_is_gone_everywhere_and_comes_back_with_its_listing(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(scenes, root, tiny_vit)
    store = Path(root)
    before = (store / "collections/survey/items.parquet").read_bytes()
    status, line = refused(capsys, "remove-scene", "survey", str(scenes / "a.tif"), "--root", root)
    assert (status, "--yes" in line) == (2, True)
    # A wrong name is refused before the question, with or without --yes.
    for yes in ((), ("--yes",)):
        status, line = refused(capsys, "remove-scene", "survey", str(scenes / "aa.tif"), "--root", root, *yes)
        assert status == 2
        assert f"{scenes}/a.tif" in line

    (dataset,) = duckdb.execute(
        f"SELECT id FROM read_parquet('{root}/collections/survey/items.parquet') WHERE source = ?",
        [str(scenes / "a.tif")],
    ).fetchall()[0]
    printed = command("remove-scene", "survey", str(scenes / "a.tif"), "--root", root, "--yes")
    assert printed.startswith(f"scene '{scenes}/a.tif' was removed; dataset {dataset} was deleted\n")
    assert f"if the scene still lies at {scenes}, the next run from there embeds it again" in printed
    table = json.loads((store / "collections/survey/table/table.json").read_bytes())
    files = [str(store / part["path"]) for part in table["parts"]]
    rows = duckdb.execute("SELECT count(*), count(DISTINCT dataset_id) FROM read_parquet(?)", [files]).fetchall()
    assert rows == [(4, 1)]
    assert len(list(store.glob("datasets/survey--*/manifest.json"))) == 1
    collection = rasterembed.Collection.open(rasterembed.ObjectStore(root=root), "survey")
    assert collection.verify() == ()
    assert collection.catalogue.count == 2
    printed = command("remove-scene", "survey", str(scenes / "no-crs.tif"), "--root", root, "--yes")
    assert printed.startswith(f"scene '{scenes}/no-crs.tif' was removed; it had no dataset\n")

    assert facts(embed(scenes, root, tiny_vit))["this run"] == "2 new, 1 unchanged"
    assert (store / "collections/survey/items.parquet").read_bytes() == before
    again = collection.remove_scene(str(scenes / "a.tif"))
    assert again.catalogue.count == 2


def test_the_dataset_of_a_scene_is_removed_with_its_scene_only(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(scenes, root, tiny_vit)
    (member, other) = sorted(path.parent.name for path in Path(root).glob("datasets/survey--*/manifest.json"))
    remedy = as_typed(f"rasterembed collection remove-scene survey {member} --root {root}")
    for yes in ((), ("--yes",)):
        capsys.readouterr()
        with pytest.raises(SystemExit) as error:
            run(app, ["datasets", "delete", member, "--root", root, *yes])
        assert error.value.code == 2
        told = capsys.readouterr().err
        assert f"dataset '{member}' belongs to collection 'survey'" in told
        assert f"(`{remedy}`)" in told
    opened = rasterembed.Dataset.open(rasterembed.ObjectStore(root=root), member)
    with pytest.raises(UsageError, match="remove-scene survey"):
        opened.delete()
    assert "checks passed" in command("verify", "survey", "--root", root)
    # An id that does not exist is no scene, whatever it begins with.
    with pytest.raises(SystemExit):
        run(app, ["datasets", "delete", member[:-3], "--root", root, "--yes"])
    told = capsys.readouterr().err
    assert f"there is no dataset {member[:-3]!r}" in told
    assert member in told
    # The command in the text works, and the scene can be embedded again.
    assert "was deleted" in str(run(app, [*shlex.split(remedy)[1:], "--yes"]))
    assert facts(embed(scenes, root, tiny_vit))["scenes"] == "3: 2 ready, 1 failed"
    # Without its collection, a dataset is deleted like any other one.
    shutil.rmtree(f"{root}/collections/survey")
    assert str(run(app, ["datasets", "delete", other, "--root", root, "--yes"])).startswith(f"dataset '{other}' was ")


def test_a_rebuild_keeps_the_listings_and_the_quality_so_that_pruning_goes_on(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(scenes, root, tiny_vit)
    (scenes / "a.tif").unlink()
    embed(scenes, root, tiny_vit)
    before = command("show", "survey", "--root", root)
    assert facts(before)["scenes from"] == str(scenes)
    (gone,) = [path.parent.name for path in Path(root).glob("datasets/survey--a-*/manifest.json")]
    advice = "a run with --prune deletes it"
    assert facts(before)["gone"] == f"1 scene is gone ({gone}): the last listing did not have it; {advice}"
    assert json.loads(command("show", "survey", "--root", root, "--json"))["gone"] == [gone]
    assert "quality" in facts(before)
    capsys.readouterr()
    command("rebuild", "survey", "--root", root)
    assert capsys.readouterr().err == ""
    assert command("show", "survey", "--root", root) == before
    assert facts(embed(scenes, root, tiny_vit, "--prune"))["pruned"] == f"1 scene that is gone ({gone})"


def test_a_failed_scene_that_is_gone_is_marked_and_a_repeated_scene_is_named(
    scenes: Path, root: str, tiny_vit: Path
) -> None:
    listing = scenes / "list.txt"
    listing.write_text(f"{scenes}/a.tif\n{scenes}/no-crs.tif\n{scenes}/a.tif\n")
    note = f"1 scene is named more than once ({scenes}/a.tif); of it, only the first entry was used"
    assert facts(embed(listing, root, tiny_vit))["note"] == note
    assert "gone" not in command("show", "survey", "--root", root)
    listing.write_text(f"{scenes}/a.tif\n")
    embed(listing, root, tiny_vit)
    assert facts(command("show", "survey", "--root", root))["failed"].endswith(" (this scene is gone)")


def test_rebuild_makes_a_lost_catalogue_again(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(scenes, root, tiny_vit)
    (Path(root) / "collections/survey/items.parquet").unlink()
    capsys.readouterr()
    printed = command("rebuild", "survey", "--root", root)
    assert printed.splitlines()[0] == "collection 'survey' was rebuilt: scenes 2: 2 ready; 8 rows"
    warned = capsys.readouterr().err
    assert warned.startswith("warning: the old catalogue is lost or damaged, so the listings of the scenes")
    assert "remove-scene survey SCENE" in warned
    command("embed", str(scenes), "--collection", "survey", "--root", root, *FAIL_LATE)
    assert facts(command("show", "survey", "--root", root))["scenes from"] == str(scenes)
    capsys.readouterr()
    # Datasets that exist become a collection, and are not deleted with it.
    config = ("--root", root, "--model", str(tiny_vit), "--size", "32", "--device", "cpu")
    run(app, ["embed", str(scenes / "a.tif"), "--dataset-id", "alone", "--index", "always", *config])
    assert "vector index: built, because there is no index\n" in capsys.readouterr().err
    printed = command("rebuild", "older", "--root", root, "--datasets", "alone")
    assert printed.splitlines()[0] == "collection 'older' was rebuilt: scenes 1: 1 ready; 4 rows"
    # A dataset that joined is refused, as a dataset is that the collection made.
    (Path(root) / "collections/damaged").mkdir()
    (Path(root) / "collections/damaged/collection.json").write_text("{}")
    with pytest.raises(SystemExit) as error:
        run(app, ["datasets", "delete", "alone", "--root", root, "--yes"])
    assert error.value.code == 2
    remedy = as_typed(f"rasterembed collection remove-scene older alone --root {root}")
    assert "dataset 'alone' is a scene of collection 'older': " in (told := capsys.readouterr().err)
    assert f"(`{remedy}`)" in told
    assert (Path(root) / "datasets/alone/manifest.json").exists()
    printed = command("remove-scene", "older", "alone", "--root", root, "--yes")
    assert printed.endswith("dataset alone was embedded before it joined the collection, and stays")
    assert (Path(root) / "datasets/alone/manifest.json").exists()
    assert command("show", "older", "--root", root).count("\nscenes: 0\n") == 1
    assert "was deleted" in str(run(app, ["datasets", "delete", "alone", "--root", root, "--yes"]))


def test_a_catalogue_that_is_missing_is_told_with_the_command_that_makes_it_again(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(scenes, root, tiny_vit)
    catalogue = Path(root) / "collections/survey/items.parquet"
    catalogue.unlink()
    rebuild = as_typed(f"rasterembed collection rebuild survey --root {root}")
    for words in (("show", "survey"), ("show", "survey", "--json"), ("verify", "survey")):
        capsys.readouterr()
        with pytest.raises(SystemExit) as error:
            run(app, ["collection", *words, "--root", root])
        assert error.value.code == 1
        printed = capsys.readouterr()
        line = printed.out + printed.err
        assert f"{catalogue}: the catalogue is missing: run `{rebuild}`" in line or words[0] == "verify"
        assert f"run `{rebuild}`" in line
        assert "no vectors" not in line
    opened = rasterembed.Collection.open(rasterembed.ObjectStore(root=root), "survey")
    with pytest.raises(DataError, match=r"the catalogue is missing: .*rebuild survey"):
        opened.scenes()
    command("rebuild", "survey", "--root", root)
    assert facts(command("show", "survey", "--root", root))["state"] == "ready"


def test_rebuild_names_settings_as_options_although_it_has_none_of_them(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(scenes, root, tiny_vit)
    chosen = ("--root", root, "--model", str(tiny_vit), "--size", "64", "--device", "cpu")
    run(app, ["embed", str(scenes / "b.tif"), "--dataset-id", "large", *chosen])
    status, line = refused(capsys, "rebuild", "survey", "--root", root, "--datasets", "large")
    assert status == 1
    assert "(--size: 32 in collection 'survey', 64 here)" in line


def test_a_warning_of_rebuild_names_settings_as_options(
    scenes: Path, root: str, tiny_vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(3).integers(100, 3000, (3, 64, 64)).astype(np.uint16)
    wide = write(tmp_path / "wide.tif", pixels, photometric="rgb")
    for number, raster in enumerate((scenes / "a.tif", wide)):
        chosen = ("--root", root, "--model", str(tiny_vit), "--size", "32", "--device", "cpu", "--min-rows", "2")
        run(app, ["embed", str(raster), "--dataset-id", f"one-{number}", *chosen])
    capsys.readouterr()
    command("rebuild", "made", "--root", root, "--datasets", "one-*")
    warned = capsys.readouterr().err
    assert warned.startswith("warning: the scenes have different black and white")
    assert all(option in warned for option in ("--range", "--scale", "--stretch-of")), warned
    assert "`" not in warned


def test_a_collection_is_deleted_with_its_datasets_after_a_question(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(scenes, root, tiny_vit)
    status, line = refused(capsys, "delete", "survey", "--root", root)
    assert status == 2
    assert "give --yes to delete collection 'survey' with its 2 datasets without a question" in line
    assert (Path(root) / "collections/survey/items.parquet").exists()
    objects = [path for path in Path(root).rglob("*") if path.is_file() and "lease" not in path.parts]
    printed = command("delete", "survey", "--root", root, "--yes")
    assert (
        printed == f"collection 'survey' was deleted: 2 datasets, {len(objects)} objects; the files of its scenes stay"
    )
    assert not [path for path in Path(root).rglob("*") if path.is_file()]
    assert sorted(path.name for path in scenes.iterdir()) == ["a.tif", "b.tif", "no-crs.tif"]


def test_a_wrong_setting_of_the_first_run_is_corrected_by_the_next_run(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = embed(scenes, root, tiny_vit, "--anchor", "crs", "--origin", "5", "0")
    assert facts(wrong)["scenes"] == "3: 3 failed"
    capsys.readouterr()
    assert facts(embed(scenes, root, tiny_vit, "--anchor", "crs"))["scenes"] == "3: 2 ready, 1 failed"
    assert "collection 'survey' has no vectors yet, so the settings of this run replace" in capsys.readouterr().err
    status, line = refused(
        capsys, "embed", str(scenes), "--collection", "survey", "--root", root, "--model", str(tiny_vit), "--size", "64"
    )
    assert status == 1
    delete = as_typed(f"rasterembed collection delete survey --root {root}")
    assert f"delete the collection with its datasets (`{delete}`)" in line


def test_a_typed_default_that_is_not_the_setting_of_the_collection_is_refused(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(scenes, root, tiny_vit)  # Its tiles have 32 px.
    again = ("embed", str(scenes), "--collection", "survey", "--root", root, *FAIL_LATE)
    status, line = refused(capsys, *again, "--size", "224")
    assert status == 1
    assert "exists with another configuration" in line
    assert "32 in the collection, 224 requested" in line
    assert facts(command(*again, "--device", "cpu"))["rows"] == "8"


def test_a_removed_scene_leaves_a_collection_that_is_not_checked(scenes: Path, root: str, tiny_vit: Path) -> None:
    embed(scenes, root, tiny_vit)
    command("remove-scene", "survey", str(scenes / "a.tif"), "--yes", "--root", root)
    told = facts(command("show", "survey", "--root", root))["quality"]
    assert re.fullmatch(r"not checked as it is now: `.*rasterembed.* qa --collection survey.*` checks it", told)


@pytest.mark.parametrize(
    "words", [("show",), ("verify",), ("rebuild",), ("remove-scene", "x.tif", "--yes"), ("delete", "--yes")]
)
def test_a_wrong_id_names_near_ones(
    words: tuple[str, ...], scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, line = refused(capsys, words[0], "survye", *words[1:], "--root", root)
    assert status == 2
    assert "the store has no collection" in line
    folder = Path(root) / "collections/survey"
    folder.mkdir(parents=True)
    (folder / "collection.json").write_text("{}")
    status, line = refused(capsys, words[0], "survye", *words[1:], "--root", root)
    assert status == 2
    assert "the store has survey" in line


def test_what_is_wrong_is_found_before_anything_is_read(
    scenes: Path, root: str, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--root", root)
    status, line = refused(capsys, "embed", str(scenes), "--collection", "a--b", *place)
    assert (status, "collection id 'a--b' is not allowed" in line) == (2, True)
    status, line = refused(capsys, "embed", str(scenes / "nowhere"), "--collection", "survey", *place)
    assert (status, "there is no such file or folder" in line) == (2, True)
    status, line = refused(capsys, "embed", str(scenes), "--collection", "survey", *place, "--max-failed-fraction", "2")
    assert (status, "--max-failed-fraction" in line) == (2, True)
    status, line = refused(capsys, "embed", "https://stac.example/", "--collection", "a", *place, "--search", "{]")
    assert (status, "is no JSON" in line) == (2, True)
    assert "COLLECTION is missing" in refused(capsys, "embed", str(scenes), *place)[1]
    assert not Path(root).exists()
    # Other settings than those of the collection are refused, with the difference.
    embed(scenes, root, tiny_vit)
    status, line = refused(
        capsys, "embed", str(scenes), "--collection", "survey", *place, "--size", "64", "--model", str(tiny_vit)
    )
    assert (status, "--size: 32 in the collection, 64 requested" in line) == (1, True)


def test_an_unreadable_collection_is_listed_with_its_problem(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(root) / "collections/broken"
    folder.mkdir(parents=True)
    (folder / "collection.json").write_text("{")
    lines = command("list", "--root", root).splitlines()
    assert lines[1].split()[:2] == ["broken", "unreadable"]
    assert lines[2].startswith(f"{folder}/collection.json: ")
    (Path(root) / "empty").mkdir()
    assert f"no collection in {root}/empty: check the root" in command("list", "--root", f"{root}/empty")
    # One line ends the command with status 2, and no folder is made.
    assert refused(capsys, "list", "--root", f"{root}/typo") == (
        2,
        f"error: there is no folder {root}/typo: check the root, or embed a raster first",
    )
    assert not (Path(root) / "typo").exists()


def test_help_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys\nfrom rasterembed.commands.main import app\nfrom rasterembed.command_line.run import run\n"
        "try:\n    run(app, ['collection', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'pyarrow', 'torch', 'duckdb', 'rasterio'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    for name in ("embed", "list", "show", "verify", "remove-scene", "rebuild", "delete"):
        assert name in done.stdout


def test_an_interrupted_collection_is_listed_and_shown_with_the_command_that_completes_it(
    scenes: Path, root: str, tiny_vit: Path
) -> None:
    """A run that was killed leaves these files: no catalogue, and the collection as its run began it."""
    embed(scenes, root, tiny_vit)
    store = rasterembed.ObjectStore(root=root)
    opened = rasterembed.Collection.open(store, "survey")
    (Path(root) / opened.layout.catalogue).unlink()
    state = CollectionState.EMBEDDING
    write_collection(store, opened.layout, opened.configuration, Catalogue.of([]), state, listing=str(scenes / "*.tif"))
    _, row, line = command("list", "--root", root).splitlines()
    assert row.split()[:3] == ["survey", "unfinished", "0"]
    assert line.startswith("survey is unfinished: no run writes it, because its run failed or was stopped; ")
    (summary,) = store.collections()
    assert (summary.state, summary.running) == ("embedding", False)
    told = facts(command("show", "survey", "--root", root))
    assert told["state"] == "unfinished: no run writes it, because its run failed or was stopped"
    assert json.loads(command("show", "survey", "--root", root, "--json"))["continue_with"] == summary.continue_with
    words = shlex.split(told["continue"])
    assert line.endswith(f"`{told['continue']}`")
    run(app, [*words[words.index("collection") :], *FAIL_LATE])
    told = facts(command("show", "survey", "--root", root))
    assert (told["state"], told["scenes"]) == ("ready", "3: 2 ready, 1 failed")
    assert "continue" not in told
    with hold_lease(store, opened.layout, "other run", wait_s=0, on_wait=print):
        write_collection(store, opened.layout, opened.configuration, opened.catalogue, state)
        assert command("list", "--root", root).splitlines()[1].split()[1] == "embedding"
