"""Read the source store of a command from environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasterembed.command_line.command_store import open_command_store
from rasterembed.errors import UsageError
from rasterembed.store.server_settings import SourceStore


def test_the_variables_give_the_source_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_command_store(str(tmp_path)).source_store is None
    monkeypatch.setenv("RASTEREMBED_SOURCE_ENDPOINT_URL", "https://data.example.org")
    monkeypatch.setenv("RASTEREMBED_SOURCE_ANONYMOUS", "YES")
    monkeypatch.setenv("RASTEREMBED_SOURCE_REGION", "")
    monkeypatch.setenv("RASTEREMBED_SOURCE_HTTPS_HOSTS", "Data.example.org, stac.internal:8443")
    store = open_command_store(str(tmp_path))
    assert store.root == str(tmp_path)
    assert store.source == SourceStore(
        endpoint_url="https://data.example.org",
        anonymous=True,
        https_hosts=("data.example.org", "stac.internal:8443"),
    )


def test_a_wrong_variable_is_named_without_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASTEREMBED_SOURCE_ANONYMOUS", "perhaps")
    with pytest.raises(UsageError, match=r"RASTEREMBED_SOURCE_ANONYMOUS: give yes or no$") as caught:
        open_command_store(str(tmp_path))
    assert "perhaps" not in str(caught.value)
    monkeypatch.delenv("RASTEREMBED_SOURCE_ANONYMOUS")
    monkeypatch.setenv("RASTEREMBED_SOURCE_SECRET_KEY", "hush")
    with pytest.raises(UsageError, match=r"RASTEREMBED_SOURCE_.*one of access_key and secret_key is missing") as caught:
        open_command_store(str(tmp_path))
    assert "hush" not in str(caught.value)
    monkeypatch.setenv("RASTEREMBED_SOURCE_HTTPS_HOSTS", "*.example.org")
    with pytest.raises(UsageError, match=r"RASTEREMBED_SOURCE_HTTPS_HOSTS: .*is no host"):
        open_command_store(str(tmp_path))


def test_a_misspelt_variable_is_refused_with_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASTEREMBED_SOURCE_ANONYMUS", "YES")
    with pytest.raises(
        UsageError, match="RASTEREMBED_SOURCE_ANONYMUS: there is no such variable: use RASTEREMBED_SOURCE_ANONYMOUS, "
    ):
        open_command_store(str(tmp_path))
