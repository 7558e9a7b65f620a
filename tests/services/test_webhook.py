"""The upload webhook, in its own process, on a real Prefect server. Bodies are replayed as their servers write them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.events import AutomationCore, DeploymentEventTrigger
from pydantic import ValidationError

from rasterembed.store.object_store import ObjectStore
from rasterembed.store.uploads import Upload, UploadRules
from services.webhook import app
from services.webhook.notifications import Created, HopelessRecordError, read_body, read_record
from services.webhook.prefect_api import PrefectApi
from services.webhook.settings import Settings, SettingsError
from tests.conftest import PROJECT
from tests.support.http import request
from tests.support.prefect_server import PrefectServer
from tests.support.waiting import wait_for
from tests.support.webhook import (
    TOKEN,
    Deployment,
    Webhook,
    ask,
    basic,
    ceph,
    deploy,
    gate,
    minio,
    pascal,
    record,
    rustfs,
    snake,
    sns,
    upload_events,
    webhook,
)

ODD_KEYS = ["a b/c+d.tif", "ä/日本 100%.TIF", "a%20b.tif", "a&b=c?d#e.tif", "'quoted\"{raster}.jp2", "é" * 510 + ".tif"]


def _rule(**values: str) -> str:
    """Return the JSON of one rule for a collection."""
    return json.dumps([{"bucket": "rasters", "prefix": "in/", "collection": "survey"} | values])


@pytest.fixture(scope="module")
def shared(prefect: PrefectServer) -> Iterator[tuple[Webhook, Deployment]]:
    """One webhook for the tests that need no settings of their own, and its deployment."""
    deployment = deploy(prefect)
    with webhook(prefect.api_url, deployment.name) as service:
        yield service, deployment


def _runs_of(deployment: Deployment, uri: str) -> list[dict[str, Any]]:
    return [run for run in deployment.runs() if run["parameters"]["raster"] == uri]


# --- what becomes of an upload ---------------------------------------------------------------------------------------


def test_a_notification_becomes_a_run_and_an_event_that_are_linked(
    shared: tuple[Webhook, Deployment], prefect: PrefectServer
) -> None:
    service, deployment = shared
    answer = service.post(minio("rasters", "2026/scene 1.tif", "abc"))
    assert answer.status_code == 200
    assert answer.json() == {"received": 1, "started": 1, "duplicate": 0, "ignored": 0, "dead": 0}
    (run,) = _runs_of(deployment, "s3://rasters/2026/scene 1.tif")
    assert run["parameters"]["root"] == str(service.root)
    assert "store" not in run["parameters"]
    assert run["idempotency_key"] == "s3:rasters/2026/scene 1.tif:abc"
    assert run["name"] == "s3://rasters/2026/scene 1.tif"
    assert run["state"]["type"] == "SCHEDULED"

    (event,) = upload_events(prefect, "s3.object.rasters/2026/scene 1.tif")
    assert event["event"] == "s3:ObjectCreated:Put"
    assert event["id"] == str(Upload(bucket="rasters", key="2026/scene 1.tif", version="abc").event_id)
    assert event["occurred"].startswith("2026-01-02T03:04:05.678")
    assert event["resource"]["s3.bucket"] == "rasters"
    assert event["resource"]["s3.key"] == "2026/scene 1.tif"
    assert event["related"][0]["prefect.resource.id"] == f"prefect.flow-run.{run['id']}"
    assert event["payload"] == {"uri": "s3://rasters/2026/scene 1.tif", "size": 1024}


@pytest.mark.parametrize("form", [minio, rustfs, ceph], ids=lambda form: form.__name__)
@pytest.mark.parametrize(
    "wrap", [lambda body: body, sns, pascal, snake], ids=["as-it-is", "sns", "PascalCase", "snake_case"]
)
def test_every_server_and_every_odd_key_means_the_same_object(
    form: Callable[..., dict[str, Any]], wrap: Callable[[Any], Any]
) -> None:
    for key in ODD_KEYS:
        (found,) = read_body(json.dumps(wrap(form("rasters", key, "abc"))).encode())
        created = read_record(found)
        assert created is not None
        assert created.upload == Upload(bucket="rasters", key=key, version="abc")
        assert created.event == "s3:ObjectCreated:Put"
        assert created.size == 1024


def test_odd_keys_reach_prefect_unharmed(shared: tuple[Webhook, Deployment]) -> None:
    service, deployment = shared
    body = {"Records": [record("odd", key) for key in ODD_KEYS]}
    assert service.post(body).json()["started"] == len(ODD_KEYS)
    wanted = {f"s3://odd/{key}" for key in ODD_KEYS}
    assert wanted <= set(deployment.rasters())


@pytest.mark.parametrize(
    ("about", "version"),
    [
        ({"versionId": "v7"}, "v7"),
        ({"versionId": ""}, "e1"),
        ({"versionId": "null"}, "e1"),
        ({"eTag": '"quoted"'}, "quoted"),
        ({"eTag": ""}, "18A6B0C1"),
    ],
)
def test_the_version_is_the_version_id_or_else_the_etag_or_else_the_sequencer(
    about: dict[str, str], version: str
) -> None:
    created = read_record(record("b-1", "a.tif", **about))
    assert created is not None
    assert created.upload.version == version


def test_the_same_notification_ten_times_at_once_is_one_run_and_one_event(
    shared: tuple[Webhook, Deployment], prefect: PrefectServer
) -> None:
    service, deployment = shared
    before = service.counts()
    body = minio("rasters", "at-once.tif")
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: service.post(body), range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert service.post(body).json()["duplicate"] == 1
    assert len(_runs_of(deployment, "s3://rasters/at-once.tif")) == 1
    assert len(upload_events(prefect, "s3.object.rasters/at-once.tif")) == 1
    counts = service.counts()
    assert counts["received"] - before["received"] == 11
    assert sum(counts[name] - before[name] for name in ("started", "duplicate")) == 11


def test_another_version_of_the_same_key_is_another_run(shared: tuple[Webhook, Deployment]) -> None:
    service, deployment = shared
    for version in ("one", "two", "one"):
        service.deliver(minio("rasters", "again.tif", versionId=version))
    assert len(_runs_of(deployment, "s3://rasters/again.tif")) == 2


def test_only_what_the_rules_follow_becomes_a_run(prefect: PrefectServer) -> None:
    deployment = deploy(prefect)
    settings = {
        "root": "s3://rasters/store",
        "buckets": "rasters, other",
        "prefixes": "incoming/,store/,qa/",
        "store": "b",
    }
    removed = record("rasters", "incoming/a.tif") | {"eventName": "s3:ObjectRemoved:Delete"}
    body = {
        "Records": [
            removed,
            record("third", "incoming/a.tif"),
            record("rasters", "elsewhere/a.tif"),
            record("rasters", "incoming/a.txt"),
            record("rasters", "store/qa/dataset/pca.tif"),
            record("rasters", "qa/dataset/pca.tif"),
            record("rasters", "incoming/a.TIF"),
            record("other", "incoming/b.jp2"),
        ]
    }
    with webhook(prefect.api_url, deployment.name, **settings) as service:
        assert service.post(body).json() == {"received": 8, "started": 2, "duplicate": 0, "ignored": 6, "dead": 0}
        assert service.post({"Event": "s3:TestEvent", "Bucket": "rasters"}).json()["received"] == 0
        assert service.post({"Type": "SubscriptionConfirmation", "Message": "confirm"}).json()["received"] == 0
    assert sorted(deployment.rasters()) == ["s3://other/incoming/b.jp2", "s3://rasters/incoming/a.TIF"]
    assert deployment.runs()[0]["parameters"]["store"] == "b"


def test_every_folder_that_runs_write_to_is_ignored() -> None:
    rules = UploadRules()
    for folder in ("datasets", "collections", "tiles", "embeddings", "qa", "indexes", "dead-letters"):
        assert not rules.follow("b", f"{folder}/x.tif", None)
        assert not rules.follow("b", f"deep/store/{folder}/x.tif", "s3://b/deep/store")
        assert rules.follow("other", f"deep/store/{folder}/x.tif", "s3://b/deep/store")
    assert UploadRules(ignore=()).follow("b", "tiles/x.tif", "/a/folder")


@pytest.mark.slow
def test_in_mode_event_an_automation_starts_the_run_once(prefect: PrefectServer) -> None:
    deployment = deploy(prefect)
    with webhook(prefect.api_url, deployment.name, mode="event") as service:
        _documented_automation(prefect, deployment)
        body = minio("by-event", "a b.tif")
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: service.post(body), range(10)))
        assert [answer.status_code for answer in answers] == [200] * 10
        assert service.post(minio("by-event", "a.txt")).json()["ignored"] == 1
        wait_for(deployment.runs, "the automation to start a run")
        service.deliver(minio("by-event", "second.tif"))
        wait_for(lambda: len(deployment.runs()) > 1, "the second run")
    assert deployment.rasters() == ["s3://by-event/a b.tif", "s3://by-event/second.tif"]
    places = {(run["parameters"]["root"], run["parameters"]["store"]) for run in deployment.runs()}
    assert places == {("s3://embeddings/v1", "raster-embeddings")}


def _documented_automation(server: PrefectServer, deployment: Deployment) -> None:
    """Install the trigger that docs/uploads.md gives for prefect.yaml, and wait until the server acts on it."""
    text = (PROJECT / "docs/uploads.md").read_text().split("```yaml\n", 1)[1].split("```", 1)[0]
    (given,) = yaml.safe_load(text)["triggers"]
    trigger = DeploymentEventTrigger.model_validate(given | {"match": {"prefect.resource.id": "s3.object.by-event/*"}})
    trigger.set_deployment_id(deployment.id)  # type: ignore[arg-type]
    automation: AutomationCore = trigger.as_automation()
    ask("POST", f"{server.api_url}/automations/", automation.model_dump(mode="json"))


# --- nothing lost, nothing doubled -----------------------------------------------------------------------------------


def test_while_prefect_is_away_the_answer_is_503_and_later_it_is_taken(prefect: PrefectServer, bucket: str) -> None:
    deployment = deploy(prefect)
    with gate(prefect.api_url) as relay, webhook(relay.url, deployment.name) as service:
        assert request("GET", f"{service.url}/readyz").status_code == 200
        relay.refuse()
        answer = service.post(minio(bucket, "a.tif"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "3"
        assert "no answer from Prefect" in answer.json()["detail"]
        assert request("GET", f"{service.url}/readyz").status_code == 503
        assert request("GET", f"{service.url}/healthz").status_code == 200
        assert service.dead_letters() == []
        relay.open()
        service.deliver(minio(bucket, "a.tif"))
        assert service.counts()['rejected{status="503"}'] == 2
    assert deployment.rasters() == [f"s3://{bucket}/a.tif"]


@pytest.mark.parametrize("when", ["before Prefect has it", "after Prefect has it"])
@pytest.mark.slow
def test_killed_between_receiving_and_answering(prefect: PrefectServer, bucket: str, when: str) -> None:
    deployment = deploy(prefect)
    body = minio(bucket, "a.tif")
    with gate(prefect.api_url) as relay, webhook(relay.url, deployment.name) as service, ThreadPoolExecutor(1) as pool:
        assert request("GET", f"{service.url}/readyz").status_code == 200
        (relay.requests if when.startswith("before") else relay.answers).clear()
        answer = pool.submit(service.post, body)
        assert relay.waiting.wait(120)
        if when.startswith("after"):
            wait_for(deployment.runs, "the run")
        service.kill()
        with pytest.raises(httpx.HTTPError):
            answer.result()
        assert len(deployment.runs()) == (0 if when.startswith("before") else 1)
        relay.open()
        service.start()
        service.deliver(body)
    assert deployment.rasters() == [f"s3://{bucket}/a.tif"]


def test_a_deployment_that_is_made_anew_is_found_again(prefect: PrefectServer, bucket: str) -> None:
    first = deploy(prefect)
    with webhook(prefect.api_url, first.name) as service:
        service.deliver(minio(bucket, "a.tif"))
        ask("DELETE", f"{prefect.api_url}/deployments/{first.id}")
        gone = service.post(minio(bucket, "b.tif"))
        assert gone.status_code == 503
        assert f"no deployment '{first.name}'" in gone.json()["detail"]
        assert request("GET", f"{service.url}/readyz").status_code == 503
        second = deploy(prefect, name=first.name.split("/")[1])
        service.deliver(minio(bucket, "b.tif"))
    assert second.rasters() == [f"s3://{bucket}/b.tif"]


# --- what can never work ---------------------------------------------------------------------------------------------

HOPELESS: dict[str, dict[str, Any]] = {
    "no eventName": {"s3": {}},
    "no s3": {"eventName": "s3:ObjectCreated:Put"},
    "neither version nor ETag": record("b-1", "a.tif", "", sequencer=""),
    "not the name of a bucket": record("no/bucket", "a.tif"),
    "control characters": record("b-1", "line\nbreak.tif"),
    "a segment . or ..": record("b-1", "up/../../a.tif"),
    "longer than 1024 bytes": record("b-1", "é" * 1020 + ".tif"),
    "the version is longer": record("b-1", "a.tif", "é" * 1000),
    "eventName is too long": record("b-1", "a.tif") | {"eventName": f"s3:ObjectCreated:{'P' * 100_000}"},
    "characters that no name": record("b-1", "a.tif") | {"eventName": "s3:ObjectCreated:\x00"},
    "not UTF-8": record("b-1", "a.tif", key="%ff.tif"),
}


def test_hopeless_records_are_kept_as_dead_letters_and_the_others_run(prefect: PrefectServer) -> None:
    deployment = deploy(prefect)
    body = {"Records": [*HOPELESS.values(), record("b-1", "good.tif")]}
    with webhook(prefect.api_url, deployment.name) as service:
        for duplicate in (0, 1):
            answer = service.post(body)
            assert answer.status_code == 200
            assert answer.json()["dead"] == len(HOPELESS)
            assert answer.json()["duplicate"] == duplicate
        assert service.counts()["dead"] == 2 * len(HOPELESS)
        letters = service.dead_letters()
        assert len(service.log.read_text()) < 20_000
    assert len(letters) == len(HOPELESS)  # sent twice, kept once
    for reason, hopeless in HOPELESS.items():
        (letter,) = [letter for letter in letters if letter["record"] == hopeless]
        assert reason in letter["reason"]
    assert deployment.rasters() == ["s3://b-1/good.tif"]


@pytest.mark.parametrize("message", ["", "{", "null", json.dumps({"Records": [1]}), json.dumps(sns({}))])
def test_an_envelope_around_something_else_is_one_hopeless_record(message: str) -> None:
    (found,) = read_body(json.dumps({"Type": "Notification", "Message": message}).encode())
    with pytest.raises(HopelessRecordError):
        read_record(found)


def test_a_run_that_prefect_refuses_is_a_dead_letter(prefect: PrefectServer) -> None:
    form = {"type": "object", "properties": {"grid": {"type": "string"}}, "required": ["grid"]}
    deployment = deploy(prefect, parameter_openapi_schema=form)
    with webhook(prefect.api_url, deployment.name) as service:
        assert service.post(minio("b-1", "a.tif")).json()["dead"] == 1
        (letter,) = service.dead_letters()
    assert "Prefect refused the run" in letter["reason"]
    assert deployment.runs() == []


def test_a_dead_letter_that_cannot_be_kept_is_asked_for_again(prefect: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "dead-letters").write_text("in the way")
    with webhook(prefect.api_url, deploy(prefect).name, root=tmp_path) as service:
        assert service.post({"Records": [HOPELESS["no s3"]]}).status_code == 503
        (tmp_path / "dead-letters").unlink()
        assert service.post({"Records": [HOPELESS["no s3"]]}).json()["dead"] == 1


@pytest.mark.parametrize(
    "time",
    [None, 5, "yesterday", "2999-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00", "0001-01-01T00:00:00Z", "1969-07-20"],
)
def test_an_impossible_time_is_replaced_by_the_present_one(time: Any) -> None:
    created = read_record(record("b-1", "a.tif") | {"eventTime": time})
    assert created is not None
    assert abs(created.occurred - datetime.now(UTC)) < timedelta(minutes=1)


def test_an_event_with_an_impossible_time_or_size_loses_no_other_event(
    shared: tuple[Webhook, Deployment], prefect: PrefectServer
) -> None:
    service, _ = shared
    odd = record("odd-times", "first.tif", size=10**30) | {"eventTime": "0001-01-01T00:00:00Z"}
    assert service.post({"Records": [odd, record("odd-times", "second.tif")]}).json()["started"] == 2
    for key in ("first.tif", "second.tif"):
        (event,) = upload_events(prefect, f"s3.object.odd-times/{key}")
        assert datetime.fromisoformat(event["occurred"]).year >= 2026


class _Picky(PrefectApi):
    """A Prefect that refuses every request with an event of one resource."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.emitted: list[str] = []

    async def start(self, created: Created, parameters: dict[str, Any]) -> tuple[str, bool]:
        return "a-run", True

    async def emit(self, events: list[dict[str, Any]]) -> None:
        resources = [event["resource"]["prefect.resource.id"] for event in events]
        if "s3.object.b-1/bad.tif" in resources:
            raise HopelessRecordError("Prefect refused the event: too long")
        self.emitted += resources


