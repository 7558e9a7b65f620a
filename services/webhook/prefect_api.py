"""The requests of the webhook to Prefect's REST API.

The webhook sends only four kinds of requests. It does not use Prefect's own client: with plain HTTP, the webhook sees
the status code of each answer, starts quickly, and needs little memory.
"""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

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


class PrefectUnavailableError(Exception):
    """Prefect did not accept a record, but the record is not the reason. The same request may succeed later."""


class PrefectApi:
    """Prefect's API, for one deployment."""

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
        self._deployment = settings.deployment
        self._deployment_id: str | None = None

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

    async def find_deployment(self) -> str:
        """Return the id of the deployment.

        Raises:
            PrefectUnavailableError: if Prefect does not answer, or if the deployment does not exist.
        """
        flow, _, name = self._deployment.partition("/")
        answer = await self._request("GET", f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
        if answer.status_code == 404:
            raise PrefectUnavailableError(f"Prefect has no deployment {self._deployment!r}")
        self._deployment_id = str(self._accepted(answer).json()["id"])
        return self._deployment_id

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
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._turn.acquire()
        except TimeoutError as error:
            raise PrefectUnavailableError("Prefect is too slow for so many uploads at once") from error
        try:
            answer = await self._create(self._deployment_id or await self.find_deployment(), body)
            if answer.status_code == 404:  # The deployment was replaced after its id was read.
                answer = await self._create(await self.find_deployment(), body)
        finally:
            self._turn.release()
        if answer.status_code in _REFUSED:
            raise HopelessRecordError(f"Prefect refused the run: {answer.text[:1000]}")
        return str(self._accepted(answer).json()["id"]), answer.status_code == 201

    async def _create(self, deployment_id: str, body: dict[str, Any]) -> httpx.Response:
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
