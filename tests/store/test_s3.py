"""The whole pipeline on S3: the raster is read from a bucket, and the dataset is written to one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from rasterembed.dataset.shards import ShardWriter
from rasterembed.raster import shard_reader
from rasterembed.store import s3
from rasterembed.store.object_store import ObjectStore
from tests.support.proxy import Proxy, proxy_before
from tests.support.runs import (
    DATASET,
    SHARDS,
    Outcome,
    Pause,
    Vectors,
    before,
    choices,
    run,
    start,
    vectors,
    write_raster,
)
from tests.support.servers import S3Server
from tests.support.stores import at

KEY = "rasters/scène 1 #2+.tif"


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raster(tmp_path_factory.mktemp("raster") / "scene.tif")


@pytest.fixture(scope="module")
def asked(tiny_vit: Path) -> dict[str, Any]:
    return choices(tiny_vit)


@pytest.fixture(scope="module")
def local(raster: Path, asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Vectors]:
    """Return the vectors of a run that uses folders only."""
    store = ObjectStore(root=str(tmp_path_factory.mktemp("local")))
    assert run(raster, store, **asked).error == ""
    return list(vectors(store).values())


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.s3)])
def server(request: pytest.FixtureRequest, bucket: str, raster: Path) -> S3Server:
    """Return a server with the raster in its bucket."""
    server: S3Server = request.getfixturevalue(request.param)
    server.create_bucket(bucket)
    server.client().put_object(Bucket=bucket, Key=KEY, Body=raster.read_bytes())
    return server


@pytest.fixture
def proxied(server: S3Server) -> Iterator[Proxy]:
    with proxy_before(server.endpoint_url) as proxy:
        yield proxy


def _objects(server: S3Server, bucket: str) -> dict[str, bytes]:
    client = server.client()
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def _assert_no_secret(server: S3Server, outcome: Outcome, objects: dict[str, bytes]) -> None:
    for secret in (server.access_key, server.secret_key):
        assert secret not in f"{outcome.error} {outcome.said}"
        assert not [key for key, content in objects.items() if secret.encode() in content]


@pytest.mark.vectors
def test_from_a_bucket_to_a_bucket_the_vectors_are_those_of_a_local_run(
    server: S3Server, bucket: str, asked: dict[str, Any], local: list[Vectors]
) -> None:
    store = at(server, bucket, prefix="a prefix")
    outcome = run(f"s3://{bucket}/{KEY}", store, **asked)
    assert (outcome.error, outcome.embedded) == ("", SHARDS)
    assert outcome.environment == ()  # GDAL did not get its keys from the environment.
    assert list(vectors(store).values()) == local

    objects = _objects(server, bucket)
    # The raster; the shards; manifest, STAC item, plan, tile index and lease; the QA report in two forms, and pictures.
    assert len(objects) == 1 + SHARDS + 5 + 6
    assert len([key for key in objects if "/qa/" in key]) == 6
    _assert_no_secret(server, outcome, objects)

    again = run(f"s3://{bucket}/{KEY}", store, **asked)
    assert (again.error, again.embedded, again.loaded) == ("", 0, 0)
    assert _objects(server, bucket) == objects


def test_from_a_folder_to_a_bucket(
    server: S3Server, bucket: str, raster: Path, asked: dict[str, Any], local: list[Vectors]
) -> None:
    store = at(server, bucket)
    assert run(raster, store, **asked).error == ""
    assert list(vectors(store).values()) == local


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def test_from_a_bucket_to_a_folder_with_keys_from_the_environment(
    server: S3Server, bucket: str, asked: dict[str, Any], local: list[Vectors], tmp_path: Path
) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    environment = partial(_set_environment, server.environment())
    assert run(f"s3://{bucket}/{KEY}", store, hook=environment, **asked).error == ""
    assert list(vectors(store).values()) == local
    for path in tmp_path.rglob("*.json"):
        assert server.secret_key not in path.read_text()


@pytest.mark.s3
def test_from_a_public_bucket_without_keys(
    ceph: S3Server, bucket: str, raster: Path, asked: dict[str, Any], local: list[Vectors], tmp_path: Path
) -> None:
    ceph.create_bucket(bucket)
    ceph.client().put_object(Bucket=bucket, Key=KEY, Body=raster.read_bytes(), ACL="public-read")
    store = ObjectStore(root=str(tmp_path / "store"))
    variables = {"AWS_ENDPOINT_URL": ceph.endpoint_url, "AWS_NO_SIGN_REQUEST": "YES"}
    assert run(f"s3://{bucket}/{KEY}", store, hook=partial(_set_environment, variables), **asked).error == ""
    assert list(vectors(store).values()) == local


def test_a_run_killed_and_run_again_ends_with_the_same_bytes(
    server: S3Server, bucket: str, asked: dict[str, Any], local: list[Vectors]
) -> None:
    store, pause = at(server, bucket), Pause()
    first = start(f"s3://{bucket}/{KEY}", store, hook=partial(_pause_before_batch, 5, pause), lease_s=0.5, **asked)
    pause.reached()
    scratch = store.scratch(f"embeddings/{DATASET}")
    assert len(list(scratch.iterdir())) == 1
    first.signal(signal.SIGKILL)
    assert first.end().exit_code == -signal.SIGKILL
    assert len(store.sizes(f"embeddings/{DATASET}")) == 1

    second = run(f"s3://{bucket}/{KEY}", store, lease_s=0.5, **asked)
    assert (second.error, second.embedded) == ("", SHARDS - 1)
    assert list(vectors(store).values()) == local
    assert list(scratch.iterdir()) == []


def _pause_before_batch(number: int, pause: Pause, delays: tuple[float, ...] | None = None) -> None:
    if delays is not None:
        s3.RETRY_DELAYS_S = shard_reader.RETRY_DELAYS_S = delays  # type: ignore[assignment]
    batches = count(1)
    before(ShardWriter, "append", lambda *_: pause.stay() if next(batches) == number else None)


@pytest.mark.parametrize("fault", ["unavailable", "unanswered"])
def test_a_server_that_stays_away_ends_the_run_and_the_next_completes_it(
    fault: str, proxied: Proxy, server: S3Server, bucket: str, asked: dict[str, Any], local: list[Vectors]
) -> None:
    store, pause = at(server, bucket, endpoint_url=proxied.endpoint_url), Pause()
    impatient = partial(_pause_before_batch, 5, pause, (0.01,))
    first = start(f"s3://{bucket}/{KEY}", store, hook=impatient, lease_s=2, **asked)
    pause.reached()
    proxied.fault = lambda *_: fault
    pause.end()
    outcome = first.end()
    assert outcome.error.startswith(f"StoreUnavailableError: s3://{bucket}/")
    assert "\n" not in outcome.error
    _assert_no_secret(server, outcome, _objects(server, bucket))

    proxied.fault = lambda *_: None
    assert store.read(f"datasets/{DATASET}/manifest.json") is None
    there = len(store.sizes(f"embeddings/{DATASET}"))
    assert there == 1 if fault == "unavailable" else there in (1, 2)  # The server may have written without an answer.
    second = run(f"s3://{bucket}/{KEY}", store, lease_s=2, **asked)
    assert (second.error, second.embedded) == ("", SHARDS - there)
    assert list(vectors(store).values()) == local


@pytest.mark.parametrize("fault", ["unavailable", "unanswered", "cut short"])
def test_a_server_that_comes_back_in_time_is_waited_for(
    fault: str, proxied: Proxy, bucket: str, server: S3Server, asked: dict[str, Any], local: list[Vectors]
) -> None:
    """Every request fails twice, whoever sends it: boto3, or GDAL for the raster."""
    failed: list[tuple[str, str]] = []

    def fail_twice(method: str, path: str) -> Any:
        failed.append((method, path.partition("?")[0]))
        return fault if failed.count(failed[-1]) <= 2 else None

    proxied.fault = fail_twice
    store, pause = at(server, bucket, endpoint_url=proxied.endpoint_url), Pause()
    quick = partial(_pause_before_batch, 0, pause, (0.01,) * 6)
    # With "skip", a server that does not answer must not count as a window that cannot be decoded.
    skipping = asked | {"selection": asked["selection"].model_copy(update={"on_bad_window": "skip"})}
    outcome = run(f"s3://{bucket}/{KEY}", store, hook=quick, **skipping)
    assert outcome.error == ""
    assert list(vectors(store).values()) == local
    assert any(path.endswith(".tif") for method, path in failed if method == "GET")


@pytest.mark.s3
def test_a_gateway_that_is_stopped_in_the_middle_of_a_run_loses_nothing(
    ceph: S3Server, bucket: str, raster: Path, asked: dict[str, Any], local: list[Vectors]
) -> None:
    ceph.create_bucket(bucket)
    ceph.client().put_object(Bucket=bucket, Key=KEY, Body=raster.read_bytes())
    store, pause = at(ceph, bucket), Pause()
    impatient = partial(_pause_before_batch, 5, pause, (0.01,))
    first = start(f"s3://{bucket}/{KEY}", store, hook=impatient, lease_s=2, **asked)
    pause.reached()
    ceph.stop()
    try:
        pause.end()
        assert first.end().error.startswith("StoreUnavailableError: s3://")
    finally:
        ceph.start()
    second = run(f"s3://{bucket}/{KEY}", store, lease_s=2, **asked)
    assert (second.error, second.embedded) == ("", SHARDS - 1)
    assert list(vectors(store).values()) == local


@pytest.mark.s3
def test_a_gateway_that_is_restarted_in_the_middle_of_a_run_is_waited_for(
    ceph: S3Server, bucket: str, raster: Path, asked: dict[str, Any], local: list[Vectors]
) -> None:
    ceph.create_bucket(bucket)
    ceph.client().put_object(Bucket=bucket, Key=KEY, Body=raster.read_bytes())
    store, pause = at(ceph, bucket), Pause()
    patient = partial(_pause_before_batch, 5, pause, (*s3.RETRY_DELAYS_S, 60.0))
    first = start(f"s3://{bucket}/{KEY}", store, hook=patient, **asked)
    pause.reached()
    ceph.stop()
    pause.end()
    ceph.start()
    outcome = first.end()
    assert (outcome.error, outcome.embedded) == ("", SHARDS)
    assert list(vectors(store).values()) == local


def test_a_missing_raster_is_said_so(server: S3Server, bucket: str, asked: dict[str, Any]) -> None:
    outcome = run(f"s3://{bucket}/none.tif", at(server, bucket), **asked)
    where = f"s3://{bucket}/none.tif on {server.endpoint_url}"
    assert outcome.error == f"ObjectMissingError: {where}: there is no such object, or no such bucket"


def test_a_missing_bucket_is_said_so_before_any_work(server: S3Server, bucket: str, asked: dict[str, Any]) -> None:
    outcome = run(f"s3://{bucket}/{KEY}", at(server, "no-such-bucket"), **asked)
    assert outcome.error.startswith("StoreError: s3://no-such-bucket/pre fix/datasets/scene/manifest.json on http://")
    assert outcome.error.endswith(": there is no such bucket: check its name, or create it on the server")
    assert outcome.loaded == 0


@pytest.mark.s3
@pytest.mark.parametrize(
    ("field", "code"), [("access_key", "InvalidAccessKeyId"), ("secret_key", "SignatureDoesNotMatch")]
)
def test_wrong_keys_are_refused_and_not_repeated(
    field: str, code: str, ceph: S3Server, bucket: str, asked: dict[str, Any]
) -> None:
    ceph.create_bucket(bucket)
    store = at(ceph, bucket).model_copy(update={field: SecretStr("wrong-one")})
    outcome = run(f"s3://{bucket}/{KEY}", store, **asked)
    where = f"s3://{bucket}/{KEY} on {ceph.endpoint_url}"
    advice = "check the keys, and that the bucket's policy allows s3:GetObject"
    assert outcome.error == f"StoreError: {where}: access denied ({code}): {advice}"


def test_a_raster_replaced_since_it_was_embedded_is_another_configuration(
    server: S3Server, bucket: str, asked: dict[str, Any], raster: Path
) -> None:
    store = at(server, bucket)
    assert run(f"s3://{bucket}/{KEY}", store, **asked).error == ""
    server.client().put_object(Bucket=bucket, Key=KEY, Body=raster.read_bytes() + b"\0")
    outcome = run(f"s3://{bucket}/{KEY}", store, **asked)
    assert outcome.error.startswith("ConfigurationChangedError: dataset 'scene' was made before its raster was changed")