@pytest.mark.parametrize(("mode", "dead"), [("run", 0), ("event", 1)])
def test_an_event_that_prefect_refuses_stops_no_other_event(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, dead: int
) -> None:
    right = {"TOKEN": "hush", "ROOT": str(tmp_path), "PREFECT_API_URL": "http://x/api", "MODE": mode}
    for name, value in right.items():
        monkeypatch.setenv(f"UPLOAD_WEBHOOK_{name}", value)
    settings = Settings.read()
    prefect = _Picky(settings)
    service = app.Webhook(settings, prefect, ObjectStore(root=str(tmp_path)))
    receipt = asyncio.run(service.receive([record("b-1", key) for key in ("a.tif", "bad.tif", "z.tif")]))
    assert prefect.emitted == ["s3.object.b-1/a.tif", "s3.object.b-1/z.tif"]
    assert (receipt.started, receipt.dead) == (3 - dead, dead)
    assert len(list(tmp_path.glob("dead-letters/uploads/*.json"))) == dead


@pytest.mark.parametrize(
    "wrong", [{"bucket": ".."}, {"key": ""}, {"key": "a\x00.tif"}, {"version": ""}, {"version": "a\nb"}, {"key": "./a"}]
)
def test_what_is_no_object_is_no_upload(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Upload(**({"bucket": "b-1", "key": "a.tif", "version": "v"} | wrong))


def test_a_record_of_the_wrong_types_is_hopeless_and_nothing_worse() -> None:
    for wrong in ({"eventName": []}, {"eventName": "s3:ObjectCreated:Put", "s3": {"object": [], "bucket": 5}}):
        with pytest.raises(HopelessRecordError):
            read_record(wrong)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Basic !!", TOKEN, basic("wrong")],
)
def test_without_the_token_nothing_is_taken(shared: tuple[Webhook, Deployment], authorization: str | None) -> None:
    service, deployment = shared
    before = len(deployment.runs())
    answer = request(
        "POST",
        f"{service.url}/uploads",
        json=minio("b-1", "a.tif"),
        headers={"Authorization": authorization} if authorization else {},
    )
    assert answer.status_code == 401
    assert "www-authenticate" in answer.headers
    assert len(deployment.runs()) == before


