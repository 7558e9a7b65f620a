"""Measure the explorer with a dataset of a million tiles, in a real browser and with several clients at once.

The command `rasterembed explore` runs as a process. Chromium runs headless on the same machine and draws WebGL without
a graphics card, so the browser takes more processor time here than on a desk. The raster has no pixels: map tiles of
imagery are transparent. The vectors are those of `benchmarks.vectors`.

- *First paint* is the browser's first contentful paint. *Map drawn* is the time until the map has nothing left to load.
  *Cold* is the first page of a new process of the service, which reads all tiles. *Warm* is the median of later pages.
- A *click* runs from the event of the mouse in the page to the second frame after the strip has got the tiles of the
  new answer. The first of these frames draws the cards with their texts. Their thumbnails are requests that follow, and
  are not counted. The marks on the map are not counted either: the map is drawn after the strip. Until the answer
  arrives, the service works. The rest is the browser.
- *Slowest request* is the longest time from the start of a request to the end of its answer, as the browser saw it,
  while a person pans and zooms.
- *Clients* are measured as by `benchmarks.explorer_clients`, without a browser.
- *Memory* is the resident memory of the service. *Anonymous* memory leaves out mapped files, whose pages the system can
  drop at any time.
"""

from __future__ import annotations

import random
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from playwright.sync_api import Browser, FloatRect, Page, Request

from benchmarks.explorer_clients import measure_rows
from benchmarks.harness import RESULTS, load, run, save, table
from benchmarks.search import DATASET_ID, build, part, write
from benchmarks.vectors import made_up_vectors
from tests.support.browsing import DESKTOP, chromium, watched_page
from tests.support.explorer import Explorer, build_page

NAME = "explorer"

GOALS = {"first_paint_s": 3.0, "click_p95_ms": 300.0, "slowest_request_ms": 500.0}
"""Goals of the explorer with a million tiles."""


