"""The blocks of a deployment: their fields are the library's, and blocks that 0.1 saved can still be loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block

from blocks import Dinov3Weights, ObjectStoreBlock, SourceStoreBlock
from blocks.object_store import open_store
from rasterembed.errors import UsageError
from rasterembed.store.object_store import StoreSettings
from rasterembed.store.server_settings import SourceStore
from tests.conftest import PROJECT
from tests.docs.blocks import blocks as code_blocks
from tests.support.prefect_server import PrefectServer

SAVE_AS_0_1_DID = """
from prefect.blocks.core import Block
from pydantic import Field, SecretStr

class ObjectStoreBlock(Block):
    _block_type_name = "Object Store"
    _block_type_slug = "object-store"
    root: str
    endpoint_url: str | None = None
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    region: str = Field(default="us-east-1", description="Region of the bucket.")
    path_style: bool = True

ObjectStoreBlock(
    root="s3://old/prefix", endpoint_url="http://minio:9000", access_key=SecretStr("who"), secret_key=SecretStr("hush")
).save("from-0-1")
"""


def test_the_block_has_the_fields_of_a_store() -> None:
    for name, field in StoreSettings.model_fields.items():
        assert ObjectStoreBlock.model_fields[name].default == field.default
        assert ObjectStoreBlock.model_fields[name].description == field.description
    block = ObjectStoreBlock(root="s3://bucket/prefix")
    assert block.region is None  # so that AWS_REGION of the process that opens the store counts
    store = block.store()
    assert store.source_store is None  # Another block gives it.
    fields = {name: getattr(block, name) for name in StoreSettings.model_fields}
    assert store.model_dump(exclude={"source_store"}) == fields


def test_a_wrong_field_is_refused_when_the_block_is_made() -> None:
    for wrong, named in (
        ({"root": "ftp://there"}, "the root is neither"),
        ({"root": "s3://b", "endpoint_url": "minio"}, "the endpoint is not"),
        ({"root": "s3://b", "access_key": "a"}, "one of access_key and secret_key is missing"),
    ):
        with pytest.raises(ValueError, match=named):
            ObjectStoreBlock.model_validate(wrong)


@pytest.mark.parametrize(
    ("block", "fields", "named"),
    [
        (
            ObjectStoreBlock,
            {"root": "s3://b", "endpoint": "http://x"},
            "ObjectStoreBlock has no field `endpoint`: it has endpoint_url",
        ),
        (SourceStoreBlock, {"anonimous": True}, "SourceStoreBlock has no field `anonimous`: it has anonymous"),
        (Dinov3Weights, {"model": "m", "tokn": "http://x"}, "Dinov3Weights has no field `tokn`: it has token"),
    ],
)
def test_an_unknown_field_is_refused_when_the_block_is_made(
    block: type[Block], fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named) as raised:
        block(**fields)
    assert "http://x" not in str(raised.value), "the value of a field may be a secret"


def test_a_block_that_0_1_saved_gives_its_store(prefect_api: PrefectServer) -> None:
    save = [sys.executable, "-c", SAVE_AS_0_1_DID]
    subprocess.run(save, env=prefect_api.environment(), cwd=PROJECT, check=True, timeout=240)
    store = open_store(None, "from-0-1")
    assert store.root == "s3://old/prefix"
    assert store.endpoint_url == "http://minio:9000"
    assert store.region == "us-east-1"
    assert store.secret_key is not None
    assert store.secret_key.get_secret_value() == "hush"
    assert open_store("s3://other", "from-0-1").root == "s3://other"


def test_a_source_store_with_hosts_is_saved_and_loaded(prefect_api: PrefectServer, tmp_path: Path) -> None:
    SourceStoreBlock(https_hosts=("Data.example.org", "stac.internal:8443"), https_private=True).save("web")
    source = open_store(str(tmp_path), None, "web").source_store
    assert source == SourceStore(https_hosts=("data.example.org", "stac.internal:8443"), https_private=True)


def test_a_block_that_does_not_exist_and_a_wrong_root_are_usage_errors(prefect_api: PrefectServer) -> None:
    remedy = "the Prefect server has no block of this name: list its blocks with `python -m prefect block ls`"
    with pytest.raises(UsageError, match=f"object store 'nowhere': {remedy}"):
        open_store(None, "nowhere")
    with pytest.raises(UsageError, match=f"source_store 'nowhere': {remedy}"):
        open_store(None, None, "nowhere")
    with pytest.raises(UsageError, match="neither a folder nor s3"):
        open_store("ftp://there", None)


def test_prefects_command_registers_the_blocks_from_the_repository_root(prefect_api: PrefectServer) -> None:
    register = [sys.executable, "-m", "prefect", "block", "register", "-m", "blocks"]
    done = subprocess.run(
        register, env=prefect_api.environment(), cwd=PROJECT, capture_output=True, text=True, timeout=240
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Object Store" in done.stdout
    assert "DINOv3 Weights" in done.stdout


def test_the_programs_of_the_documentation_can_be_run_twice(prefect_api: PrefectServer) -> None:
    programs = [block.text for block in code_blocks(PROJECT / "docs/stores.md") if "from blocks import" in block.text]
    assert len(programs) == 2
    for program in programs * 2:
        exec(compile(program, "docs/stores.md", "exec"), {})
    assert open_store(None, "minio").root == "s3://embeddings"
    assert open_store("s3://embeddings", "minio", "archive").source.endpoint == "https://data.example.org"
