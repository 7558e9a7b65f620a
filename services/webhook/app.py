"""The upload webhook: create exactly one flow run for each upload that an S3 server announces.

Uploads into a collection share a run. See `services.webhook.prefect_api.PrefectApi.start_for_collection`.

`python -m services.webhook` runs it, with limits for connections.

Status 2xx means that Prefect has all the runs (in mode `event`: all the events). Status 503 means
that Prefect may lack some of them. The S3 server then sends the notification again. See docs/uploads.md.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBasic, HTTPBasicCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from rasterembed.errors import StoreError
from rasterembed.escape import escape_terminal
from rasterembed.store.collection_rules import is_scene, rule_for
from rasterembed.store.object_store import ObjectStore
from services.webhook.collection_runs import CollectionRuns
from services.webhook.dead_letters import bury
from services.webhook.notifications import (
    SCHEMA,
    Created,
    HopelessRecordError,
    NotANotificationError,
    NotJsonError,
    read_body,
    read_record,
)
from services.webhook.prefect_api import PrefectApi, PrefectUnavailableError, event
from services.webhook.settings import Settings

log = logging.getLogger("uvicorn.error")

_HOLD_S = 1.0
"""Seconds to wait before status 503 is sent. Without a wait, Ceph's gateway repeats a refused notification a hundred
times a second."""

_READY_S = 5.0
"""Seconds that `/readyz` waits for Prefect. The wait is short, because anyone may send this request, and each request
holds a connection."""


class Outcome(StrEnum):
    """The result of one record. The values are the names in the webhook's answer and in the metrics."""

    STARTED = "started"
    """A new flow run was created; in mode `event`, an event was emitted."""
    DUPLICATE = "duplicate"
    """Prefect already had the record's flow run."""
    IGNORED = "ignored"
    """The record is about another kind of event, or the rules exclude the object."""
    DEAD = "dead"
    """The record can never become a run. The webhook stored it as a dead letter."""


class OutcomeCounts(BaseModel):
    """Number of records in a notification, by outcome."""

    received: int
    """Records in the notification."""
    started: int = 0
    """New flow runs; in mode `event`, emitted events."""
    duplicate: int = 0
    """Records whose flow run already existed."""
    ignored: int = 0
    """Records about other kinds of events, or about objects that the rules exclude."""
    dead: int = 0
    """Records that can never become a run. The webhook stored them as dead letters."""

    @classmethod
    def count(cls, outcomes: Iterable[Outcome]) -> OutcomeCounts:
        """Count the outcomes of all records of a notification."""
        found = list(outcomes)
        return cls(received=len(found), **{outcome.value: found.count(outcome) for outcome in Outcome})


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class Metrics:
    """Counters of this process, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.received = self._counter("received", "Records received.")
        self.outcomes = {
            Outcome.STARTED: self._counter("started", "Flow runs created, or events emitted in mode event."),
            Outcome.DUPLICATE: self._counter("duplicate", "Records whose flow run already existed."),
            Outcome.IGNORED: self._counter(
                "ignored", "Records about other events, or about objects that the rules exclude."
            ),
            Outcome.DEAD: self._counter("dead", "Records stored as dead letters."),
        }
        self.rejected = self._counter("rejected", "Requests refused.", "status")

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"upload_webhook_{name}", description, labels, registry=self.registry)


@dataclass(frozen=True)
class _Handled:
    """The outcome of a record. If the record is an upload, `event` announces the upload."""

    record: dict[str, Any]
    outcome: Outcome
    event: dict[str, Any] | None = None


@dataclass
class Webhook:
    """The running service."""

    settings: Settings
    prefect: PrefectApi
    store: ObjectStore
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self._collection_runs = CollectionRuns(self.prefect)

    async def receive(self, records: list[dict[str, Any]]) -> OutcomeCounts:
        """Handle every record of a notification, all at once, and count the outcomes.

        Raises:
            PrefectUnavailableError: if Prefect did not accept a record. Prefect may have accepted other records.
            StoreError: if a dead letter could not be stored.
        """
        self.metrics.received.inc(len(records))
        # With `return_exceptions`, a record that fails does not stop the others. Prefect keeps the runs of the others.
        results = await asyncio.gather(*map(self._handle, records), return_exceptions=True)
        handled: list[_Handled] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            handled.append(result)
        handled = await self._announce(handled)
        for one in handled:
            self.metrics.outcomes[one.outcome].inc()
        return OutcomeCounts.count(one.outcome for one in handled)

    async def _announce(self, handled: list[_Handled]) -> list[_Handled]:
        """Emit the events of all records, and return the records with their outcomes.

        Prefect refuses all events of a request if it refuses one. So after a refusal, each event is sent alone.
        """
        events = [one.event for one in handled if one.event]
        try:
            if events:
                await self.prefect.emit(events)
            return handled
        except HopelessRecordError:
            return [await self._announce_alone(one) for one in handled]

    async def _announce_alone(self, one: _Handled) -> _Handled:
        """Emit the event of a record. In mode `event`, a record whose event is refused becomes a dead letter."""
        try:
            if one.event:
                await self.prefect.emit([one.event])
        except HopelessRecordError as error:
            if self.settings.mode == "event":
                return await self._bury(one.record, error)
            log.warning("the flow run exists, but its event is lost: %r", str(error))
        return one

    async def _bury(self, record: dict[str, Any], error: HopelessRecordError) -> _Handled:
        """Store a record as a dead letter."""
        where = await bury(self.store, record, str(error))
        log.warning("dead letter %s: %r", where, str(error))
        return _Handled(record, Outcome.DEAD)

    async def _handle(self, record: dict[str, Any]) -> _Handled:
        """Start the flow run of a record, if it needs one. In mode `event`, only make the event."""
        try:
            created = read_record(record)
            if created is None or not self._follows(created):
                return _Handled(record, Outcome.IGNORED)
            if self.settings.mode == "event":
                return _Handled(record, Outcome.STARTED, event(created, None))
            rule = rule_for(self.settings.collections, created.upload.bucket, created.upload.key)
            if rule is not None:
                if not is_scene(created.upload.key):  # The run would not find it.
                    return _Handled(record, Outcome.IGNORED)
                run_id, is_new = await self._collection_runs.start(rule)
            else:
                parameters = created.upload.parameters(self.settings.root, self.settings.store)
                run_id, is_new = await self.prefect.start(created, parameters)
        except HopelessRecordError as error:
            return await self._bury(record, error)
        log.info("%s %r: flow run %s", "started" if is_new else "already known", created.upload.uri, run_id)
        return _Handled(record, Outcome.STARTED if is_new else Outcome.DUPLICATE, event(created, run_id))

    def _follows(self, created: Created) -> bool:
        return self.settings.rules.follow(created.upload.bucket, created.upload.key, self.settings.root)


def create_app(settings: Settings) -> FastAPI:
    """Return the service as an ASGI application."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        async with PrefectApi(settings) as prefect:
            app.state.webhook = Webhook(settings, prefect, ObjectStore(root=settings.root))
            yield

    app = FastAPI(
        title="Upload webhook",
        summary="Bucket notifications of an S3 server start flow runs.",
        version=version("raster-embeddings"),
        lifespan=running,
        # FastAPI's documentation pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        exception_handlers={HTTPException: _refuse},
    )
    app.include_router(_routes)
    return app


