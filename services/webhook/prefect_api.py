"""The requests of the webhook to Prefect's REST API.

The webhook sends only five kinds of requests. It does not use Prefect's own client: with plain HTTP, the webhook sees
the status code of each answer, starts quickly, and needs little memory.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from rasterembed.store.collection_rules import CollectionRule
from services.webhook.notifications import Created, HopelessRecordError
from services.webhook.settings import Settings

_TIMEOUT = httpx.Timeout(20.0, connect=5.0)
_PATIENCE_S = 20.0
"""Longest time in seconds that a record waits until the runs of earlier records are created."""

_BUSY = (429, 502, 503)
_BUSY_DELAYS_S = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds to wait before each repetition of a request, if Prefect is busy. A random factor from 1 to 2 is applied."""

_REFUSED = (400, 409, 413, 422)
"""Status codes of answers that refuse the content of a request. The same request will be refused again."""


_SLOTS = 5
"""Number of time slots in which the run of a collection is looked for or created."""

_NOT_BEGUN = ("SCHEDULED", "PENDING")
"""States of a run that has not begun."""

_PENDING_S = 900.0
"""A run that is pending for more seconds is not counted on. Its process may have died before it reported a state."""


class PrefectUnavailableError(Exception):
    """Prefect did not accept a record, but the record is not the reason. The same request may succeed later."""


