"""The sources of the page: their types, and their own tests."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from shapely.geometry import Point, shape

from tests.conftest import PROJECT
from tests.support.explorer import build_page, install

PAGE = PROJECT / "rasterembed/explorer/page"


def test_no_package_asks_for_a_newer_node_than_the_documents() -> None:
    engines = json.loads((PAGE / "package.json").read_text())["engines"]["node"]
    least = int(engines.removeprefix(">="))
    packages = json.loads((PAGE / "package-lock.json").read_text())["packages"]
    asked = {name: one["engines"]["node"] for name, one in packages.items() if "node" in one.get("engines", {})}
    newer = {name: text for name, text in asked.items() if int(re.findall(r"\d+", text)[0]) > least}
    assert len(asked) > 20
    assert not newer
    for file in ("Makefile", "docs/explorer.md", "rasterembed/explorer/page_files.py"):
        assert f"Node.js {least} or newer" in " ".join((PROJECT / file).read_text().replace('"', "").split())


@pytest.mark.slow
def test_the_page_has_no_wrong_type_and_passes_its_tests() -> None:
    install("npm", "nodejs", "npm")
    commands = [["npm", "run", "check"], ["npm", "test"]]
    if not (PAGE / "node_modules").is_dir():
        commands.insert(0, ["npm", "ci", "--no-audit", "--no-fund"])
    for command in commands:
        done = subprocess.run(command, cwd=PAGE, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}"


@pytest.mark.slow
def test_the_base_map_has_land_and_lakes_where_they_are() -> None:
    (file,) = (build_page() / "assets").glob("land-*.json")
    shapes = {
        feature["properties"]["kind"]: shape(feature["geometry"])
        for feature in json.loads(file.read_text())["features"]
    }
    land = shapes["land"]
    for polygon in land.geoms:
        west, _, east, _ = polygon.bounds
        assert -180 <= (west + east) / 2 <= 180
        # A map draws a lake that lies outside its land as a stripe across the sea.
        assert all(polygon.envelope.contains(Point(lake.coords[0])) for lake in polygon.interiors)
    on_land = {"Paris": (2.4, 48.9), "Moscow": (37.6, 55.8), "Nairobi": (36.8, -1.3), "Denver": (-105.0, 39.7)}
    on_water = {"Atlantic": (-35.0, 45.0), "Pacific": (-160.0, 50.0), "Caspian Sea": (51.0, 41.0)}
    assert {name for name, place in (on_land | on_water).items() if land.contains(Point(place))} == set(on_land)
