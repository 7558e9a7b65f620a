"""The sweep finds uploads without a notification, and the set-up of notifications. The S3 server is moto."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cyclopts
import pytest

from flows.reconcile_uploads import Sweep, reconcile_uploads
from rasterembed.collection_pipeline import embed_collection
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.raster.source import default_dataset_id
from rasterembed.store.collection_rules import CollectionRule
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.uploads import UploadRules, dataset_dates
from services.webhook.notify import notify
from tests.support.http import request
from tests.support.prefect_server import PrefectServer
from tests.support.scenes import collection_options, write_scene
from tests.support.servers import S3Server
from tests.support.webhook import COLLECTION, Deployment, ask, deploy, minio, webhook


@pytest.fixture
def s3(moto: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a client, and set the variables that point everything else to the same server."""
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    moto.create_bucket(bucket)
    return moto.client()


def _sweep(deployment: Deployment, uploads: str, **parameters: Any) -> Sweep:
    root = f"s3://{uploads.removeprefix('s3://').split('/')[0]}/store"
    return reconcile_uploads(uploads, **{"root": root, "deployment": deployment.name} | parameters)


def test_uploads_without_a_dataset_are_started_once(s3: Any, bucket: str, prefect_api: PrefectServer) -> None:
    for key in (
        "in/a b+c.tif",
        "in/deep/ä.TIFF",
        "in/notes.txt",
        "elsewhere/c.tif",
        "store/qa/x/pca.tif",
        "in/done.tif",
    ):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    done = default_dataset_id(f"s3://{bucket}/in/done.tif")
    s3.put_object(Bucket=bucket, Key=f"store/datasets/{done}/manifest.json", Body=b"{}")
    deployment = deploy(prefect_api)
    assert _sweep(deployment, f"s3://{bucket}/in") == Sweep(pending=2, started=2, running=0, failed=0)
    assert sorted(deployment.rasters()) == [f"s3://{bucket}/in/a b+c.tif", f"s3://{bucket}/in/deep/ä.TIFF"]
    assert {run["parameters"]["root"] for run in deployment.runs()} == {f"s3://{bucket}/store"}
    assert _sweep(deployment, f"s3://{bucket}/in") == Sweep(pending=2, started=0, running=2, failed=0)
    assert _sweep(deployment, f"s3://{bucket}/").started == 1  # elsewhere, and nothing that runs wrote
    assert f"s3://{bucket}/elsewhere/c.tif" in deployment.rasters()


@pytest.mark.parametrize("versioned", [False, True])
def test_what_a_notification_started_is_not_started_again(
    s3: Any, bucket: str, prefect_api: PrefectServer, versioned: bool
) -> None:
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    answer = s3.put_object(Bucket=bucket, Key="a.tif", Body=b"x")
    about = {"versionId": answer["VersionId"]} if versioned else {}
    deployment = deploy(prefect_api)
    with webhook(prefect_api.api_url, deployment.name) as service:
        service.deliver(minio(bucket, "a.tif", answer["ETag"].strip('"'), **about))
        assert _sweep(deployment, f"s3://{bucket}") == Sweep(pending=1, started=0, running=1, failed=0)
        s3.put_object(Bucket=bucket, Key="a.tif", Body=b"another")
        assert _sweep(deployment, f"s3://{bucket}").started == 1
    assert len(deployment.runs()) == 2


