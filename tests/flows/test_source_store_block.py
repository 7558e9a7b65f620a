"""Read the settings of a source-store block. No test here needs a Prefect server."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from blocks import SourceStoreBlock
from blocks.object_store import open_store
from flows.embed_shards import embed_share
from flows.qa_report import qa_report
from flows.raster_embeddings import raster_embeddings
from flows.search_embeddings import search_embeddings
from rasterembed.errors import UsageError
from rasterembed.store.server_settings import SourceStore

SETTINGS: dict[str, Any] = {
    "endpoint_url": "https://data.example.org",
    "access_key": SecretStr("who"),
    "secret_key": SecretStr("hush"),
    "requester_pays": True,
    "https_hosts": ("data.example.org", "stac.internal:8443"),
    "https_private": True,
}


def test_a_block_gives_the_source_store_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> SourceStoreBlock:
        if name != "archive":
            raise ValueError(f"Unable to find block document named {name}")
        return SourceStoreBlock(**SETTINGS)

    monkeypatch.setattr(SourceStoreBlock, "load", load)
    store = open_store(str(tmp_path), None, "archive")
    assert store.root == str(tmp_path)
    assert store.source == SourceStore(**SETTINGS)
    assert open_store(str(tmp_path), None).source_store is None
    with pytest.raises(UsageError, match="source_store 'other': Unable to find block"):
        open_store(str(tmp_path), None, "other")


def test_the_block_hides_its_keys_and_checks_its_settings() -> None:
    assert "hush" not in repr(SourceStoreBlock(**SETTINGS))
    with pytest.raises(ValueError, match="the endpoint is not the URL of a server"):
        SourceStoreBlock(endpoint_url="data.example.org")


@pytest.mark.parametrize("flow", [raster_embeddings, embed_share, qa_report, search_embeddings])
def test_every_flow_that_reads_rasters_takes_a_source_store(flow: Any) -> None:
    assert "source_store" in inspect.signature(flow.fn).parameters
