"""The console command `rasterembed`, as a program of its own: no Prefect, one line for each error, an exit status."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from examples.landscape import make_scene
from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.store.object_store import DEFAULT_ROOT
from tests.conftest import PROJECT
from tests.support.pictures import plain_pictures
from tests.support.vectors import blank_raster

TILE = "r000003_c000003"
EMBED = ("embed", "scene.tif", "--dataset-id", "made", "--size", "128")
HEAVY = ("torch", "transformers", "duckdb", "matplotlib", "prefect")
"""Packages that take long to import."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a raster, and its dataset `made` in the default store."""
    folder = tmp_path_factory.mktemp("console")
    make_scene(folder, width=1024, height=1024)
    (folder / "list.csv").write_text("scene.tif\n")
    with pytest.MonkeyPatch.context() as patch, plain_pictures():
        _here(folder, patch, *EMBED)
    return folder


def _environment() -> dict[str, str]:
    """Return this environment with the project on the path, from any working directory, and no Prefect server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return kept | {"PYTHONPATH": str(PROJECT)}


def _rasterembed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rasterembed", *arguments],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_a_later_run_imports_neither_transformers_nor_pandas(folder: Path, tmp_path: Path) -> None:
    """The fixture has loaded the same model before, and left a note in the cache folder."""
    program = (
        "import sys\n"
        "from rasterembed.commands.main import main\n"
        "slow = ('torch', 'transformers', 'pandas')\n"
        "try:\n    main()\n"
        "finally:\n    print('imported', *(name for name in slow if name in sys.modules))\n"
    )
    arguments = ["embed", "scene.tif", "--root", str(tmp_path / "again"), "--dataset-id", "made", "--size", "128"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "imported torch"
    (first, again) = (
        [pq.read_table(path, columns=["tile_id", "embedding"]) for path in sorted(root.glob("**/part-*.parquet"))]
        for root in (folder / DEFAULT_ROOT / "embeddings" / "made", tmp_path / "again")
    )
    assert len(first) > 0
    assert first == again


LIGHT: list[tuple[list[str], int]] = [
    (["--help"], 0),
    (["--version"], 0),
    (["embed", "--help"], 0),
    (["search", "--help"], 0),
    (["qa", "--help"], 0),
    (["qa-overview", "--help"], 0),
    (["datasets", "list", "--help"], 0),
    (["datasets", "show", "nowhere"], 2),
    (["embed"], 2),
    (["embed", "a.tif", "--size", "17"], 2),
    (["search", "made", "--tile", "12"], 2),
    (["search", "nowhere", "--tile", "r000000_c000000"], 2),
    (["search", "made", "--tile", "r000000_c000000", "--out", "found.xlsx"], 2),
    (["qa", "made", "--min-rows", "0"], 2),
    (["nothing"], 2),
]
"""Commands that need no heavy package, and their exit statuses."""


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run each of these commands in a child of one process, and return a folder with their results.

    A process of its own for each command would import the command's common modules each time.
    """
    folder = tmp_path_factory.mktemp("light")
    program = f"""
import os, sys
from rasterembed.commands.main import main
for number, (arguments, _) in enumerate({LIGHT!r}):
    if os.fork() == 0:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{{number}}.{{name}}", os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = ["rasterembed", *arguments]
        try:
            main()
        finally:
            print(*(name for name in {HEAVY!r} if name in sys.modules), file=open(f"{{number}}.imported", "w"))
    _, status = os.wait()
    print(os.waitstatus_to_exitcode(status), file=open(f"{{number}}.status", "w"))
"""
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=_environment(),
        timeout=240,
        check=True,
    )
    return folder


def test_help_lists_the_commands(light: Path) -> None:
    printed = (light / f"{LIGHT.index((['--help'], 0))}.out").read_text()
    for command in ("embed", "search", "qa"):
        assert f"│ {command} " in printed