def _webhook(request: Request) -> Webhook:
    return cast(Webhook, request.app.state.webhook)


Service = Annotated[Webhook, Depends(_webhook)]


def _authorised(
    webhook: Service,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    basic: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))],
) -> None:
    shown = bearer.credentials if bearer else basic.password if basic else ""
    token = webhook.settings.token.get_secret_value()
    if not secrets.compare_digest(shown.encode(), token.encode()):
        raise HTTPException(401, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})


_routes = APIRouter()


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # `create_app` registers this function for these errors only.
    if error.status_code != 503:  # The reason for 503 is logged where it is found.
        log.warning("refused with status %s: %s", error.status_code, error.detail)
    _webhook(request).metrics.rejected.labels(error.status_code).inc()
    return Response(
        Problem(detail=error.detail).model_dump_json(), error.status_code, error.headers, "application/json"
    )


_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    413: {"model": Problem, "description": "The body, or the number of records, is over the limit."},
    422: {"model": Problem, "description": "The body is JSON, but not a bucket notification."},
    503: {
        "model": Problem,
        "description": "Prefect, or the store for dead letters, does not answer. Send the notification again.",
    },
}


@_routes.post(
    "/uploads",
    summary="Receive a bucket notification",
    dependencies=[Depends(_authorised)],
    responses=_RESPONSES,
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": SCHEMA}}}},
)
async def uploads(request: Request, webhook: Service) -> OutcomeCounts:
    """Create a flow run and emit an event for each object that was created.

    If the same notification is sent again, nothing changes.
    """
    try:
        records = read_body(await _read(request, webhook.settings.max_body_bytes))
    except (NotJsonError, ClientDisconnect) as error:
        raise HTTPException(400, f"not JSON: {error}") from error
    except NotANotificationError as error:
        raise HTTPException(422, f"not a bucket notification: {error}") from error
    if len(records) > webhook.settings.max_records:
        raise HTTPException(413, f"{len(records)} records are more than {webhook.settings.max_records}")
    try:
        return await webhook.receive(records)
    except (PrefectUnavailableError, StoreError) as error:
        log.warning("notification refused: %s", escape_terminal(error))
        await asyncio.sleep(_HOLD_S)
        raise HTTPException(503, str(error), {"Retry-After": "3"}) from error


async def _read(request: Request, limit: int) -> bytes:
    """Read the body of a request, and stop as soon as it is larger than `limit` bytes."""
    body = bytearray()
    too_large = HTTPException(413, f"the body is over {limit} bytes", {"Connection": "close"})
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


@_routes.get("/healthz", summary="Tell whether the process runs")
async def healthz() -> dict[str, str]:
    """Return a fixed answer, which shows that the process runs."""
    return {"status": "ok"}


@_routes.get("/readyz", summary="Tell whether the webhook can accept notifications", responses={503: _RESPONSES[503]})
async def readyz(webhook: Service) -> dict[str, str]:
    """Check that Prefect answers. In mode `run`, also check that the deployments exist."""
    try:
        async with asyncio.timeout(_READY_S):
            if webhook.settings.mode == "run":
                await webhook.prefect.find_deployments()
            else:
                await webhook.prefect.check()
    except TimeoutError as error:
        raise HTTPException(503, f"no answer from Prefect within {_READY_S} s") from error
    except PrefectUnavailableError as error:
        raise HTTPException(503, str(error)) from error
    return {"status": "ready"}


@_routes.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(webhook: Service) -> Response:
    """Return the counters of this process."""
    return Response(generate_latest(webhook.metrics.registry), media_type=CONTENT_TYPE_LATEST)
