"""The page of the explorer as a person uses it: open a view, click a place, read the strip."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from PIL import Image
from playwright.sync_api import FloatRect, Locator, Page, expect

from rasterembed.search.answer import Answer, Hit
from tests.support.browsing import Watch
from tests.support.explorer import Explorer
from tests.support.waiting import wait_for

LARGEST_PICTURE = 300_000
"""Largest size of a picture in the documents, in bytes."""


class ExplorerPage:
    """A page of the explorer in the browser."""

    def __init__(self, page: Page, watch: Watch, service: Explorer) -> None:
        self.page, self.watch, self.service = page, watch, service

    # --- opening ---

    def open(
        self,
        view: str | None = None,
        *,
        at: tuple[float, float, float] | None = None,
        wait: bool = True,
        **state: str,
    ) -> None:
        """Open the page with a state in its URL.

        Args:
            view: `datasets/ID` or `collections/ID`.
            at: longitude and latitude of the map's centre in degrees, and zoom.
            wait: wait until the map is drawn. A view with a problem has no map.
            state: other parameters of the URL.
        """
        values = ({} if view is None else {"view": view}) | state
        if at is not None:
            values["at"] = ",".join(map(str, at))
        self.page.goto(f"{self.service.url}/?{urlencode(values)}")
        if wait:
            if view is not None:
                self.wait_until_open()
            self.wait_until_drawn()

    def wait_until_open(self) -> None:
        """Wait until the page knows the details of the view."""
        expect(self.page.get_by_role("combobox", name="Colour of tiles")).to_be_attached()

    def wait_until_drawn(self) -> None:
        """Wait until the map has nothing left to load or to draw."""
        self.wait_for_frames()
        expect(self.map).to_have_attribute("aria-busy", "false")
        self.wait_for_frames()

    def wait_for_frames(self) -> None:
        """Wait until the browser has drawn what the page has changed. The map draws a change in the next frame."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def card(self, name: str) -> Locator:
        """Return the card of a dataset or a collection in the list."""
        return self.page.get_by_role("list").get_by_role("button").filter(has=self.page.get_by_text(name, exact=True))

    @property
    def url_state(self) -> dict[str, list[str]]:
        """The parameters of the page's URL. It follows the page a little later: see `expect_url`."""
        return parse_qs(urlsplit(self.page.url).query)

    def expect_url(self, **parameters: str | None) -> None:
        """Wait until the page's URL has parameters with these values. It lacks a parameter whose value is None."""
        expected = {name: None if value is None else [value] for name, value in parameters.items()}

        def has_all(url: str) -> bool:
            found = parse_qs(urlsplit(url).query)
            return all(found.get(name) == value for name, value in expected.items())

        self.page.wait_for_url(has_all)

    # --- the map ---

    @property
    def position(self) -> tuple[float, float, float]:
        """Longitude and latitude of the map's centre in degrees, and zoom, from the page's URL."""
        expect(self.page).to_have_url(re.compile("[?&]at="))
        lon, lat, zoom = map(float, self.url_state["at"][0].split(","))
        return lon, lat, zoom

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the map's centre in degrees."""
        return self.position[:2]

    @property
    def map(self) -> Locator:
        return self.page.get_by_role("application", name="Map")

    def on_screen(self, lon: float, lat: float) -> tuple[float, float]:
        """Return the position of a place in the window, in CSS px, by the formula of Web Mercator.

        The URL must hold the map's position.
        """
        centre_lon, centre_lat, zoom = self.position
        box = self.map.bounding_box()
        assert box is not None
        world = 512 * 2**zoom
        # The shorter way around the Earth.
        east = (lon - centre_lon + 180) % 360 - 180
        x = box["x"] + box["width"] / 2 + east / 360 * world
        y = box["y"] + box["height"] / 2 + (_mercator(centre_lat) - _mercator(lat)) * world / (2 * math.pi)
        return x, y

    def place_at(self, x: float, y: float) -> tuple[float, float]:
        """Return longitude and latitude of a position in the window, which is in CSS px. It undoes `on_screen`."""
        centre_lon, centre_lat, zoom = self.position
        box = self.map.bounding_box()
        assert box is not None
        world = 512 * 2**zoom
        lon = centre_lon + (x - box["x"] - box["width"] / 2) / world * 360
        height = _mercator(centre_lat) - (y - box["y"] - box["height"] / 2) / world * 2 * math.pi
        return lon, math.degrees(2 * math.atan(math.exp(height)) - math.pi / 2)

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Wait after the block until the map has moved. The URL follows the map."""
        before = self.url_state["at"]
        yield
        self.page.wait_for_url(lambda url: parse_qs(urlsplit(url).query)["at"] != before)
        self.wait_until_drawn()

    @property
    def visible(self) -> FloatRect:
        """The part of the map that no strip and no sheet covers, in CSS px of the window."""
        box = self._visible_map.bounding_box()
        assert box is not None
        return box

    @property
    def visible_middle(self) -> tuple[float, float]:
        """Position of the middle of the visible part of the map in the window, in CSS px."""
        box = self.visible
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def is_visible(self, lon: float, lat: float, margin: float = 0.0) -> bool:
        """Return whether a place is in the visible part of the map, at least `margin` CSS px from its edges."""
        (x, y), box = self.on_screen(lon, lat), self.visible
        left, top = x - box["x"], y - box["y"]
        return margin <= left <= box["width"] - margin and margin <= top <= box["height"] - margin

    def map_picture(self) -> bytes:
        """Return the visible part of the map as a PNG file."""
        return self._visible_map.screenshot()

    def expect_other_map(self, picture: bytes) -> bytes:
        """Wait until the visible part of the map differs from a picture of it, and return its new picture."""
        return bytes(wait_for(lambda: (now := self.map_picture()) != picture and now, "another picture of the map", 30))

    @property
    def _visible_map(self) -> Locator:
        return self.page.locator(".map-visible")

    def click_place(self, lon: float, lat: float) -> None:
        """Click a place on the visible part of the map."""
        assert self.is_visible(lon, lat), f"nobody can click {lon}, {lat}: the map shows {self.visible}"
        self.page.mouse.click(*self.on_screen(lon, lat))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the mouse from one place on the map to another."""
        self.page.mouse.move(*self.on_screen(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.on_screen(*end), steps=5)
        self.page.mouse.up()

    def drop_file(self, file: Path) -> None:
        """Drop a file on the page, as from the system's file manager."""
        data = self.page.evaluate_handle(
            """([bytes, name]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
                return data;
            }""",
            [list(file.read_bytes()), file.name],
        )
        for event in ("dragenter", "dragover", "drop"):
            self.map.dispatch_event(event, {"dataTransfer": data})

    # --- the strip ---

    @property
    def hits(self) -> Locator:
        """The tiles in the strip."""
        return self.page.locator("[data-tile]")

    def expect_hits(self, answer: Answer) -> None:
        """Wait until the strip shows exactly the tiles of an answer, in their order."""
        expect(self.hits).to_have_count(len(answer.hits))
        for number, hit in enumerate(answer.hits):
            expect(self.hits.nth(number)).to_have_attribute("data-tile", name_of(hit))

    def hit_names(self) -> list[str]:
        """Return the names of the tiles in the strip, as `dataset/tile`."""
        return [hit.get_attribute("data-tile") or "" for hit in self.hits.all()]

    def download(self, kind: str, folder: Path) -> Path:
        """Download the answer in a format, as the dialog names it, and return the file."""
        self.page.get_by_role("button", name="Export").click()
        dialog = self.page.get_by_role("dialog")
        if kind == "Python":
            dialog.get_by_role("button", name="Show the Python program").click()
        with self.page.expect_download() as started:
            dialog.get_by_role("button", name=f"Download {kind}").click()
        file = folder / started.value.suggested_filename
        started.value.save_as(file)
        self.page.keyboard.press("Escape")
        expect(dialog).not_to_be_visible()
        return file

    # --- pictures ---

    def picture(self, file: Path) -> None:
        """Write the window as a WebP file, which is smaller than 300 kB."""
        self.wait_until_drawn()
        # Pictures of tiles fade in.
        self.page.evaluate("() => Promise.all(document.getAnimations().map((animation) => animation.finished))")
        with Image.open(io.BytesIO(self.page.screenshot())) as image:
            image.save(file, quality=82, method=6)
        assert file.stat().st_size < LARGEST_PICTURE, f"{file.name} has {file.stat().st_size} bytes"


def name_of(hit: Hit) -> str:
    """Return the name of a tile as the page writes it."""
    return f"{hit.dataset_id}/{hit.tile_id}"


def place_of(hit: Hit) -> tuple[float, float]:
    """Return longitude and latitude of the middle of a tile, degrees."""
    assert hit.lon is not None
    assert hit.lat is not None
    return hit.lon, hit.lat


def exact(text: str) -> re.Pattern[str]:
    """Return a pattern for a whole text."""
    return re.compile(f"^{re.escape(text)}$")


def _mercator(lat: float) -> float:
    """Return the y of Web Mercator for a sphere of radius 1."""
    return math.log(math.tan(math.pi / 4 + math.radians(lat) / 2))