def test_the_token_may_come_as_a_password(shared: tuple[Webhook, Deployment]) -> None:
    service, _ = shared
    headers = {"Authorization": basic(TOKEN)}
    answer = request("POST", f"{service.url}/uploads", json=ceph("b-1", "by-password.tif"), headers=headers)
    assert answer.json()["started"] == 1


def _chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 65536):
        yield b" " * 65536


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b" " * 10_000_000, 413),
        (json.dumps({"Records": [record("b-1", f"{n}.tif") for n in range(10_000)]}).encode(), 413),
        (json.dumps({"Records": [{}] * 10_000}).encode(), 413),
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"Records": [NaN]}', 400),
        (b"[" * 100_000, 400),
        (b"9" * 100_000, 400),
        (b"null", 422),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"Records": {}}', 422),
        (b'{"Records": [1]}', 422),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_bodies_that_are_no_notification(shared: tuple[Webhook, Deployment], body: bytes, status: int) -> None:
    service, deployment = shared
    before = len(deployment.runs())
    answer = service.post(body)
    assert answer.status_code == status
    assert list(answer.json()) == ["detail"]
    assert len(deployment.runs()) == before


def test_a_body_of_unknown_length_is_not_read_to_its_end(shared: tuple[Webhook, Deployment]) -> None:
    service, _ = shared
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        answer = request("POST", f"{service.url}/uploads", content=_chunks(200_000_000), headers=headers, timeout=60)
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # the service closed the connection before it had taken everything
    assert service.counts()['rejected{status="413"}'] >= 1
    assert request("GET", f"{service.url}/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"UPLOAD_WEBHOOK_TOKEN": ""}, "UPLOAD_WEBHOOK_TOKEN"),
        ({"UPLOAD_WEBHOOK_ROOT": "ftp://x"}, "UPLOAD_WEBHOOK_ROOT"),
        ({"UPLOAD_WEBHOOK_MODE": "both"}, "UPLOAD_WEBHOOK_MODE"),
        ({"UPLOAD_WEBHOOK_DEPLOYMENT": "no-slash"}, "UPLOAD_WEBHOOK_DEPLOYMENT"),
        ({"PREFECT_API_URL": "prefect"}, "PREFECT_API_URL"),
        ({"UPLOAD_WEBHOOK_COLLECTIONS": "survey"}, "UPLOAD_WEBHOOK_COLLECTIONS: .*Invalid JSON.*; the form is"),
        (
            {"UPLOAD_WEBHOOK_COLLECTIONS": '[{"bucket": "r", "prefix": "a", "collection": "s"}]'},
            "0.bucket: not the name",
        ),
        ({"UPLOAD_WEBHOOK_COLLECTIONS": _rule(prefix="a")}, "0.prefix: use a folder such as"),
        ({"UPLOAD_WEBHOOK_COLLECTIONS": _rule(prefix="a/../b/")}, "0.prefix: use a folder such as"),
        ({"UPLOAD_WEBHOOK_COLLECTIONS": _rule(prefix="2026-*/")}, "0.prefix: the prefix must not have"),
        ({"UPLOAD_WEBHOOK_COLLECTIONS": _rule(prefix="list.txt/")}, "0.prefix: the folder must not have a name like"),
        ({"UPLOAD_WEBHOOK_COLLECTIONS": _rule(collection="A--b")}, "0.collection: collection id 'A--b' is not allowed"),
        ({"UPLOAD_WEBHOOK_COLLECTIONS": _rule(colection="x")}, "0.colection: Extra inputs"),
        (
            {"UPLOAD_WEBHOOK_COLLECTIONS": f"[{_rule()[1:-1]}, {_rule()[1:-1]}]"},
            "two rules are about 's3://rasters/in/'",
        ),
        ({"UPLOAD_WEBHOOK_COLLECTIONS": _rule(), "UPLOAD_WEBHOOK_MODE": "event"}, "needs UPLOAD_WEBHOOK_MODE=run"),
        ({"UPLOAD_WEBHOOK_COLLECTION_SLOT_S": "0"}, "UPLOAD_WEBHOOK_COLLECTION_SLOT_S"),
        (
            {"UPLOAD_WEBHOOK_PREFIX": "incoming/"},
            "UPLOAD_WEBHOOK_PREFIX: there is no such variable: use UPLOAD_WEBHOOK_PREFIXES, ..., or unset it",
        ),
        ({"PREFECT_API_KEY": "k", "PREFECT_API_AUTH_STRING": "u:p"}, "both a key and an auth string"),
    ],
)
def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], named: str) -> None:
    right = {"UPLOAD_WEBHOOK_TOKEN": "hush", "UPLOAD_WEBHOOK_ROOT": "/a/folder", "PREFECT_API_URL": "http://x/api"}
    for name, value in (right | wrong).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=named) as refused:
        Settings.read()
    assert "hush" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_variables_that_kubernetes_sets_for_a_service_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    right = {"TOKEN": "hush", "ROOT": "/a/folder", "PREFECT_API_URL": "http://x/api"}
    of_kubernetes = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8480", "PORT": "tcp://10.0.0.1:8480"}
    for name, value in (right | of_kubernetes).items():
        monkeypatch.setenv(f"UPLOAD_WEBHOOK_{name}", value)
    assert Settings.read().root == "/a/folder"


def test_without_settings_it_does_not_start_and_says_so_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.webhook"],
        env={},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "UPLOAD_WEBHOOK_TOKEN: Field required" in done.stderr
    assert "; PREFECT_API_URL or UPLOAD_WEBHOOK_PREFECT_API_URL: Field required" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_schemathesis_finds_nothing(shared: tuple[Webhook, Deployment]) -> None:
    service, _ = shared
    command = [f"{Path(sys.executable).parent}/schemathesis", "run", f"{service.url}/openapi.json"]
    options = ["--checks", "all", "--max-examples", "50", "--seed", "1", "--no-color", "--request-timeout", "60"]
    done = subprocess.run(
        [*command, *options, "--header", f"Authorization: Bearer {TOKEN}"],
        cwd=service.root.parent,
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
