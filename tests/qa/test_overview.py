"""The overview of a store: one row for each dataset, what needs attention first, and no text of a file as HTML."""

from __future__ import annotations

import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from rasterembed.commands.dataset_texts import describe
from rasterembed.commands.qa_overview import qa_overview
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.overview import read_all, summary
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import noise_raster
from tests.support.pictures import plain_pictures

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Path:
    """Return a store with one ready dataset `a-ready` of four tiles."""
    folder = tmp_path_factory.mktemp("overview")
    noise_raster(folder / "scene.tif")
    options = EmbedOptions(dataset_id="a-ready", grid=Grid(size=64), model=Dinov3(model=str(tiny_vit)))
    with plain_pictures():
        embed_raster(ObjectStore(root=str(folder / "store")), str(folder / "scene.tif"), options)
    return folder / "store"


def _copy(root: Path, name: str, **manifest: object) -> None:
    """Copy the manifest of `a-ready` to another dataset, with changed fields, and with the keys of that dataset."""
    content = json.loads((root / "datasets/a-ready/manifest.json").read_bytes())
    text = json.dumps(content | manifest).replace("a-ready", name)
    if "fingerprint" in manifest:
        text = text.replace(content["fingerprint"][:12], str(manifest["fingerprint"])[:12])
    (root / "datasets" / name).mkdir()
    (root / "datasets" / name / "manifest.json").write_text(text)


def _copy_report(root: Path, name: str, **report: object) -> None:
    """Copy the report of `a-ready` to another dataset, with changed fields."""
    content = json.loads((root / "qa/a-ready/report.json").read_bytes())
    (root / "qa" / name).mkdir()
    (root / "qa" / name / "report.json").write_text(json.dumps(content | {"dataset_id": name} | report))


@pytest.fixture
def root(good: Path, tmp_path: Path) -> Path:
    """Return a store with datasets in every state, and with hostile names and texts."""
    root = Path(shutil.copytree(good, tmp_path / "store"))
    _copy(root, "z-failed", state="failed_qa")
    metrics = json.loads((root / "qa/a-ready/report.json").read_bytes())["metrics"]
    metrics[0] |= {"name": EVIL, "status": "breached", "value": 7}
    _copy_report(root, "z-failed", metrics=metrics, passed=False)
    _copy(root, "new", state="embedded")
    _copy(root, "changed", fingerprint="0" * 64)
    _copy_report(root, "changed")
    _copy(root, "broken", rows=EVIL)
    _copy(root, EVIL.replace("/", "-"))
    return root


