"""The Prefect UI in a browser: the form of a run, and a finished run with its artifacts.

With SCREENSHOTS set to a folder, the pictures for the documents are written there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from examples.landscape import make_scene
from tests.support.deployed import Runs, deploy, worker
from tests.support.explorer import install
from tests.support.http import request
from tests.support.prefect_server import PrefectServer, prefect_server
from tests.support.servers import S3Server
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Browser:
    """Headless Chromium, a fresh profile a page."""

    command: str
    folder: Path

    def _open(self, url: str, *options: str) -> str:
        profile = f"--user-data-dir={self.folder / 'profile'}"
        # the sandbox does not start as root
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", profile)
        # virtual time runs on until the page's requests have been answered
        command = [self.command, *flags, "--virtual-time-budget=30000", "--window-size=1280,1600", *options, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def content(self, url: str) -> str:
        """Return the page after its scripts have run."""
        return self._open(url, "--dump-dom")

    def picture(self, url: str, file: Path) -> None:
        """Write the page as a PNG."""
        self._open(url, f"--screenshot={file}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """Chromium, installed from Debian's packages where this is root."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None) or install("chromium", "chromium")
    return Browser(found, tmp_path_factory.mktemp("browser"))


@dataclass(frozen=True)
class Finished:
    """A server, and a run on it that ended well."""

    ui: str
    run: UUID
    deployment: UUID
    collections: UUID
    """The deployment of `embed-collection`."""


@pytest.fixture(scope="module")
def finished(moto: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("ui")
    make_scene(folder, width=2000, height=2000)
    for bucket in ("rasters", "datasets"):
        moto.create_bucket(bucket)
    moto.client().upload_file(str(folder / "scene.tif"), "rasters", "scene.tif")
    with prefect_server(few_certificates=True) as server:
        names = ("raster-embeddings/embed-process", "embed-collection/collection-process")
        deploy(server, *names, RASTER_ROOT="s3://datasets", **moto.environment())
        with worker(server, "process", folder):
            runs = Runs(server)
            created = runs.create(
                "raster-embeddings/embed-process", raster="s3://rasters/scene.tif", dataset_id="scene"
            )
            ended = runs.wait(created.id)
            assert ended.state_name == "Completed", ended.state
        # the rows of task runs arrive late
        wait_for(lambda: _tasks(server, created.id) >= 5, "five completed tasks", timeout=400)
        assert ended.deployment_id is not None
        named = f"{server.api_url}/deployments/name/embed-collection/collection-process"
        collections = UUID(request("GET", named, timeout=30).raise_for_status().json()["id"])
        yield Finished(server.api_url.removesuffix("/api"), created.id, ended.deployment_id, collections)


def _tasks(server: PrefectServer, run: UUID) -> int:
    wanted = {"flow_runs": {"id": {"any_": [str(run)]}}, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    return int(request("POST", f"{server.api_url}/task_runs/count", json=wanted, timeout=30).json())


def _keep(browser: Browser, url: str, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        browser.picture(url, Path(folder) / name)


def test_the_run_form_shows_every_parameter_with_its_description(browser: Browser, finished: Finished) -> None:
    url = f"{finished.ui}/v2/deployments/deployment/{finished.deployment}/run"
    page = browser.content(url)
    for text in (
        "raster",
        "worker_deployment",
        "Min Valid Fraction",
        "Path or s3://bucket/key of a raster or of a STAC Item.",
        "Number of child runs that share the work. With 0, this run computes all shards.",
        "Side of a tile",
    ):
        assert text in page, text
    _keep(browser, url, "run-form.png")


def test_the_form_of_a_collection_shows_its_groups_with_their_descriptions(
    browser: Browser, finished: Finished
) -> None:
    url = f"{finished.ui}/v2/deployments/deployment/{finished.collections}/run"
    page = browser.content(url)
    for text in (
        "collection",
        "Name of the collection. A collection that does not exist is made.",
        "Search of a STAC API as JSON",
        "Delete the datasets of scenes that are gone.",
        "collection_thresholds",
        "Side of a tile",
    ):
        assert text in page, text
    _keep(browser, url, "collection-form.png")


def test_a_finished_run_shows_its_tasks_and_artifacts(browser: Browser, finished: Finished) -> None:
    url = f"{finished.ui}/v2/runs/flow-run/{finished.run}"
    page = browser.content(url)
    assert "Completed" in page
    _keep(browser, url, "finished-run.png")
    tab = f"{url}?tab=Artifacts"
    artifacts = browser.content(tab)
    assert "dataset-scene" in artifacts
    assert "tiles-scene" in artifacts
    _keep(browser, tab, "artifacts.png")
