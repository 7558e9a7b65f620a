"""States in which something is missing: an empty store, a store that is away, a service that starts again, a token."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.query import Query
from tests.explorer.browser.conftest import OpenPage
from tests.explorer.browser.explorer_page import ExplorerPage
from tests.support.explorer import Explorer
from tests.support.explorer_stores import Archive
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

TOKEN = "no/real+token of 32 letters, for tests"


@pytest.fixture(scope="module")
def copied(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """A store that these tests may move away: a copy with the collection alone."""
    copy = Archive(tmp_path_factory.mktemp("away"))
    for folder in ("datasets", "embeddings", "tiles", "qa"):
        shutil.copytree(archive.root / folder, copy.root / folder, ignore=_all_but("survey--"))
    shutil.copytree(archive.root / "collections", copy.root / "collections")
    return copy


def _all_but(prefix: str) -> Callable[[str, list[str]], list[str]]:
    def ignore(folder: str, names: list[str]) -> list[str]:
        is_top = Path(folder).parent.name == "store"
        return [name for name in names if is_top and not name.startswith(prefix)]

    return ignore


@pytest.fixture(scope="module")
def own_service(copied: Archive) -> Iterator[Explorer]:
    """A service that these tests may stop. Its store needs a token."""
    with Explorer(
        str(copied.root),
        copied.folder / "service",
        environment={"EXPLORER_TOKEN": TOKEN},
        token=TOKEN,
    ) as running:
        yield running


def _sign_in(explored: ExplorerPage) -> None:
    explored.page.get_by_label("Token").fill(TOKEN)
    explored.page.get_by_role("button", name="Sign in").click()


def test_an_empty_store_says_how_to_fill_it(opened: OpenPage, browser: object, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with Explorer(str(tmp_path / "store"), tmp_path / "service") as service:
        explored = opened(service)
        explored.open()
        expect(explored.page.get_by_text("rasterembed embed")).to_be_visible()
        explored.page.close()


def test_a_token_is_asked_for_and_a_wrong_one_is_refused(opened: OpenPage, own_service: Explorer) -> None:
    explored = opened(own_service)
    explored.watch.expect("status of 401", r"status 40[13]")
    explored.open("collections/survey", wait=False)
    explored.page.get_by_label("Token").fill("a wrong token, which is refused")
    explored.page.get_by_role("button", name="Sign in").click()
    expect(explored.page.get_by_role("alert")).to_be_visible()
    _sign_in(explored)
    expect(explored.page.get_by_role("heading", name="survey")).to_be_visible()
    # The sign-in led back to the view of the URL, and no address and no script holds the token.
    explored.expect_url(view="collections/survey")
    assert TOKEN not in explored.page.evaluate("location.href + document.cookie + JSON.stringify({...localStorage})")
    assert own_service.get("/api/store").status_code == 200
    own_service.token, token = None, own_service.token
    assert own_service.get("/api/store").status_code == 401
    own_service.token = token
    explored.page.get_by_role("button", name="Sign out").click()
    expect(explored.page.get_by_label("Token")).to_be_visible()
    explored.page.goto(own_service.url)
    expect(explored.page.get_by_label("Token")).to_be_visible()


def test_the_page_survives_a_restart_of_the_service_and_a_store_that_is_away(
    opened: OpenPage, own_service: Explorer, copied: Archive
) -> None:
    explored = opened(own_service)
    explored.watch.expect("ERR_CONNECTION_REFUSED", "ERR_SOCKET", "ERR_EMPTY_RESPONSE", r"status (of )?(401|422|50\d)")
    explored.open(wait=False)
    _sign_in(explored)
    expect(explored.card("survey")).to_be_visible()
    # The first map shows the places of the store: the generated landscape lies near 24.9 E, 60.2 N.
    lon, lat, zoom = explored.position
    assert (round(lon, 1), round(lat, 1)) == (24.9, 60.2)
    assert 4 < zoom < 8
    explored.card("survey").click()
    explored.wait_until_open()
    explored.wait_until_drawn()
    with CollectionSearcher(copied.store, "survey") as searcher:
        hit = searcher.ask(
            Query(lonlat=explored.centre),
            k=1,
        ).hits[0]
        answer = searcher.ask(Query(tile=f"{hit.dataset_id}/{hit.tile_id}"), k=24)
    assert hit.lon is not None
    assert hit.lat is not None

    own_service.stop()
    expect(explored.page.get_by_text("The service does not answer").first).to_be_visible()
    own_service.start()
    expect(explored.page.get_by_text("The service does not answer")).to_have_count(0, timeout=60_000)

    away = copied.root.with_name("away")
    copied.root.rename(away)
    # The service remembers a store and a view for a moment.
    for path in ("/api/store", "/api/collections/survey"):
        wait_for(lambda path=path: own_service.get(path).is_error, f"an error of {path}")
    explored.page.get_by_role("button", name="All datasets and collections").click()
    explored.page.reload()
    expect(explored.page.get_by_role("alert")).to_contain_text("tries again by itself")
    expect(explored.page.get_by_role("alert")).to_have_count(1)
    away.rename(copied.root)
    expect(explored.card("survey")).to_be_visible()
    explored.open("collections/survey", tile=f"{hit.dataset_id}/{hit.tile_id}")
    explored.expect_hits(answer)
