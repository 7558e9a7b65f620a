"""Errors and messages of a command name options and environment variables as a person types them."""

from __future__ import annotations

import json
import re
import socket
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from cyclopts import App
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from rasterembed.command_line.command_app import command_app
from rasterembed.command_line.run import run
from rasterembed.command_line.this_program import as_typed
from rasterembed.command_line.wrong_options import in_command_words, option_names, running_command
from rasterembed.commands.main import app
from tests.support.scenes import write_scene

pytestmark = pytest.mark.usefixtures("plain_pictures")

WEB_FILE = "https://data.example.org/scene.tif"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RASTEREMBED_SOURCE_HTTPS_HOSTS", raising=False)
    return tmp_path


def errors(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that fails, and return what it printed on standard error."""
    with pytest.raises(SystemExit):
        run(app, words)
    return capsys.readouterr().err


def test_an_option_of_another_command_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    text = errors(capsys, "search", "scene", "--tile", "x12")
    assert text.endswith("or x+000160_y+030000 in a grid with --anchor crs\n")


def test_the_name_of_a_file_that_looks_like_a_command_stays() -> None:
    def listing(root: str) -> str:
        return json.dumps({"raster": "x `rasterembed qa a`.tif", "root": root})

    shown = run(command_app("listing", listing), ["--root", 'st"x'])
    assert json.loads(str(shown)) == {"raster": "x `rasterembed qa a`.tif", "root": 'st"x'}


def test_the_help_names_no_parameter_as_python_does(capsys: pytest.CaptureFixture[str]) -> None:
    for words, command in commands(app):
        with pytest.raises(SystemExit):
            run(app, [*words, "--help"])
        text = capsys.readouterr().out
        options = option_names(command.assemble_argument_collection())
        written = {name for name in re.findall(r"[a-z]+(?:_[a-z]+)+", text) if name in options}
        assert written == set(), words
        assert "anchor=crs" not in text
        assert "default: ()" not in text


def commands(group: App, *words: str) -> Iterator[tuple[tuple[str, ...], App]]:
    """Yield the words of every command of a group, and the command."""
    for name in group:
        if name.startswith("-"):
            continue
        if group[name].default_command is not None:
            yield (*words, name), group[name]
        yield from commands(group[name], *words, name)


def test_a_result_names_options() -> None:
    def flow(min_rows: int = 1) -> str:
        """Search."""
        return f"collection: `min_rows={min_rows}` and `anchor=crs`, but neither `tile_id` nor min_rows"

    assert run(command_app("flow", flow), ["--min-rows", "3"]) == (
        "collection: --min-rows 3 and --anchor crs, but neither `tile_id` nor min_rows"
    )


def test_the_reason_of_a_scene_names_options(folder: Path, tiny_vit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scene(folder / "scenes" / "good.tif", 1)
    with rasterio.open(write_scene(folder / "scenes" / "a.tif"), "r+") as scene:
        scene.transform = Affine.translation(3, 0) @ scene.transform
    chosen = ("--model", str(tiny_vit), "--size", "32", "--anchor", "crs", "--device", "cpu")
    with pytest.raises(SystemExit):
        run(app, ["collection", "embed", "scenes", "--collection", "survey", *chosen])
    text = capsys.readouterr().out
    [reason] = (line for line in text.splitlines() if "needs pixel edges" in line)
    assert "--anchor crs needs pixel edges" in reason
    assert "give --origin 3 " in reason
    assert "`anchor" not in text
    shown = str(run(app, ["collection", "show", "survey"]))
    assert "a.tif: --anchor crs needs pixel edges" in shown


def test_the_description_of_a_collection_names_options_of_embed(folder: Path, tiny_vit: Path) -> None:
    """The command that describes a collection has none of these options. A person gives them to the next run."""
    with rasterio.open(write_scene(folder / "scenes" / "a.tif")) as scene:
        profile, pixels = scene.profile | {"crs": None}, scene.read()
    with rasterio.open(folder / "scenes" / "a.tif", "w", **profile) as scene:
        scene.write(pixels)
    with pytest.raises(SystemExit):
        run(app, ["collection", "embed", "scenes", "--collection", "survey", "--model", str(tiny_vit), "--size", "32"])
    shown = str(run(app, ["collection", "show", "survey"]))
    assert "or allow footprints in pixels with --allow-no-crs" in shown


def test_a_host_that_is_not_listed_names_the_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors(capsys, "embed", WEB_FILE).endswith(
        "if you trust it, add it to the environment variable RASTEREMBED_SOURCE_HTTPS_HOSTS\n"
    )


def test_a_command_with_a_source_store_keeps_the_names_of_its_fields() -> None:
    def flow(source_store: str | None = None) -> None:
        """Embed."""

    text = "add it to `source_store.https_hosts`"
    with running_command(command_app("flow", flow), []):
        assert in_command_words(text) == text
    assert in_command_words(text) == text  # No command is running.


def test_a_name_that_cannot_be_resolved(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # The reserved name example.invalid never exists (RFC 6761).
    monkeypatch.setenv("RASTEREMBED_SOURCE_HTTPS_HOSTS", "example.invalid")
    try:
        socket.getaddrinfo("example.invalid", 443)
    except socket.gaierror as error:
        if error.errno != socket.EAI_NONAME:
            pytest.skip(f"the name server of this machine does not answer: {error}")
    text = errors(capsys, "embed", "https://example.invalid/scene.tif")
    assert text == "error: example.invalid: the name could not be resolved: check the address, and the network\n"


def test_every_command_in_a_text_gets_the_root(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my store").mkdir()
    for words, advice in {
        ("datasets", "list"): "rasterembed embed RASTER --root 'my store'",
        ("collection", "list"): "rasterembed collection embed SCENES --collection ID --root 'my store'",
    }.items():
        assert f"(`{as_typed(advice)}`)" in str(run(app, [*words, "--root", "my store"]))
    write_scene(Path("scenes/a.tif"))
    advice = as_typed("rasterembed collection embed SCENES --collection NAME --root s")
    assert f"(`{advice}`)" in errors(capsys, "embed", "scenes", "--root", "s")


def test_a_missing_argument_is_named_with_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "the argument COLLECTION is missing: give it, or --collection COLLECTION; " in errors(
        capsys, "collection", "embed", "2026", "--root", "s"
    )
    assert "the argument RASTER is missing: give it, or --raster RASTER; " in errors(capsys, "embed")


def test_a_picture_without_a_place_brings_no_warning_of_rasterio(folder: Path, tiny_vit: Path) -> None:
    pixels = np.random.default_rng(3).integers(1, 255, (3, 64, 64)).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(folder / "pic.png", "w", driver="PNG", width=64, height=64, count=3, dtype="uint8") as file:
            file.write(pixels)
    chosen = ("--model", str(tiny_vit), "--size", "32", "--device", "cpu", "--index", "never")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(app, ["embed", "pic.png", "--allow-no-crs", *chosen])
    assert [each for each in caught if each.category is NotGeoreferencedWarning] == []


def test_a_thread_of_a_command_gives_messages_in_its_words_too() -> None:
    def flow(stretch_of: str | None = None) -> None: ...

    with running_command(command_app("flow", flow), []), ThreadPoolExecutor(1) as pool:
        assert pool.submit(in_command_words, "give `stretch_of`").result() == "give --stretch-of"