class PrefectApi:
    """Prefect's API, for the deployments that the settings name."""

    def __init__(self, settings: Settings) -> None:
        auth, headers = None, {}
        if settings.prefect_api_auth_string:
            user, _, password = settings.prefect_api_auth_string.get_secret_value().partition(":")
            auth = httpx.BasicAuth(user, password)
        if settings.prefect_api_key:
            headers = {"Authorization": f"Bearer {settings.prefect_api_key.get_secret_value()}"}
        self._client = httpx.AsyncClient(
            base_url=settings.prefect_api_url, auth=auth, headers=headers, timeout=_TIMEOUT
        )
        # Runs are created one at a time. If several were created at once, Prefect on SQLite would answer 503 to all but
        # one. One creation takes about 30 ms.
        self._turn = asyncio.Lock()
        self._settings = settings
        self._deployments: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def check(self) -> None:
        """Check that Prefect answers.

        Raises:
            PrefectUnavailableError: if Prefect does not answer.
        """
        self._accepted(await self._request("GET", "/health"))

    async def find_deployments(self) -> None:
        """Check that the deployments exist that the settings name.

        Raises:
            PrefectUnavailableError: if Prefect does not answer, or if a deployment does not exist.
        """
        await self._find_deployment(self._settings.deployment)
        if self._settings.collections:
            await self._find_deployment(self._settings.collection_deployment)

    async def _find_deployment(self, wanted: str) -> str:
        """Ask Prefect for the id of a deployment, given as flow/deployment."""
        flow, _, name = wanted.partition("/")
        answer = await self._request("GET", f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
        if answer.status_code == 404:
            raise PrefectUnavailableError(
                f"Prefect has no deployment {wanted!r}: check its name, and that PREFECT_API_URL ends in /api"
            )
        self._deployments[wanted] = str(self._accepted(answer).json()["id"])
        return self._deployments[wanted]

    async def start(self, created: Created, parameters: dict[str, Any]) -> tuple[str, bool]:
        """Create the upload's flow run, if it does not exist yet.

        Returns:
            The run's id, and whether the run is new.

        Raises:
            HopelessRecordError: if the deployment refuses the parameters.
            PrefectUnavailableError: if Prefect does not answer, or if the deployment does not exist.
        """
        body = {
            "name": created.upload.uri,
            "parameters": parameters,
            "idempotency_key": created.upload.identity,
            "tags": ["upload"],
        }
        async with self._my_turn():
            run, is_new = await self._create(self._settings.deployment, body)
        return str(run["id"]), is_new

    async def start_for_collection(self, rule: CollectionRule) -> tuple[str, bool]:
        """Return a run of `embed-collection` that lists the rule's prefix later than now. Create it if necessary.

        A run lists the prefix only after it has begun. So every upload that exists now is found by a run that has not
        begun when Prefect answers. No clock decides this. A run that has begun may have listed the prefix already.

        A new run is scheduled for the end of the present time slot, so that it takes the uploads of the whole slot. Its
        idempotency key names the slot. If several webhooks create the run at once, Prefect creates only one.

        Returns:
            The run's id, and whether the run is new.

        Raises:
            HopelessRecordError: if the deployment refuses the parameters.
            PrefectUnavailableError: if Prefect does not answer, or if the deployment does not exist.
        """
        settings = self._settings
        identity = rule.identity(settings.root)
        async with self._my_turn():
            waiting = await self._waiting_run(identity)
            if waiting is not None:
                return waiting, False
            length = settings.collection_slot_s
            first = int(time.time() // length)
            for slot in range(first, first + _SLOTS):
                start = datetime.fromtimestamp((slot + 1) * length, UTC)
                body = {
                    "name": f"{rule.collection} from {rule.scenes}",
                    "parameters": rule.parameters(settings.root, settings.store),
                    "idempotency_key": f"{identity}:{slot}",
                    "tags": ["upload", identity],
                    "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": start.isoformat()}},
                }
                run, is_new = await self._create(settings.collection_deployment, body)
                if is_new or has_not_begun(run):
                    return str(run["id"]), is_new
                # A person started the slot's run too early or cancelled it, or the clocks differ. Take a later slot.
        raise PrefectUnavailableError(f"all runs of the next {_SLOTS} time slots have begun: compare the clocks")

    async def _waiting_run(self, identity: str) -> str | None:
        """Return the id of a run with this tag that has not begun, or None."""
        wanted = {"tags": {"all_": [identity]}, "state": {"type": {"any_": list(_NOT_BEGUN)}}}
        answer = self._accepted(await self._request("POST", "/flow_runs/filter", json={"flow_runs": wanted}))
        return next((str(run["id"]) for run in answer.json() if has_not_begun(run)), None)

    @asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        """Wait until no other record creates a run."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._turn.acquire()
        except TimeoutError as error:
            raise PrefectUnavailableError("Prefect is too slow for so many uploads at once") from error
        try:
            yield
        finally:
            self._turn.release()

    async def _create(self, deployment: str, body: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Create a flow run, if none has the same idempotency key. Return the run, and whether it is new."""
        known = self._deployments.get(deployment)
        answer = await self._post_run(known or await self._find_deployment(deployment), body)
        if answer.status_code == 404:  # The deployment was replaced after its id was read.
            answer = await self._post_run(await self._find_deployment(deployment), body)
        if answer.status_code in _REFUSED:
            raise HopelessRecordError(f"Prefect refused the run: {answer.text[:1000]}")
        run: dict[str, Any] = self._accepted(answer).json()
        return run, answer.status_code == 201

    async def _post_run(self, deployment_id: str, body: dict[str, Any]) -> httpx.Response:
        return await self._request("POST", f"/deployments/{deployment_id}/create_flow_run", json=body)

    async def emit(self, events: list[dict[str, Any]]) -> None:
        """Send events to Prefect, in one request.

        Raises:
            HopelessRecordError: if Prefect refuses the content of an event.
            PrefectUnavailableError: if Prefect does not answer.
        """
        answer = await self._request("POST", "/events", json=events)
        if answer.status_code in _REFUSED:
            raise HopelessRecordError(f"Prefect refused the event: {answer.text[:1000]}")
        self._accepted(answer)

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            for delay in _BUSY_DELAYS_S:
                answer = await self._client.request(method, path, **options)
                if answer.status_code not in _BUSY:
                    return answer
                await asyncio.sleep(delay * random.uniform(1, 2))
            return await self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise PrefectUnavailableError(f"no answer from Prefect ({type(error).__name__})") from error

    def _accepted(self, answer: httpx.Response) -> httpx.Response:
        if not answer.is_success:
            raise PrefectUnavailableError(f"Prefect answered {answer.status_code} to {answer.request.url.path}")
        return answer


def has_not_begun(run: dict[str, Any]) -> bool:
    """Return whether a flow run, as Prefect describes it, will begin later."""
    state = run.get("state") or {}
    if state.get("type") == "PENDING":
        return datetime.now(UTC) - datetime.fromisoformat(state["timestamp"]) < timedelta(seconds=_PENDING_S)
    return state.get("type") == "SCHEDULED"


def event(created: Created, run_id: str | None) -> dict[str, Any]:
    """Return the upload as a Prefect event. If `run_id` is given, the event links to that flow run.

    Every notification of the same upload gives an event with the same id.
    """
    upload = created.upload
    related = [{"prefect.resource.id": f"prefect.flow-run.{run_id}", "prefect.resource.role": "flow-run"}]
    return {
        "id": str(upload.event_id),
        "event": created.event,
        "occurred": created.occurred.isoformat(),
        "resource": {
            "prefect.resource.id": f"s3.object.{upload.bucket}/{upload.key}",
            "prefect.resource.name": upload.key,
            "s3.bucket": upload.bucket,
            "s3.key": upload.key,
            "s3.version": upload.version,
        },
        "related": related if run_id else [],
        "payload": {"uri": upload.uri, "size": created.size},
    }
