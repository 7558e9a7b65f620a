"""Datasets of different radiometry are searched together with a warning, and a shared stretch makes them comparable."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from rasterembed.errors import UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry, ResolvedRadiometry
from rasterembed.search import radiometry_groups
from rasterembed.search.answer import Answer
from rasterembed.search.query import Query
from rasterembed.search.radiometry_groups import RadiometryGroup, radiometry_warning
from rasterembed.search.searcher import Searcher
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import embed_ready

SIDE = 32
COMMON = (0, 1)
"""Columns of tiles that both scenes show."""


def scene(path: Path, *, bright: bool) -> Path:
    """Write a scene of 4 x 2 tiles. Two columns have the same pixels in each scene; the others are dark or bright."""
    random = np.random.default_rng(5)
    pixels = random.integers(200, 1200, (3, 2 * SIDE, 4 * SIDE)).astype(np.uint16)
    if bright:
        pixels[:, :, 2 * SIDE :] += 8000
    with rasterio.open(
        path, "w", driver="GTiff", width=4 * SIDE, height=2 * SIDE, count=3, dtype="uint16", crs="EPSG:32635",
        transform=Affine(10, 0, 500_000, 0, -10, 6_700_000), photometric="rgb",
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


@pytest.fixture(scope="module")
def store(tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """A store with a dark scene, a bright scene, and the bright scene with the stretch of the dark one."""
    folder = tmp_path_factory.mktemp("scenes")
    store = ObjectStore(root=str(folder / "store"))
    dark, bright = scene(folder / "dark.tif", bright=False), scene(folder / "bright.tif", bright=True)
    shared = Radiometry(stretch_of="dark")
    for name, raster, radiometry in (("dark", dark, Radiometry()), ("bright", bright, Radiometry()),
                                     ("shared", bright, shared)):  # fmt: skip
        model = Dinov3(model=str(tiny_vit), device="cpu")
        embed_ready(store, str(raster), dataset_id=name, grid=Grid(size=SIDE), model=model, radiometry=radiometry)
    return store


def ask(store: ObjectStore, *names: str) -> Answer:
    with Searcher(store, names) as searcher:
        return searcher.ask(Query(tile=f"{names[0]}/r000000_c000001"), k=15)


def distance_of_the_same_pixels(answer: Answer, other: str) -> float:
    return next(hit.distance for hit in answer.hits if (hit.dataset_id, hit.tile_id) == (other, "r000000_c000001"))


def test_other_stretches_bring_a_warning(store: ObjectStore) -> None:
    answer = ask(store, "dark", "bright")
    assert distance_of_the_same_pixels(answer, "bright") > 0.01
    groups = answer.radiometries
    assert [group.dataset_ids for group in groups] == [("dark",), ("bright",)]
    for name, group in zip(("dark", "bright"), groups, strict=True):
        with rasterio.open(Path(store.root).parent / f"{name}.tif") as file:
            low, high = np.percentile(file.read(), (2, 98), axis=(1, 2))
        np.testing.assert_allclose((group.radiometry.low, group.radiometry.high), (low, high))
    warning = next(note for note in answer.notes() if note.startswith("warning"))
    assert warning in str(answer)
    assert f"dark: bands 1,2,3, black {groups[0].radiometry.low[0]:g}," in warning
    assert "bright: bands 1,2,3, black " in warning
    # The stretch of the dark scene would clip half of the bright scene, and that of the bright scene clips nothing.
    assert warning.endswith("embed all but bright again with --stretch-of bright --replace")
    assert Answer.model_validate_json(answer.model_dump_json()) == answer


def test_a_shared_stretch_makes_the_same_pixels_equal(store: ObjectStore) -> None:
    answer = ask(store, "dark", "shared")
    assert distance_of_the_same_pixels(answer, "shared") < 1e-6
    assert answer.radiometries == ()
    assert not [note for note in answer.notes() if "warning" in note]
    with Searcher(store, ["dark", "shared"]) as searcher:
        one, other = (dataset.radiometry for dataset in searcher.datasets)
    assert (one.bands, one.low, one.high) == (other.bands, other.low, other.high)
    assert other.method == "stretch of dark"


def test_datasets_are_grouped(store: ObjectStore) -> None:
    answer = ask(store, "dark", "bright", "shared")
    assert [group.dataset_ids for group in answer.radiometries] == [("dark", "shared"), ("bright",)]
    assert "dark and 1 more: bands" in "\n".join(answer.notes())
    assert ask(store, "bright").radiometries == ()


def test_the_stretch_of_8_bits_is_not_advised_for_16_bits(store: ObjectStore, tiny_vit: Path, tmp_path: Path) -> None:
    with rasterio.open(Path(store.root).parent / "dark.tif") as file:
        pixels, profile = file.read(), file.profile
    raster = tmp_path / "eight.tif"
    with rasterio.open(raster, "w", **(profile | {"dtype": "uint8"})) as file:
        file.write((pixels // 5).astype(np.uint8))
    model = Dinov3(model=str(tiny_vit), device="cpu")
    embed_ready(store, str(raster), dataset_id="eight", grid=Grid(size=SIDE), model=model)
    white = np.percentile(pixels, 98, axis=(1, 2)).max()
    warning = next(note for note in ask(store, "eight", "dark").notes() if note.startswith("warning"))
    assert "eight: bands 1,2,3, black 0,0,0, white 255,255,255, uint8 pixels; dark: bands 1,2,3, " in warning
    assert "--stretch-of" not in warning
    advised = re.search(
        r"embed all of them again with a common --range (\S+) (\S+) --replace\. The colours of eight ", warning
    )
    assert advised is not None
    assert [float(value) for value in advised.groups()] == pytest.approx([0, white])
    shared = Radiometry(range=(float(advised[1]), float(advised[2])))
    for name, path in (("eight", raster), ("dark", Path(store.root).parent / "dark.tif")):
        options = {"dataset_id": f"{name}-shared", "grid": Grid(size=SIDE), "model": model, "radiometry": shared}
        embed_ready(store, str(path), **options)
    assert ask(store, "eight-shared", "dark-shared").radiometries == ()


def _group(name: str, low: float, high: float, pixel_type: str = "uint16", **changes: object) -> RadiometryGroup:
    radiometry = ResolvedRadiometry(bands=(1, 2, 3), low=(low,) * 3, high=(high,) * 3, method="range")
    radiometry = radiometry.model_copy(update=changes)
    return RadiometryGroup(dataset_ids=(name,), radiometry=radiometry, pixel_types=(pixel_type,))


@pytest.mark.parametrize(
    ("groups", "advice"),
    [
        ([_group("a", 0, 1000), _group("b", 0, 1500), _group("c", 100, 900)], "but b again with --stretch-of b --rep"),
        (
            [_group("a", 0, 1000), _group("b", 0, 1500, bands=(3, 2, 1))],
            "but b again with --stretch-of b --replace and the --bands of the same colours",
        ),
        (
            [_group("a", 0, 1000), _group("b", 0, 60_000, bands=(3, 2, 1))],
            "--range 0 60000 --replace and the --bands of the same colours",
        ),
        (
            [_group("a", 0, 1000), _group("b", 8000, 9000)],
            "No dataset's stretch fits .* --range 0 9000 .* of a, b then",
        ),
        ([_group("a", 0, 255, "uint8"), _group("b", 0, 3000)], "--range 0 3000 --replace. The colours of a then"),
        ([_group("a", 0, 1000), _group("b", 0, 0.3)], "--range 0 1000 --replace. The colours of b then"),
        (
            [_group("a", 1_000_000, 1_000_001, "int16"), _group("b", 1_000_000.5, 1_000_001.25)],
            r"a: bands 1,2,3, black 1000000,.*white 1000001,.*--range 1000000 1000001.25 --replace$",
        ),
        ([_group("a", 0, 1000, "int16"), _group("b", 0, 1200)], "with a common --range 0 1200 --replace$"),
        ([_group("a", 0, 255), _group("b", 0, 255, palette=True)], "write the colours of the palettes as three bands"),
        ([_group("a", 0, 255), _group("b", 0, 255, bands=(3, 2, 1))], "embed them again with the --bands of the same"),
    ],
)
def test_the_advice_fits_all_groups(groups: list[RadiometryGroup], advice: str) -> None:
    assert re.search(advice, radiometry_warning(groups))


def test_a_stretch_that_cannot_be_shared(store: ObjectStore, tiny_vit: Path, tmp_path: Path) -> None:
    raster = tmp_path / "palette.tif"
    with rasterio.open(
        raster, "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="uint8", crs="EPSG:32635",
        transform=Affine(10, 0, 500_000, 0, -10, 6_700_000),
    ) as file:  # fmt: skip
        file.write_colormap(1, {0: (1, 2, 3, 255)})
    model = Dinov3(model=str(tiny_vit), device="cpu")

    def embed(name: str) -> None:
        options = EmbedOptions(grid=Grid(size=SIDE), model=model, radiometry=Radiometry(stretch_of=name))
        embed_raster(store, str(raster), options)

    with pytest.raises(UsageError, match=r"there is no dataset 'drak' in .*: .*dark"):
        embed("drak")
    with pytest.raises(UsageError, match="only one of dataset 'dark' and this raster has the colours of a palette"):
        embed("dark")
    with pytest.raises(UsageError, match="give only one of `scale`, `range`, `percentile` and `stretch_of`"):
        Radiometry(stretch_of="dark", range=(0, 1))


def test_the_work_grows_with_the_groups_and_not_with_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scene of an archive may have its own percentiles. The pairs of 300 groups took seconds."""
    groups = [_group(f"scene-{number}", number, 4000 + number) for number in range(300)]
    read = []
    ends = radiometry_groups._ends

    def counted(radiometry: ResolvedRadiometry) -> list[tuple[float, float]]:
        read.append(radiometry)
        return ends(radiometry)

    monkeypatch.setattr(radiometry_groups, "_ends", counted)
    # By hand: this stretch covers 3850 of the 4000 values of the first and of the last scene. Others cover fewer.
    assert "embed all but scene-149 again with --stretch-of scene-149" in radiometry_warning(groups)
    assert 0 < len(read) <= 2 * len(groups)