def measure(
    *,
    rows: int = 1_000_000,
    pages: int = 3,
    clicks: int = 60,
    moves: int = 24,
    clients: int = 10,
    seconds: float = 20.0,
    scratch: Path | None = None,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Measure the explorer.

    Args:
        rows: Number of tiles.
        pages: Number of pages that are opened after the first one.
        clicks: Number of clicks on random places of the map.
        moves: Number of movements and zooms of the map.
        clients: Number of clients that search at the same time.
        seconds: Seconds in which the answers of the clients are measured.
        scratch: Folder for the dataset; by default a temporary folder.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    build_page()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        root = Path(folder)
        dataset = part(_write, root, rows)
        index = part(build, root, "flat")
        with Explorer(str(root / "store"), root / "service") as service, _Usage(service.pid) as usage:
            with chromium() as browser:
                found = _browse(browser, service, root, pages=pages, clicks=clicks, moves=moves)
            found["service"] = usage.now() | {"peak_mib": usage.peak_mib}
        found["clients"] = measure_rows(root / "store", (1, clients), seconds)
    return save(NAME, parameters, load_before, {"dataset": dataset, "index": index, **found}, results)


def _write(root: Path, rows: int) -> dict[str, Any]:
    return write(root, made_up_vectors(384), rows, "float32")


class _Usage:
    """Memory and processor time of a process. The memory is looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.peak_mib = 0.0

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.peak_mib = max(self.peak_mib, self.now()["rss_mib"])

    def __enter__(self) -> _Usage:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def now(self) -> dict[str, float]:
        """Return the memory in MiB, and the processor time of the process since its start in seconds."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        sizes = {name: int(kilobytes) / 1024 for name, kilobytes in re.findall(r"(Vm\w+|Rss\w+):\s+(\d+) kB", status)}
        times = self._process.cpu_times()
        return {
            "rss_mib": sizes["VmRSS"],
            "anonymous_mib": sizes["RssAnon"],
            "cpu_s": times.user + times.system,
        }


def _browse(browser: Browser, service: Explorer, root: Path, *, pages: int, clicks: int, moves: int) -> dict[str, Any]:
    """Open pages, click, pan and zoom. Return the times that the browser measured."""
    opened = []
    for _ in range(1 + pages):
        with _dataset_page(browser, service) as (_, times):
            opened.append(times)
    with _dataset_page(browser, service) as (page, _):
        clicked = [_click(page, place) for place in _places(clicks)]
        slowest, count = _move(page, moves)
    return {
        "cold": opened[0],
        "warm": {name: statistics.median(times[name] for times in opened[1:]) for name in opened[0]},
        "click_ms": _spread([shown for shown, _ in clicked]),
        "arrived_ms": _spread([arrived for _, arrived in clicked]),
        "slowest_request_ms": slowest["ms"],
        "slowest_request": slowest["path"],
        "requests_of_moves": count,
    }


@contextmanager
def _dataset_page(browser: Browser, service: Explorer) -> Iterator[tuple[Page, dict[str, float]]]:
    """Open the dataset in a new profile, and wait until the map is drawn. Yield the page and its times in seconds."""
    with watched_page(browser, service.url, viewport=DESKTOP) as (page, _):
        begun = time.monotonic()
        page.goto(f"{service.url}/?view=datasets/{DATASET_ID}")
        _wait_until_drawn(page)
        paint = page.evaluate("""() => performance.getEntriesByName("first-contentful-paint")[0].startTime / 1000""")
        yield page, {"first_paint_s": paint, "map_drawn_s": time.monotonic() - begun}


def _wait_until_drawn(page: Page) -> None:
    """Wait until the layers of the dataset are there, and the map has nothing left to load."""
    page.get_by_role("combobox", name="Colour of tiles").wait_for()
    page.wait_for_function("""() => document.querySelector('[aria-label="Map"]').ariaBusy === "false" """)


_CLICK = """
async ([x, y]) => {
    const names = () => [...document.querySelectorAll("[data-tile]")].map((hit) => hit.dataset.tile).join();
    const before = names();
    // The browser keeps only the first 250 requests. Without this, later clicks would find the request of an older one.
    performance.clearResourceTimings();
    const strip = document.querySelector("main");
    const shown = new Promise((resolve) => {
        const look = () => {
            const after = names();
            if (after === "" || after === before) return;
            observer.disconnect();
            requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now())));
        };
        const observer = new MutationObserver(look);
        observer.observe(strip, {subtree: true, childList: true, attributes: true, attributeFilter: ["data-tile"]});
    });
    const clicked = new Promise((resolve) =>
        addEventListener("click", (event) => resolve(event.timeStamp), {once: true, capture: true}));
    window.measured = Promise.all([clicked, shown]).then(([start, end]) => {
        const answers = performance.getEntriesByType("resource").filter(({name}) => name.endsWith("/click"));
        return [end - start, answers.at(-1).responseEnd - start];
    });
}
"""
"""Start to measure a click: from the event of the mouse to the frame after the strip has got other tiles."""


def _click(page: Page, place: tuple[float, float]) -> tuple[float, float]:
    """Click a place of the map. Return the milliseconds until the strip shows the answer, and until it has arrived.

    Args:
        page: the page.
        place: the place as shares of the width and the height of the visible part of the map.
    """
    box = _visible_map(page)
    point = box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"]
    page.evaluate(_CLICK, list(point))
    page.mouse.click(*point)
    shown, arrived = page.evaluate("() => window.measured")
    # A person looks at the answer. Its thumbnails are loaded meanwhile, and the next click is not in their way.
    page.wait_for_load_state("networkidle")
    return shown, arrived


def _visible_map(page: Page) -> FloatRect:
    """Return the part of the map above the strip: left and upper edge, width and height in CSS px."""
    box = page.locator(".map-visible").bounding_box()
    assert box is not None
    return box


def _places(count: int) -> Sequence[tuple[float, float]]:
    """Return random places in the middle of the visible part of the map, as shares of its width and height."""
    chance = random.Random(1)
    return [(chance.uniform(0.35, 0.65), chance.uniform(0.3, 0.7)) for _ in range(count)]


def _move(page: Page, moves: int) -> tuple[dict[str, Any], int]:
    """Pan and zoom, and return the slowest request and the number of requests."""
    requests: list[dict[str, Any]] = []

    def on_finished(request: Request) -> None:
        timing = request.timing
        requests.append({"ms": timing["responseEnd"], "path": urlsplit(request.url).path})

    page.on("requestfinished", on_finished)
    box = _visible_map(page)
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    chance = random.Random(2)
    for number in range(moves):
        page.mouse.move(*middle)
        if number % 3 == 2:
            page.mouse.wheel(0, -600 if number % 6 == 2 else 600)
        else:
            page.mouse.down()
            page.mouse.move(middle[0] + chance.uniform(-300, 300), middle[1] + chance.uniform(-200, 200), steps=8)
            page.mouse.up()
        page.wait_for_timeout(400)
    _wait_until_drawn(page)
    page.remove_listener("requestfinished", on_finished)
    return max(requests, key=lambda one: one["ms"]), len(requests)


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the largest value."""
    return {"p50": float(np.percentile(values, 50)), "p95": float(np.percentile(values, 95)), "max": max(values)}


def markdown(report: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    machine, cold, warm, service = (report[name] for name in ("machine", "cold", "warm", "service"))
    paint, click, slowest = GOALS["first_paint_s"], GOALS["click_p95_ms"], GOALS["slowest_request_ms"]
    rows = [
        ["first paint, cold", f"{cold['first_paint_s']:.2f} s", f"{paint:.0f} s"],
        ["first paint, warm", f"{warm['first_paint_s']:.2f} s", f"{paint:.0f} s"],
        ["map drawn, cold", f"{cold['map_drawn_s']:.2f} s", ""],
        ["map drawn, warm", f"{warm['map_drawn_s']:.2f} s", ""],
        ["click to strip, median", f"{report['click_ms']['p50']:.0f} ms", ""],
        ["click to strip, 95 %", f"{report['click_ms']['p95']:.0f} ms", f"{click:.0f} ms"],
        ["of it until the answer arrives, median", f"{report['arrived_ms']['p50']:.0f} ms", ""],
        ["of it until the answer arrives, 95 %", f"{report['arrived_ms']['p95']:.0f} ms", ""],
        [
            f"slowest of {report['requests_of_moves']} requests while panning and zooming",
            f"{report['slowest_request_ms']:.0f} ms",
            f"{slowest:.0f} ms",
        ],
        ["memory of the service, largest", f"{service['peak_mib']:,.0f} MiB", ""],
        ["of it anonymous, at the end", f"{service['anonymous_mib']:,.0f} MiB", ""],
    ]
    for number, one in report["clients"]["clients"].items():
        name = "1 client" if number == "1" else f"{number} clients at once"
        rows.append([f"{name}: answer, median", f"{one['median_ms']:,.0f} ms", ""])
        rows.append([f"{name}: answer, 95 %", f"{one['p95_ms']:,.0f} ms", ""])
        rows.append([f"{name}: answers a second", f"{one['per_s']:.1f}", ""])
        rows.append([f"{name}: processor time of the service for an answer", f"{one['service_cpu_ms']:,.0f} ms", ""])
    return (
        f"{report['dataset']['rows']:,} tiles, 384 dimensions, index `flat`; {machine['processor']}, "
        f"{machine['cores']} cores, load before {machine['load_before']}.\n\n{table(['', 'measured', 'goal'], rows)}"
    )


if __name__ == "__main__":
    run(measure, markdown)