@pytest.mark.slow
def test_uploads_that_a_collection_lacks_get_one_run(
    s3: Any, bucket: str, prefect_api: PrefectServer, tiny_vit: Path, tmp_path: Path
) -> None:
    def upload(key: str, number: int) -> None:
        s3.put_object(Bucket=bucket, Key=key, Body=write_scene(tmp_path / "scene.tif", number).read_bytes())

    upload("in/a.tif", 1)
    upload("in/deep/b.tif", 2)
    s3.put_object(Bucket=bucket, Key="in/bad.tif", Body=b"no raster")
    s3.put_object(Bucket=bucket, Key="in/notes.txt", Body=b"x")
    s3.put_object(Bucket=bucket, Key="alone.tif", Body=b"x")
    rule = CollectionRule(bucket=bucket, prefix="in/", collection="survey")
    single, collections = deploy(prefect_api), deploy(prefect_api, COLLECTION)

    def sweep() -> Sweep:
        options = {"collections": (rule,), "collection_deployment": collections.name}
        return _sweep(single, f"s3://{bucket}", **options)

    assert sweep() == Sweep(pending=1, started=1, running=0, failed=0, collection_uploads=3, collection_runs=1)
    assert single.rasters() == [f"s3://{bucket}/alone.tif"]
    (run,) = collections.runs()
    root = f"s3://{bucket}/store"
    assert run["parameters"] == {"collection": "survey", "scenes": rule.scenes, "root": root, "source_store": None}
    found = sweep()
    assert (found.collection_uploads, found.collection_runs) == (3, 0)  # The run still waits.
    embed_collection(ObjectStore(root=root), "survey", rule.scenes, collection_options(tiny_vit))
    _end(prefect_api, run)
    found = sweep()
    assert (found.collection_uploads, found.collection_runs) == (0, 0)  # The catalogue has the failed scene too.
    upload("in/a.tif", 3)
    upload("in/c.tif", 4)
    found = sweep()
    assert (found.collection_uploads, found.collection_runs) == (2, 1)
    wanted = {"artifacts": {"key": {"any_": ["uploads-without-dataset"]}}, "sort": "CREATED_DESC"}
    artifact = ask("POST", f"{prefect_api.api_url}/artifacts/filter", wanted).json()[0]
    row = {"upload": f"2 uploads in {rule.scenes}, collection survey", "state": "started now"}
    assert row in json.loads(artifact["data"])


def _end(server: PrefectServer, run: dict[str, Any]) -> None:
    state = {"state": {"type": "COMPLETED"}, "force": True}
    ask("POST", f"{server.api_url}/flow_runs/{run['id']}/set_state", state)


def test_a_run_that_failed_is_shown_and_not_repeated(s3: Any, bucket: str, prefect_api: PrefectServer) -> None:
    s3.put_object(Bucket=bucket, Key="a.tif", Body=b"x")
    deployment = deploy(prefect_api)
    _sweep(deployment, f"s3://{bucket}")
    (run,) = deployment.runs()
    state = {"state": {"type": "FAILED", "message": "broken"}, "force": True}
    ask("POST", f"{prefect_api.api_url}/flow_runs/{run['id']}/set_state", state)
    assert _sweep(deployment, f"s3://{bucket}") == Sweep(pending=1, started=0, running=0, failed=1)
    wanted = {"artifacts": {"key": {"any_": ["uploads-without-dataset"]}}, "sort": "CREATED_DESC"}
    artifact = ask("POST", f"{prefect_api.api_url}/artifacts/filter", wanted).json()[0]
    assert json.loads(artifact["data"]) == [{"upload": f"s3://{bucket}/a.tif", "state": "Failed", "run": run["id"]}]


def test_a_run_that_ended_without_a_dataset_does_not_count_as_running(
    s3: Any, bucket: str, prefect_api: PrefectServer
) -> None:
    s3.put_object(Bucket=bucket, Key="a.tif", Body=b"x")
    deployment = deploy(prefect_api)
    _sweep(deployment, f"s3://{bucket}")
    (run,) = deployment.runs()
    _end(prefect_api, run)
    assert _sweep(deployment, f"s3://{bucket}") == Sweep(pending=1, started=0, running=0, failed=1)


def test_the_same_content_that_is_uploaded_again_has_its_dataset(
    s3: Any, bucket: str, prefect_api: PrefectServer, tiny_vit: Path, tmp_path: Path
) -> None:
    content = write_scene(tmp_path / "scene.tif").read_bytes()
    deployment, store = deploy(prefect_api), ObjectStore(root=f"s3://{bucket}/store")
    settings = collection_options(tiny_vit).settings
    assert settings is not None

    def upload(content: bytes) -> None:
        s3.put_object(Bucket=bucket, Key="a.tif", Body=content)

    def newer_upload(content: bytes) -> None:
        """S3 keeps the time of an object in whole seconds."""
        (written,) = dataset_dates(store).values()
        while s3.head_object(Bucket=bucket, Key="a.tif")["LastModified"].timestamp() <= written:
            upload(content)

    upload(content)
    embed_raster(store, f"s3://{bucket}/a.tif", EmbedOptions(**dict(settings), quality_checks=False))
    newer_upload(content)
    nothing = Sweep(pending=0, started=0, running=0, failed=0)
    assert _sweep(deployment, f"s3://{bucket}") == nothing
    upload(write_scene(tmp_path / "scene.tif", 1).read_bytes())
    assert _sweep(deployment, f"s3://{bucket}").started == 1


