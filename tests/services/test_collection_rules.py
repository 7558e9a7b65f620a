"""Uploads into a collection: rules, few runs for many notifications, and no upload without a later run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from rasterembed.store.collection_rules import CollectionRule, is_scene, read_rules, rule_for
from services.webhook.prefect_api import has_not_begun
from tests.support.http import request
from tests.support.prefect_server import PrefectServer
from tests.support.webhook import COLLECTION, Deployment, Webhook, ask, deploy, minio, record, webhook

RULES = [
    {"bucket": "rasters", "prefix": "in/", "collection": "survey"},
    {"bucket": "rasters", "prefix": "in/special/", "collection": "special"},
]


# --- the rules -------------------------------------------------------------------------------------------------------


def test_the_longest_prefix_wins_and_keys_are_only_compared() -> None:
    rules = read_rules(json.dumps([*RULES, {"bucket": "other", "collection": "whole-bucket"}]))

    def collection(bucket: str, key: str) -> str | None:
        rule = rule_for(rules, bucket, key)
        return None if rule is None else rule.collection

    assert collection("rasters", "in/a.tif") == "survey"
    assert collection("rasters", "in/special/a.tif") == "special"
    assert collection("rasters", "in/specials/a.tif") == "survey"
    assert collection("rasters", "in") is None
    assert collection("rasters", "inn/a.tif") is None
    assert collection("rasters", "elsewhere/in/a.tif") is None
    assert collection("rasters2", "in/a.tif") is None
    assert collection("other", "any/key.tif") == "whole-bucket"
    for hostile in ("in/{{ 1 }}.tif", "in/$(reboot).tif", "in/*[.tif", "in/<script>.tif", 'in/"},{".tif'):
        assert collection("rasters", hostile) == "survey"
    assert rules[2].scenes == "s3://other/"
    assert [is_scene(key) for key in ("a.TIF", "a.jp2", "a.txt", "a.tif.aux.xml")] == [True, True, False, False]


def test_runs_of_another_store_or_prefix_have_another_identity_and_no_source_store() -> None:
    rule = CollectionRule(bucket="rasters", prefix="in/", collection="survey")
    other = CollectionRule(bucket="rasters", prefix="out/", collection="survey")
    identities = {rule.identity("s3://a"), rule.identity("s3://b"), other.identity("s3://a")}
    assert len(identities) == 3
    assert all(identity.startswith("collection:survey:") for identity in identities)
    assert rule.parameters("s3://a", "block") == {
        "collection": "survey",
        "scenes": "s3://rasters/in/",
        "root": "s3://a",
        "store": "block",
        "source_store": None,
    }
    assert rule.parameters(None, None) == {"collection": "survey", "scenes": "s3://rasters/in/", "source_store": None}


@pytest.mark.parametrize(
    "prefix", ["/in/", "in//x/", "./", "in/../", "in/\n/", "in?/", "x.tif/", "in", "a" * 10**6 + "/", "ä" * 512 + "/"]
)
def test_a_prefix_that_a_run_would_not_read_as_a_folder_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError):
        CollectionRule(bucket="rasters", prefix=prefix, collection="survey")


def test_a_run_that_is_pending_for_long_is_not_counted_on() -> None:
    def run(state: str, minutes: float) -> dict[str, Any]:
        return {"state": {"type": state, "timestamp": (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()}}

    assert has_not_begun(run("SCHEDULED", 600))  # It waits for a worker, and begins later.
    assert has_not_begun(run("PENDING", 14))
    assert not has_not_begun(run("PENDING", 16))
    for state in ("RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CANCELLING", "CRASHED", "PAUSED"):
        assert not has_not_begun(run(state, 0))


# --- the webhook -----------------------------------------------------------------------------------------------------


@contextmanager
def _running(server: PrefectServer, slot_s: float) -> Iterator[tuple[Webhook, Deployment, Deployment]]:
    single, collections = deploy(server), deploy(server, COLLECTION)
    settings = {"collections": json.dumps(RULES), "collection_slot_s": str(slot_s), "store": "a-block"}
    with webhook(
        server.api_url, single.name, None, None, collection_deployment=collections.name, **settings
    ) as service:
        yield service, single, collections


def _begin(deployment: Deployment, run: dict[str, Any], state: str = "RUNNING", **details: Any) -> None:
    body = {"state": {"type": state} | details, "force": True}
    ask("POST", f"{deployment.api_url}/flow_runs/{run['id']}/set_state", body)


def test_many_notifications_at_once_are_one_run_at_the_end_of_the_slot(prefect: PrefectServer) -> None:
    with _running(prefect, 3600) as (service, single, collections):
        before = datetime.now(UTC)
        bodies = [minio("rasters", f"in/{number:03d}.tif") for number in range(60)]
        bodies += [minio("rasters", key) for key in ("in/ä b+c.TIFF", "in/{{ flow_run.id }}.tif")]
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(service.post, bodies))
        assert [answer.status_code for answer in answers] == [200] * len(bodies)
        assert sum(answer.json()["started"] for answer in answers) == 1
        assert sum(answer.json()["duplicate"] for answer in answers) == len(bodies) - 1
        several = {"Records": [record("rasters", key) for key in ("in/x.txt", "in/special/a.tif", "out/a.tif")]}
        assert service.post(several).json() == {"received": 3, "started": 2, "duplicate": 0, "ignored": 1, "dead": 0}
        assert service.post(minio("rasters", "in/../a.tif")).json()["dead"] == 1
        runs = {run["parameters"]["collection"]: run for run in collections.runs()}
        assert sorted(runs) == ["special", "survey"]
        assert len(collections.runs()) == 2
        run = runs["survey"]
        root = str(service.root)
        assert run["parameters"] == {
            "collection": "survey",
            "scenes": "s3://rasters/in/",
            "root": root,
            "store": "a-block",
            "source_store": None,
        }
        start = datetime.fromisoformat(run["state"]["state_details"]["scheduled_time"])
        assert before < start <= datetime.now(UTC) + timedelta(hours=1)
        assert start.timestamp() % 3600 == 0
        assert set(run["tags"]) == {"upload", CollectionRule(**RULES[0]).identity(root)}
        assert single.rasters() == ["s3://rasters/out/a.tif"]


def test_an_upload_after_the_run_has_begun_gets_the_next_run(prefect: PrefectServer) -> None:
    """A run that has begun may have listed the prefix before this upload. The slot is the same all the time."""
    with _running(prefect, 3600) as (service, _, collections):
        assert service.post(minio("rasters", "in/a.tif")).json()["started"] == 1
        (first,) = collections.runs()
        _begin(collections, first)
        assert service.post(minio("rasters", "in/b.tif")).json()["started"] == 1
        assert service.post(minio("rasters", "in/c.tif")).json()["duplicate"] == 1
        first, second = collections.runs()
        assert (first["state"]["type"], second["state"]["type"]) == ("RUNNING", "SCHEDULED")
        # A run that has its worker, but has not begun, still takes uploads. So does one that waits for the first.
        for state in ({"state": "PENDING"}, {"state": "SCHEDULED", "name": "AwaitingConcurrencySlot"}):
            _begin(collections, second, **state)
            assert service.post(minio("rasters", "in/d.tif")).json()["duplicate"] == 1
        for ended in ("FAILED", "CANCELLED"):
            _begin(collections, collections.runs()[-1], ended)
            assert service.post(minio("rasters", "in/e.tif")).json()["started"] == 1
        assert len(collections.runs()) == 4


def test_two_webhooks_create_one_run_for_a_slot(prefect: PrefectServer, tmp_path: Any) -> None:
    single, collections = deploy(prefect), deploy(prefect, COLLECTION)

    def service() -> AbstractContextManager[Webhook]:
        names = {"collections": json.dumps(RULES), "collection_deployment": collections.name}
        return webhook(prefect.api_url, single.name, tmp_path, None, collection_slot_s="86400", **names)

    with (
        service() as one,
        service() as other,
        ThreadPoolExecutor(8) as pool,
    ):
        bodies = [minio("rasters", f"in/{number}.tif") for number in range(8)]
        services = [one, other] * 4
        answers = list(pool.map(lambda pair: pair[0].post(pair[1]), zip(services, bodies, strict=True)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len(collections.runs()) == 1


def test_without_its_deployment_nothing_is_taken_and_nothing_is_lost(prefect: PrefectServer) -> None:
    single = deploy(prefect)
    with webhook(
        prefect.api_url, single.name, collections=json.dumps(RULES), collection_deployment="embed-collection/none"
    ) as service:
        answer = service.post(minio("rasters", "in/a.tif"))
        assert answer.status_code == 503
        assert "Prefect has no deployment 'embed-collection/none'" in answer.json()["detail"]
        assert service.post(minio("rasters", "out/a.tif")).status_code == 200
        ready = request("GET", f"{service.url}/readyz")
        assert (ready.status_code, ready.json()) == (503, answer.json())
