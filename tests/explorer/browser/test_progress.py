"""A run that is under way: its card follows it without a reload of the page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from rasterembed.dataset.listing import find_datasets, read_unfinished_plan
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.lease import hold_lease
from tests.explorer.browser.conftest import OpenPage
from tests.support.explorer import Explorer
from tests.support.explorer_stores import Archive

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ID = "unfinished"


def test_the_card_of_a_run_follows_its_shards(opened: OpenPage, archive: Archive, tmp_path: Path) -> None:
    copy, layout = Archive(tmp_path / "copy"), DatasetLayout(ID)
    shutil.copytree(archive.root / "datasets" / ID, copy.root / "datasets" / ID)
    shutil.copytree(archive.root / layout.shards_folder, copy.root / layout.shards_folder)
    _, key = find_datasets(copy.store).unfinished[ID]
    plan = read_unfinished_plan(copy.store, ID, key)
    assert plan is not None
    with Explorer(str(copy.root), tmp_path / "service") as service:
        explored = opened(service)
        with hold_lease(copy.store, layout, "run", wait_s=0, on_wait=print):
            explored.open()
            card = explored.card(ID)
            expect(card).to_contain_text("Running")
            expect(card).to_contain_text("1 of 2 shards done")
            expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "1")
            copy.store.write(layout.shard(plan.fingerprint, 1), b"the second shard")
            expect(card).to_contain_text("2 of 2 shards done")
        expect(card).to_contain_text("Unfinished")
        expect(card).to_contain_text("the same command continues it")
        explored.page.close()
