"""Every mistake that a person can make gets an error of one line: what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rasterembed.errors import DataError, ObjectMissingError, RasterEmbedError, StoreError, UsageError
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.store.object_store import ObjectStore
from tests.support.runs import choices, files, write_raster

VRT = """<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a good raster and things that are none."""
    here = tmp_path / "here"
    (here / "folder").mkdir(parents=True)
    write_raster(here / "scene.tif")
    (here / "empty.tif").write_bytes(b"")
    (here / "text.tif").write_text("a photograph of a cat")
    (here / "half.tif").write_bytes((here / "scene.tif").read_bytes()[:100])
    (here / "scene.vrt").write_text(VRT)
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def _refused(kind: type[RasterEmbedError], raster: str, store: ObjectStore, tiny_vit: Path, **other: Any) -> str:
    with pytest.raises(RasterEmbedError) as error:
        embed_raster(store, raster, EmbedOptions(**choices(tiny_vit) | other))
    assert type(error.value) is kind
    text = str(error.value)
    assert "\n" not in text
    assert files(Path(store.root)) == {}
    return text


@pytest.mark.parametrize(
    ("raster", "kind", "said"),
    [
        ("none.tif", ObjectMissingError, "{here}/none.tif: there is no such file"),
        ("folder", UsageError, "'folder' is a folder: give one raster, or embed all of its rasters as a collection ("),
        (".", UsageError, "'.' is a folder: give one raster, or embed all of its rasters as a collection ("),
        ("*.tif", UsageError, "'*.tif' is a pattern: give one raster, or embed all of its rasters as a collection ("),
        ("list.txt", UsageError, "is a list of scenes: give one raster, or embed all of its rasters as a collection ("),
        ("s3://bucket/prefix/", UsageError, "is a bucket or a prefix: give one raster, or embed all of its rasters"),
        ("scene.tif/inside", StoreError, "{here}/scene.tif/inside: a part of the path is a file"),
        ("/dev/null", StoreError, "/dev/null: it is not a file"),
        ("empty.tif", DataError, "{here}/empty.tif: the file is empty"),
        ("text.tif", DataError, "{here}/text.tif: not a raster that can be read here"),
        ("half.tif", DataError, "{here}/half.tif: the file is cut off: it has 100 bytes"),
        ("scene.vrt", DataError, "{here}/scene.vrt: not a raster that can be read here"),
        ("/vsicurl/http://127.0.0.1:1/scene.tif", UsageError, "is neither a file nor s3://bucket/key"),
        ("http://127.0.0.1:1/scene.tif", UsageError, "is neither a file nor s3://bucket/key"),
        ("NETCDF:scene.nc:var", ObjectMissingError, "{here}/NETCDF:scene.nc:var: there is no such file"),
        ("GTIFF_DIR:1:scene.tif", ObjectMissingError, "{here}/GTIFF_DIR:1:scene.tif: there is no such file"),
        (VRT, UsageError, "is no path: give a file or s3://bucket/key"),
        ("", UsageError, "raster '' is no path"),
        ("scene.tif\0", UsageError, "is no path"),
        ("x" * 5000, StoreError, "File name too long"),
    ],
)
def test_what_is_no_raster(
    raster: str, kind: type[RasterEmbedError], said: str, here: Path, store: ObjectStore, tiny_vit: Path
) -> None:
    assert said.format(here=here) in _refused(kind, raster, store, tiny_vit)


@pytest.mark.parametrize("dataset_id", ["../x", "", "A", "a" * 129])
def test_what_is_no_dataset_id_is_refused_before_the_raster_is_looked_for(
    dataset_id: str, here: Path, store: ObjectStore, tiny_vit: Path
) -> None:
    text = _refused(UsageError, "none.tif", store, tiny_vit, dataset_id=dataset_id)
    assert text.startswith(f"dataset id {dataset_id!r} is not allowed")


def test_a_root_that_is_a_file_is_found_out_before_the_work(
    here: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rasterembed.pipeline.embed_shard", lambda *_, **__: pytest.fail("it went to work"))
    store = ObjectStore(root=str(here / "text.tif"))
    with pytest.raises(StoreError, match=r"^\S+/text.tif/datasets/scene/manifest.json: a part of the path is a file$"):
        embed_raster(store, "scene.tif", EmbedOptions(**choices(tiny_vit)))


def test_errors_know_what_the_command_line_ends_with() -> None:
    assert (UsageError.exit_code, DataError.exit_code, StoreError.exit_code) == (2, 1, 1)
