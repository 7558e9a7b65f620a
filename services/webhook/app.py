"""The upload webhook: a bucket notification becomes a flow run, once.

UPLOAD_WEBHOOK_TOKEN=... UPLOAD_WEBHOOK_ROOT=s3://... PREFECT_API_URL=... uvicorn services.webhook.app:app

An answer of 2xx says that Prefect has the runs (or, in mode `event`, the events); 503 says that it has not, and the
S3 server sends the notification again. See docs/uploads.md.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBasic, HTTPBasicCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from rasterembed.errors import StoreError
from rasterembed.store.object_store import ObjectStore
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
from services.webhook.settings import Settings, SettingsError

log = logging.getLogger("uvicorn.error")

_HOLD_S = 1.0
"""How long a 503 is held back: Ceph's gateway sends again at once, a hundred times a second, as long as it lasts."""


class Receipt(BaseModel):
    """What became of a notification's records."""

    received: int
    started: int = 0
    """New flow runs; in mode `event`, emitted events."""
    duplicate: int = 0
    """Records whose run there was already."""
    ignored: int = 0
    """Records of other events, or of objects that the rules do not follow."""
    dead: int = 0
    """Records that can never become a run; they are kept in the dead-letter folder."""


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class Metrics:
    """Counters of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"upload_webhook_{name}", what, labels, registry=self.registry)

        self.received = counter("received", "Records received.")
        self.started = counter("started", "Flow runs created, or events emitted in mode event.")
        self.duplicate = counter("duplicate", "Records whose flow run there was already.")
        self.ignored = counter("ignored", "Records that the rules do not follow.")
        self.dead = counter("dead", "Records kept as dead letters.")
        self.rejected = counter("rejected", "Requests refused.", "status")


@dataclass
class Webhook:
    """The running service."""

    settings: Settings
    prefect: PrefectApi
    store: ObjectStore
    metrics: Metrics = field(default_factory=Metrics)

    async def receive(self, records: list[dict[str, Any]]) -> Receipt:
        """Deal with every record.

        Raises:
            PrefectUnavailableError: if Prefect did not take one; the others may be taken.
            StoreError: if a dead letter could not be kept.
        """
        self.metrics.received.inc(len(records))
        outcomes = await asyncio.gather(*map(self._deal_with, records), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        dealt = cast(list[tuple[str, dict[str, Any] | None]], outcomes)
        if events := [told for _, told in dealt if told]:
            await self.prefect.emit(events)
        receipt = Receipt(received=len(records))
        for what, _ in dealt:
            setattr(receipt, what, getattr(receipt, what) + 1)
            getattr(self.metrics, what).inc()
        return receipt

    async def _deal_with(self, record: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
        """What became of a record, and the event to tell of it."""
        try:
            created = read_record(record)
            if created is None or not self._follows(created):
                return "ignored", None
            if self.settings.mode == "event":
                return "started", event(created, None)
            parameters = created.upload.parameters(self.settings.root, self.settings.store)
            run_id, is_new = await self.prefect.start(created, parameters)
        except HopelessRecordError as error:
            where = await bury(self.store, record, str(error))
            log.warning("dead letter %s: %r", where, str(error))
            return "dead", None
        log.info("%s %r: flow run %s", "started" if is_new else "known", created.upload.uri, run_id)
        return "started" if is_new else "duplicate", event(created, run_id)

    def _follows(self, created: Created) -> bool:
        return self.settings.rules.follow(created.upload.bucket, created.upload.key, self.settings.root)


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    settings = Settings.read()
    async with PrefectApi(settings) as prefect:
        app.state.webhook = Webhook(settings, prefect, ObjectStore(root=settings.root))
        yield


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


class _App(FastAPI):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse to start with wrong settings, in one line: what a lifespan raises is logged with its traceback."""
        if scope["type"] == "lifespan":
            try:
                Settings.read()
            except SettingsError as error:
                await receive()
                await send({"type": "lifespan.startup.failed", "message": f"wrong settings: {error}"})
                return
        await super().__call__(scope, receive, send)


app = _App(
    title="Upload webhook",
    summary="Bucket notifications of an S3 server start flow runs.",
    lifespan=_running,
    # the page that FastAPI serves loads its scripts from elsewhere
    docs_url=None,
    redoc_url=None,
)


@app.exception_handler(HTTPException)
async def _refuse(request: Request, error: HTTPException) -> Response:
    _webhook(request).metrics.rejected.labels(error.status_code).inc()
    return Response(
        Problem(detail=error.detail).model_dump_json(), error.status_code, error.headers, "application/json"
    )


_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    413: {"model": Problem, "description": "The body, or the number of records, is over the limit."},
    422: {"model": Problem, "description": "The body is JSON, but no bucket notification."},
    503: {"model": Problem, "description": "Prefect, or the store for dead letters, is away: send it again."},
}


@app.post(
    "/uploads",
    summary="Receive a bucket notification",
    dependencies=[Depends(_authorised)],
    responses=_RESPONSES,
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": SCHEMA}}}},
)
async def uploads(request: Request, webhook: Service) -> Receipt:
    """Create a flow run for each object that was created, and emit the event of it.

    Sending the same notification again changes nothing.
    """
    try:
        records = read_body(await _read(request, webhook.settings.max_body_bytes))
    except (NotJsonError, ClientDisconnect) as error:
        raise HTTPException(400, f"not JSON: {error}") from error
    except NotANotificationError as error:
        raise HTTPException(422, f"no bucket notification: {error}") from error
    if len(records) > webhook.settings.max_records:
        raise HTTPException(413, f"{len(records)} records are more than {webhook.settings.max_records}")
    try:
        return await webhook.receive(records)
    except (PrefectUnavailableError, StoreError) as error:
        log.warning("not taken: %s", error)
        await asyncio.sleep(_HOLD_S)
        raise HTTPException(503, str(error), {"Retry-After": "3"}) from error


async def _read(request: Request, limit: int) -> bytes:
    """The body, of which no more is ever held than the limit."""
    body = bytearray()
    too_large = HTTPException(413, f"the body is over {limit} bytes", {"Connection": "close"})
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


@app.get("/healthz", summary="Whether the process lives")
async def healthz() -> dict[str, str]:
    """Answer."""
    return {"status": "ok"}


@app.get("/readyz", summary="Whether notifications can be taken", responses={503: _RESPONSES[503]})
async def readyz(webhook: Service) -> dict[str, str]:
    """Ask Prefect, and in mode `run` for the deployment."""
    try:
        if webhook.settings.mode == "run":
            await webhook.prefect.find_deployment()
        else:
            await webhook.prefect.check()
    except PrefectUnavailableError as error:
        raise HTTPException(503, str(error)) from error
    return {"status": "ready"}


@app.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(webhook: Service) -> Response:
    """Counters of this process."""
    return Response(generate_latest(webhook.metrics.registry), media_type=CONTENT_TYPE_LATEST)