@pytest.mark.parametrize("number", range(len(LIGHT)), ids=[" ".join(arguments) for arguments, _ in LIGHT])
def test_help_and_wrong_usage_import_nothing_that_takes_long(number: int, light: Path) -> None:
    errors = (light / f"{number}.err").read_text()
    assert int((light / f"{number}.status").read_text()) == LIGHT[number][1], errors
    assert "Traceback" not in errors
    assert (light / f"{number}.imported").read_text().split() == []


def _here(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Return what a command prints, without the seconds that another process needs for its imports."""
    monkeypatch.chdir(folder)
    return str(run(app, arguments))


def test_embed_writes_a_dataset_and_prints_where_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = folder / DEFAULT_ROOT / "datasets/made/manifest.json"
    assert json.loads(manifest.read_bytes())["rows"] == 64
    again = _rasterembed(folder, *EMBED)
    assert again.returncode == 0, again.stderr
    lines = dict(line.split(": ", 1) for line in again.stdout.splitlines())
    assert lines["dataset id"] == "made"
    assert lines["state"] == "ready"
    assert lines["manifest"] == str(manifest)
    assert (lines["rows"], lines["skipped"]) == ("64", "0")
    assert lines["note"] == "the dataset was already complete, so nothing was computed"
    pasted = _here(folder, monkeypatch, *shlex.split(lines["search"])[1:])
    assert pasted.startswith("tile r000000_c000000; model: ")


def test_search_prints_the_answer_and_writes_what_was_asked_for(folder: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "found.csv", tmp_path / "sheet.png"
    done = _rasterembed(
        folder, "search", "made", "--tile", TILE, "-k", "3", "--out", str(out), "--sheet", str(sheet)
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"tile {TILE}; model: ")
    assert [line.split()[0] for line in lines[3:6]] == ["1", "2", "3"]
    assert lines[-3].startswith("made: answered by ")
    assert lines[-2:] == [f"written: {out}", f"written: {sheet}"]
    assert len(out.read_text().splitlines()) == 4
    assert Image.open(sheet).format == "PNG"


def test_an_answer_is_printed_even_if_its_sheet_cannot_be_drawn(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    scene = folder / "scene.tif"
    scene.rename(folder / "away.tif")
    try:
        with pytest.raises(SystemExit) as stopped:
            run(app, ["search", "made", "--tile", TILE, "-k", "3", "--sheet", str(tmp_path / "sheet.png")])
    finally:
        (folder / "away.tif").rename(scene)
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()[3:6]] == ["1", "2", "3"]
    assert "scene.tif" in printed.err


def test_questions_about_all_tiles_are_commands(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {name: str(tmp_path / f"{name}.parquet") for name in ("neighbours", "deduplicate", "cluster")}
    files["diversify"] = str(tmp_path / "chosen.csv")
    options = {"neighbours": "-k 1", "deduplicate": "--threshold 0.05", "cluster": "--classes 3", "diversify": "-n 5"}
    commands = [[name, "made", "--out", files[name], *options[name].split()] for name in files]
    # One process imports the common modules. Other packages start threads, so a fork of theirs could not end.
    program = f"""
import os, sys
from rasterembed.commands.main import main
for arguments in {commands!r}:
    if os.fork() == 0:
        sys.argv = ["rasterembed", *arguments]
        main()
    status = os.waitstatus_to_exitcode(os.wait()[1])
    assert status == 0, (arguments, status)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=_environment(), capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert [file for file in files.values() if f"written: {file}" not in done.stdout.splitlines()] == []
    (search,) = (line for line in done.stdout.splitlines() if line.startswith("search: "))
    found = _here(folder, monkeypatch, *shlex.split(search)[2:])
    assert f"--class-file {files['cluster']} --classes 0" in search
    assert found.splitlines()[3].split()[0] == "1"

    shards = pq.read_table(folder / DEFAULT_ROOT / "embeddings/made", columns=["tile_id", "embedding"])
    ids = shards["tile_id"].to_pylist()
    vectors = np.array(shards["embedding"].to_pylist(), np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = 1 - vectors @ vectors.T
    np.fill_diagonal(distances, np.inf)
    tables = {name: pq.read_table(file).to_pydict() for name, file in files.items() if name != "diversify"}
    assert [sorted(table["tile_id"]) for table in tables.values()] == [sorted(ids)] * 3
    nearest = dict(zip(ids, distances.min(axis=1), strict=True))
    near = tables["neighbours"]
    assert near["distance"] == pytest.approx([nearest[tile] for tile in near["tile_id"]], abs=1e-5)
    groups = tables["deduplicate"]
    assert sum(groups["keep"]) == len(set(groups["group"])) < len(ids)
    assert max(groups["distance"]) <= 0.05
    assert set(tables["cluster"]["class"]) == {0, 1, 2}
    with open(files["diversify"]) as chosen:
        first, second, *_ = numbers = [ids.index(row["tile_id"]) for row in csv.DictReader(chosen)]
    assert len(set(numbers)) == 5
    distances[first, first] = -np.inf
    assert distances[first, second] == pytest.approx(distances[first].max(), abs=1e-5)


@pytest.mark.usefixtures("plain_pictures")
def test_qa_sets_the_state_by_its_verdict(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = folder / DEFAULT_ROOT / "datasets/made/manifest.json"
    with pytest.raises(SystemExit) as breached:
        _here(folder, monkeypatch, "qa", "made", "--max-mean-cosine", "-0.9")
    errors = capfd.readouterr().err
    assert breached.value.code == 1
    assert "more than --max-mean-cosine -0.9" in errors
    assert "Traceback" not in errors
    assert json.loads(manifest.read_bytes())["state"] == "failed_qa"
    passed = _rasterembed(folder, "qa", "made")
    assert passed.returncode == 0, passed.stderr
    assert "mean_cosine" in passed.stdout
    assert "state: ready" in passed.stdout.splitlines()
    label, program, *search = shlex.split(passed.stdout.splitlines()[-1])
    assert (label, Path(program).name, search[:3]) == ("search:", "rasterembed", ["search", "made", "--root"])
    assert json.loads(manifest.read_bytes())["state"] == "ready"


@pytest.mark.parametrize(
    ("status", "arguments", "reason"),
    [
        (2, ["embed", "scene.tif", "--size", "17"], "--size: give a multiple of 16, not '17'"),
        (2, ["embed", "scene.tif", "--root", "ftp://there"], "the root is neither a folder nor s3://bucket/prefix"),
        (2, ["embed", "scene.tif", "--root", ""], "--root is empty: give a folder or s3://bucket/prefix"),
        (2, ["datasets", "list", "--root="], "--root is empty: give a folder or s3://bucket/prefix"),
        (2, ["embed", "scene.tif", "--store", "block"], "Unknown option: --store"),
        (2, ["embed", "scene.tif", "--dataset-id", "../x"], "dataset id '../x' is not allowed"),
        (1, ["embed", "nowhere.tif"], "nowhere.tif: there is no such file"),
        (2, ["search", "nowhere", "--tile", TILE], "rasterembed datasets list --root"),
        (2, ["search", "made", "--tile", TILE, "--out", "found.xlsx"], "found.xlsx: give a file name that ends in"),
        (2, ["search", "made", "--lonlat", "24"], "--lonlat: give 2 values, not 1"),
        (2, ["search", "made", "--lonlat", "-78,24.5"], "put a space between two values, and no comma"),
        (
            2,
            ["embed", "a.tif", "--mean", "0.430", "0.411", "0.296"],
            "--mean: give 3 values with commas between them, and no space, not '0.430'",
        ),
        (2, ["search", "made", "--tile", "3,3"], "--tile: '3,3' is not a tile id: tile ids look like"),
        (2, ["datasets", "verify", "ma*"], "give the id of one dataset, not 'ma*': only a search takes patterns"),
        (1, ["embed", "scene.tif", "--root", "/proc/x"], "the folder cannot be made: choose a root that you can"),
        (2, ["search", "made", "--tile", TILE, "-k", "1.5"], "-k: give a whole number, not '1.5'"),
        (2, ["search", "made", "other", "--tile", TILE], "'other' is one argument too many"),
        (2, ["embed", "scene.tif", "--bands", "3", "2", "1"], "and commas between several values of an option; --help"),
        (
            2,
            ["search", "made", "--tile", TILE, "--since", "2024-13-01"],
            "--since: give a year, a month, a day or a time",
        ),
        (2, ["search", "made", "--root", "reslts", "--tile", TILE], "the store has no dataset, because the folder"),
        (2, ["search", "mad*", "--root", "reslts", "--tile", TILE], "the store has no dataset, because the folder"),
        (2, ["search", "made", "--tile", TILE, "--since", "soon"], "--since: give a year, a month, a day or a time"),
        (2, ["search", "made", "--tile", TILE, "-k", "0"], "error: -k: give 1 or more, not 0"),
        (2, ["search", "made", "--tile", TILE, "--k", "0"], "error: --k: give 1 or more, not 0"),
        (2, ["cluster", "made", "--out", "a.parquet", "-k", "1"], "error: -k: give 2 or more, not 1"),
        (2, ["diversify", "made", "--out", "a.parquet", "-n", "0"], "error: -n: give 1 or more, not 0"),
        (2, ["neighbours", "made"], "error: the option --out is missing: give --out OUT; --help lists the arguments"),
        (2, ["neighbours", "made", "--out"], "error: --out: give a value"),
        (2, ["search", "made", "-z", "3"], "Unknown option: -z. --help lists all options"),
        (
            2,
            ["collection", "embed", "scene.tif", "--collection", "c", "--dry-run"],
            "error: Unknown option: --dry-run. --help lists all options",
        ),
        (2, ["search", "made", "--count", "3"], "error: Unknown option: --count. --help lists all options"),
        (
            2,
            ["embed", "scene.tif", "--tile-size", "32"],
            "error: Unknown option: --tile-size. Did you mean --size? --h",
        ),
        (2, ["embed", "scene.tif", "--sise", "32"], "error: Unknown option: --sise. Did you mean --size? --help lists"),
        (
            2,
            ["embed", "scene.tif", "--dataset_ids=x"],
            "error: Unknown option: --dataset_ids. Did you mean --dataset-id? --help lists",
        ),
        (
            1,
            ["collection", "embed", "list.csv", "--collection", "c"],
            "give a GeoTIFF, JPEG 2000, PNG or JPEG file; a list",
        ),
        (2, ["search", "made", "--like", f"{TILE},3,3"], "error: --like: '3' is not a tile id"),
        (2, ["search", "made", "--unlike", TILE], "error: give an example of what to look for: --tile, --lonlat"),
        (2, ["search", "made", "--include-query"], "error: give an example of what to look for: --tile, --lonlat"),
        (2, ["search", "made"], "error: give an example of what to look for: --tile, --lonlat, --image or --like"),
        (2, ["search", "made", "--root", "scene.tif", "--tile", TILE], "scene.tif is a file: give a folder"),
        (2, ["embed"], "the argument RASTER is missing"),
        (2, ["embed", "scene.tif", "--bands", "red"], "--bands: give 'auto' or a whole number, not 'red'"),
        (2, ["embed", "scene.tif", "--std", "-1,1,1"], "--std: give 0.000001 or more, not '-1'"),
        (2, ["embed", "scene.tif", "--mean", "-.5,1,1"], "--mean: give 0 or more, not '-.5'"),
        (2, ["search", "made", "--lonlat", "-24,60"], "--lonlat: give 2 values, not 1"),
        (
            2,
            ["search", "made", "--tile", TILE, "--bbox", "-78", "25", "-77", "23"],
            "--bbox: give west, south, east, north in degrees, south below north, not '-78', '25', '-77', '23'",
        ),
        (1, ["embed", "placeless.tif"], "or allow footprints in pixels with --allow-no-crs"),
        (2, ["qa", "nowhere"], "there is no dataset 'nowhere'"),
        (2, ["nothing"], 'Unknown command "nothing"'),
    ],
)
def test_what_a_person_gets_wrong_is_one_line_and_a_status(
    status: int,
    arguments: list[str],
    reason: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    if "placeless.tif" in arguments:
        blank_raster(folder / "placeless.tif", 2, 2, crs=None)
    with pytest.raises(SystemExit) as end:
        run(app, arguments)
    output = capfd.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, output.err
    assert reason in errors[0]
    assert errors[0].count("3,3") < 2
    assert end.value.code == status
    assert "Traceback" not in output.err + output.out


@pytest.mark.slow
def test_huge_tiles_are_warned_of_and_a_second_signal_ends_the_run_at_once(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One tile of 4096 px takes minutes, and PyTorch cannot be interrupted within it."""
    command = ["embed", str(folder / "scene.tif"), "--root", str(tmp_path), "--dataset-id", "a", "--size", "4096"]
    program = """
import sys
from rasterembed.commands.main import main
from rasterembed.model import folded_vit, networks
from tests.support.runs import before
calls = []
def say(*_):
    calls.append(None)
    if len(calls) == 1:
        print("the network computes", file=sys.stderr, flush=True)
for network in (folded_vit.FoldedViT, networks.TransformersNetwork):
    before(network, "forward", say)
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command], env=_environment(), stderr=subprocess.PIPE, text=True
    )
    request.addfinalizer(process.kill)  # If the test fails, the tile would be computed for minutes.
    assert process.stderr is not None
    padding, costly = process.stderr.readline(), process.stderr.readline()
    assert "the raster has 1024x1024 px, and a tile has 4096x4096 px: 93.8% of a tile is padding" in padding
    assert padding.endswith(": use a smaller --size\n")
    assert "one tile takes about 20,000 times as long as a tile of 224 px" in costly
    assert "use a smaller --size, or --input-size 224" in costly
    # The model is loaded. Its check with images of this size takes minutes too.
    assert process.stderr.readline() == "the network computes\n"
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline().startswith("stopping: ")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    (last,) = process.stderr.readlines()
    assert process.wait() == 130
    assert last.startswith("error: stopped at once: finished work stays in the store; run the same command again")
    assert not (tmp_path / "datasets/a/manifest.json").exists()
    assert not list((tmp_path / "embeddings").rglob("*.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_embed_keeps_complete_shards_and_can_be_run_again(
    how: signal.Signals, folder: Path, tmp_path: Path
) -> None:
    small = ["--shard-tiles", "1", "--size", "128", "--batch-size", "1"]
    command = ["embed", str(folder / "scene.tif"), "--root", str(tmp_path), "--dataset-id", "a", *small]
    held = [sys.executable, "-m", "tests.support.held_run", "3", "rasterembed", *command]
    process = subprocess.Popen(held, env=_environment(), stderr=subprocess.PIPE, text=True)
    shards = tmp_path / "embeddings/a"
    while process.poll() is None and len(list(shards.glob("*.parquet"))) < 3:
        time.sleep(0.01)
    process.send_signal(how)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "error: interrupted" in errors
    assert "Traceback" not in errors
    left = sorted(shards.iterdir())
    # A held shard is finished after the signal, because the command finishes what it computes.
    assert 3 <= len(left) < 64
    assert {(path.suffix, pq.read_metadata(path).num_rows) for path in left} == {(".parquet", 1)}
    assert not (tmp_path / "datasets/a/manifest.json").exists()

    again = _rasterembed(tmp_path, *command)
    assert again.returncode == 0, again.stderr
    assert "rows: 64" in again.stdout.splitlines()