class _Page(HTMLParser):
    """Collects the cells of the rows, the links, and the names of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.elements: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_the_page_has_a_row_for_each_dataset_and_trouble_comes_first(root: Path) -> None:
    text = qa_overview(str(root))
    assert text == f"6 datasets: 2 ready, 1 embedded, 1 failed_qa, 2 unreadable\npage: {root}/qa-overview.html"
    page = _Page((root / "qa-overview.html").read_text())
    rows = {row[0]: row for row in page.rows[1:]}
    assert list(rows) == [EVIL.replace("/", "-"), "broken", "z-failed", "new", "a-ready", "changed"]
    assert rows["a-ready"][1:6] == ["ready", "4", "4", "0", "1"]
    assert rows["a-ready"][6] == "15 passed, 8 not judged"
    assert rows["z-failed"][6].startswith(f"breached: {EVIL} 7 (max 0), 14 passed")
    assert rows["new"][6] == "not checked yet"
    assert rows["changed"][6] == "the report is of an earlier configuration: check again"
    assert rows["broken"][1] == "unreadable"
    assert "is not allowed" in rows[EVIL.replace("/", "-")][6]
    assert "script" not in page.elements
    assert "qa/a-ready/report.md" in page.links
    for link in page.links:
        assert (root / link).exists() or "z-failed" in link


def test_a_report_that_is_no_file_concerns_its_own_row_only(root: Path) -> None:
    (root / "qa/new").mkdir()
    os.mkfifo(root / "qa/new/report.json")
    (root / "datasets/a-ready/loop").symlink_to("loop")
    qa_overview(str(root))
    rows = {row[0]: row for row in _Page((root / "qa-overview.html").read_text()).rows[1:]}
    assert rows["new"][1] == "embedded"
    assert rows["new"][6] == f"unreadable report: {root}/qa/new/report.json: it is not a file"
    assert rows["a-ready"][6] == "15 passed, 8 not judged"


def test_a_page_elsewhere_links_to_the_store(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "quality.html"
    assert qa_overview(str(root), out).endswith(f"page: {out}")
    links = _Page(out.read_text()).links
    assert Path(unquote(urlsplit(links[-1]).path)).parent == root / "qa/a-ready"
    assert not (root / "qa-overview.html").exists()


def test_a_page_never_replaces_a_file_of_a_dataset(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = root / "datasets/a-ready/manifest.json"
    before = manifest.read_bytes()
    (tmp_path / "link").symlink_to(manifest)
    monkeypatch.chdir(root.parent)
    for out in (manifest, Path("store/datasets/a-ready/manifest.json"), Path("store/qa/new.html"), tmp_path / "link"):
        with pytest.raises(UsageError, match="belongs to datasets"):
            qa_overview(str(root), out)
    assert manifest.read_bytes() == before
    assert qa_overview("store", Path("store/page.html")).endswith("page: store/page.html")


def test_a_file_in_a_folder_that_does_not_exist_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nodir/x\.html: there is no folder .*/nodir"):
        qa_overview(str(root), tmp_path / "nodir/x.html")
    with pytest.raises(UsageError, match="it is a folder: give the name of a file"):
        qa_overview(str(root), tmp_path)


def test_a_root_that_does_not_exist_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere: check the root"):
        qa_overview(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_store_without_datasets_has_an_empty_page(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert qa_overview(str(tmp_path / "store")).startswith("0 datasets\n")
    assert summary(read_all(ObjectStore(root=str(tmp_path / "store")))) == "0 datasets"


def _row(root: Path, name: str) -> list[str]:
    qa_overview(str(root))
    return next(row for row in _Page((root / "qa-overview.html").read_text()).rows if row[0] == name)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("metrics", 3, "value"), float("inf"), "metrics.3.value: the number is not finite"),
        (("metrics", 3, "threshold"), float("nan"), "metrics.3.threshold: the number is not finite"),
        (("norm", "quantiles", "p50"), float("-inf"), "norm.quantiles.p50: the number is not finite"),
        (("explained", 1), float("nan"), "explained.1: the number is not finite"),
        (("metrics", 0, "value"), 10**4000, "metrics.0.value: the number is impossible"),
        (("thresholds", "max_tiles_missing"), 10**30, "thresholds.max_tiles_missing: the number is impossible"),
        (("thresholds", "max_norm_ratio"), float("inf"), "thresholds.max_norm_ratio: Input should be a finite number"),
        (("counts", "planned"), 10**30, "counts.planned: Input should be less than or equal to"),
        (("counts", "rows"), -1, "counts.rows: Input should be greater than or equal to 0"),
        (("dimensions",), "many", "dimensions: Input should be a valid integer"),
        (("norm",), [], "norm: Input should be"),
        (("dataset_id",), "another", "dataset_id: it is another dataset's report"),
    ],
)
def test_an_impossible_value_in_a_report_is_named_in_one_line(
    place: tuple[str | int, ...], value: object, reason: str, good: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(good, tmp_path / "store"))
    path = root / "qa/a-ready/report.json"
    content = owner = json.loads(path.read_bytes())
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = value
    path.write_text(json.dumps(content))
    found = _row(root, "a-ready")[6]
    assert found.startswith(f"unreadable report: {path}: this version cannot read the report ({reason}")
    assert found.endswith("): check the quality of the dataset again")
    assert len(found.splitlines()) == 1
    store = ObjectStore(root=str(root))
    facts = describe(Dataset.open(store, "a-ready")).splitlines()
    assert f"quality checks: {found.removeprefix('unreadable report: ')}" in facts


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_threshold_is_a_finite_number(number: float) -> None:
    """A report with another number could not be read again."""
    with pytest.raises(UsageError, match="finite number"):
        QaThresholds(max_norm_ratio=number)
    with pytest.raises(UsageError, match="finite number"):
        QaThresholds(min_neighbour_z=number)
