"""File names that are not UTF-8 end in one line that names the file, or are left out of a store's listing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.errors import UsageError
from rasterembed.raster.source import register
from rasterembed.store.object_store import ObjectStore, open_store

NAME = os.fsdecode(b"caf\xe9.tif")  # As Latin-1 writes it.
SHOWN = r"caf\\xe9\.tif' is not UTF-8 \(\\x marks the bytes that are not\): rename the file or folder"


def test_a_raster_and_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "r.tif").write_bytes(b"any")
    with pytest.raises(UsageError, match=rf"^raster '.*{SHOWN.replace('tif', 'tif/r.tif', 1)}$"):
        register(store, str(folder / "r.tif"))
    with pytest.raises(UsageError, match=rf"^object store .*: the root '{SHOWN}$"):
        open_store(NAME)
    with pytest.raises(UsageError, match=rf"^object store .*: the root 's3://bucket/{SHOWN}$"):
        open_store(f"s3://bucket/{NAME}")
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=r"^raster '.*caf\\xe9\.tif/r\.tif' is not UTF-8"):
        register(store, "r.tif")
    with pytest.raises(UsageError, match=r"the root '.*caf\\xe9\.tif/store' is not UTF-8"):
        open_store("store")


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", NAME],
        ["embed", "r.tif", "--mask", NAME],
        ["search", "d", "--image", NAME],
        ["qa", "d", "--root", NAME],
    ],
)
def test_an_argument_of_a_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(app, arguments)
    assert ended.value.code == 2
    error = "'caf\\xe9.tif' is not UTF-8 (\\x marks the bytes that are not): rename the file or folder"
    assert capsys.readouterr().err == f"error: the argument {error}\n"


def test_a_listing_of_a_folder_leaves_such_names_out(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    store.write("datasets/a/é.json", b"1")
    (tmp_path / "datasets/a" / NAME).write_bytes(b"22")
    (tmp_path / "datasets" / NAME).mkdir()
    (tmp_path / "datasets" / NAME / "manifest.json").write_bytes(b"333")
    assert store.sizes("datasets/a") == {"é.json": 1}
    assert [key for key, _ in store.find("datasets")] == ["datasets/a/é.json"]