def test_a_sweep_starts_no_more_than_told_and_the_next_goes_on(
    s3: Any, bucket: str, prefect_api: PrefectServer
) -> None:
    for number in range(5):
        s3.put_object(Bucket=bucket, Key=f"{number}.tif", Body=b"x")
    deployment = deploy(prefect_api)
    rules = UploadRules(suffixes=(".tif",))
    started = [_sweep(deployment, f"s3://{bucket}", most=2, rules=rules).started for _ in range(4)]
    assert started == [2, 2, 1, 0]
    assert len(set(deployment.rasters())) == 5


@pytest.mark.parametrize(
    ("uploads", "options", "named"),
    [
        ("incoming", {}, "is not s3://bucket/prefix"),
        ("s3://no-such-bucket-here/in", {}, "there is no such bucket"),
        (
            "{bucket}",
            {"deployment": "raster-embeddings/none"},
            "`deployment`: there is no deployment 'raster-embeddings/none' on this Prefect server: give another one as "
            "flow/deployment; the server has raster-embeddings/",
        ),
        ("{bucket}", {"deployment": "none/none"}, "the server has no deployment of this flow: run `make deploy`"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said(
    s3: Any, bucket: str, prefect_api: PrefectServer, uploads: str, options: dict[str, Any], named: str
) -> None:
    deploy(prefect_api)
    state = reconcile_uploads(
        uploads.replace("{bucket}", f"s3://{bucket}"), root=f"s3://{bucket}/store", **options, return_state=True
    )
    run = request("GET", f"{prefect_api.api_url}/flow_runs/{state.state_details.flow_run_id}").json()
    assert run["state"]["type"] == "FAILED"
    assert named in run["state"]["message"]


def _notify(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """Run the command `python -m services.webhook.notify` in this process, and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["notify", *arguments])
    with pytest.raises(SystemExit) as end:
        cyclopts.run(notify)
    return end.value.code


def test_a_bucket_is_told_to_notify_and_what_it_notified_before_stays(
    s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"Id": "other", "QueueArn": "arn:aws:sqs:us-east-1:1:q", "Events": ["s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [other]})
    for prefix in ("old/", "in/", "in/"):
        assert _notify(monkeypatch, bucket, "--arn", "arn:aws:sqs:us-east-1:1:uploads", "--prefix", prefix) == 0
    kept, ours = s3.get_bucket_notification_configuration(Bucket=bucket)["QueueConfigurations"]
    assert kept["Id"] == "other"
    assert ours["QueueArn"] == "arn:aws:sqs:us-east-1:1:uploads"
    assert ours["Events"] == ["s3:ObjectCreated:*"]
    assert [(rule["Name"].lower(), rule["Value"]) for rule in ours["Filter"]["Key"]["FilterRules"]] == [
        ("prefix", "in/")
    ]


@pytest.mark.parametrize(
    "variables",
    [{}, {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-west-2"}, {"AWS_DEFAULT_REGION": "us-east-1"}],
)
def test_the_region_of_a_topic_is_that_of_the_store(
    s3: Any, bucket: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses a topic in another region than the bucket's, which is us-east-1."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (variables | {"UPLOAD_WEBHOOK_TOKEN": "secret"}).items():
        monkeypatch.setenv(name, value)
    assert _notify(monkeypatch, bucket, "--topic", "uploads", "--url", "http://127.0.0.1:1/uploads") == 0
    (topic,) = s3.get_bucket_notification_configuration(Bucket=bucket)["TopicConfigurations"]
    assert topic["TopicArn"].startswith("arn:aws:sns:us-east-1:")


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["b"], 2, "give either --arn, or --topic and --url"),
        (["b", "--topic", "t", "--url", "http://h/uploads"], 2, "UPLOAD_WEBHOOK_TOKEN is not set"),
        (["no-such-bucket-here", "--arn", "arn:aws:sqs:us-east-1:1:q"], 1, "NoSuchBucket"),
    ],
)
def test_wrong_usage_of_notify_is_one_line(
    s3: Any,
    arguments: list[str],
    status: int,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert _notify(monkeypatch, *arguments) == status
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    assert named in errors