@pytest.mark.parametrize("interpretations", [("blue", "green", "red"), ("nir", "red", "green")])
def test_bands_of_the_same_colours_in_another_order_bring_no_warning(
    interpretations: tuple[str, ...], store: ObjectStore, tiny_vit: Path, tmp_path: Path
) -> None:
    """The files have red, green and blue in different orders. `auto` finds the colours by their names."""
    with rasterio.open(Path(store.root).parent / "dark.tif") as file:
        pixels, profile = file.read(), file.profile
    raster = tmp_path / "other.tif"
    with rasterio.open(raster, "w", **(profile | {"photometric": "minisblack"})) as file:
        file.write(pixels[::-1])
        file.colorinterp = [ColorInterp[name] for name in interpretations]
    name, model = "-".join(interpretations), Dinov3(model=str(tiny_vit), device="cpu")
    same = interpretations[-1] == "red"
    shared = Radiometry(stretch_of="dark", bands="auto" if same else (3, 2, 1))
    embed_ready(store, str(raster), dataset_id=name, grid=Grid(size=SIDE), model=model, radiometry=shared)
    answer = ask(store, "dark", name)
    assert distance_of_the_same_pixels(answer, name) < 1e-6
    warnings = [note for note in answer.notes() if note.startswith("warning")]
    if same:
        assert warnings == []
    else:  # Green stands for red here, and near infrared for blue.
        assert "embed them again with the --bands of the same colours" in warnings[0]
