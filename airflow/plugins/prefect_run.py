"""A Prefect flow run as an Airflow task, over Prefect's REST API; no Prefect package is needed here.

This stands in the plugins folder because the triggerer, which waits for the run, has no DAG folder on its path.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import tenacity
from airflow.sdk import BaseOperator, Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferralError, TaskDeferralTimeout
from airflow.triggers.base import BaseTrigger, TriggerEvent

TIMEOUT_S = 30.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
CANCEL = {"state": {"type": "CANCELLING", "name": "Cancelling"}}

AGAIN: dict[str, Any] = {
    "retry": tenacity.retry_if_exception_type(httpx.TransportError)
    | tenacity.retry_if_result(lambda answer: answer.status_code in (429, 502, 503, 504)),
    "wait": tenacity.wait_random_exponential(multiplier=0.5, max=10),
    "stop": tenacity.stop_after_delay(60),
    "retry_error_callback": lambda state: state.outcome.result(),  # what the last request brought
}
"""How a request is repeated. Prefect on SQLite answers 503 to one of two writes at once. Every request of this module
may arrive twice: a run is created under a key."""


def api(connection: Connection) -> dict[str, Any]:
    """Options of an HTTP client for the API that a connection names.

    The host is the API's URL, as http://prefect-server:4200/api. A password alone is an API key; a login and a password
    are a self-hosted server's basic authentication.
    """
    url = (connection.host or "").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise AirflowFailException(
            f"connection {connection.conn_id!r}: the host must be the URL of Prefect's API, as http://127.0.0.1:4200/api"
        )
    options: dict[str, Any] = {"base_url": url, "timeout": TIMEOUT_S}
    if connection.login:
        options["auth"] = (connection.login, connection.password or "")
    elif connection.password:
        options["headers"] = {"Authorization": f"Bearer {connection.password}"}
    return options


@tenacity.retry(**AGAIN)
def send(client: httpx.Client, method: str, path: str, body: Any = None) -> httpx.Response:
    """Prefect's answer; asked for again, for up to a minute, while the server is busy or away.

    Raises:
        httpx.TransportError: if it stays away.
    """
    return client.request(method, path, json=body)


@tenacity.retry(**AGAIN)
async def send_async(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> httpx.Response:
    """As `send`."""
    return await client.request(method, path, json=body)


class PrefectRunOperator(BaseOperator):
    """Create a flow run of a deployment, wait for its end in the triggerer, and end as it ended.

    The run's id and page go to XCom as `flow_run_id` and `flow_run_url`, and the URI of the dataset's manifest as
    `manifest`. Marking the task failed or succeeded, clearing it, or its time-out cancels the run.

    Args:
        deployment: the deployment, as flow/deployment.
        parameters: parameters of the run; what is not given is the deployment's.
        prefect_conn_id: connection with the URL of Prefect's API.
        poll_s: seconds between looks at the run.
    """

    template_fields = ("deployment", "parameters")

    def __init__(
        self,
        *,
        deployment: str,
        parameters: dict[str, Any] | str,
        prefect_conn_id: str = "prefect_default",
        poll_s: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deployment = deployment
        self.parameters = parameters
        self.prefect_conn_id = prefect_conn_id
        self.poll_s = poll_s
        self._flow_run_id: str | None = None

    def execute(self, context: Any) -> None:
        """Create the run and hand over to the trigger. A repeated try of the same DAG run is another flow run."""
        task = context["ti"]
        key = f"airflow:{task.dag_id}:{context['dag_run'].run_id}:{task.task_id}:{task.map_index}:{task.try_number}"
        flow, _, name = self.deployment.partition("/")
        with httpx.Client(**api(Connection.get(self.prefect_conn_id))) as client:
            try:
                answer = send(client, "GET", f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
                if answer.status_code == 404:
                    raise AirflowFailException(f"Prefect has no deployment {self.deployment!r}")
                wanted = {"parameters": self.parameters, "idempotency_key": key, "tags": ["airflow"]}
                path = f"/deployments/{self._accepted(answer)['id']}/create_flow_run"
                run = self._accepted(send(client, "POST", path, wanted))
            except httpx.TransportError as error:
                raise AirflowException(f"no answer from Prefect at {client.base_url}: {error!r}") from error
            url = f"{str(client.base_url).rstrip('/').removesuffix('/api')}/runs/flow-run/{run['id']}"
        self._flow_run_id = run["id"]
        task.xcom_push("flow_run_id", run["id"])
        task.xcom_push("flow_run_url", url)
        self.log.info("flow run %s: %s", run["name"], url)
        trigger = PrefectRunTrigger(self.prefect_conn_id, run["id"], self.poll_s)
        if (run["state"] or {}).get("type") in ENDED:
            # not deferred: Airflow may hear of the end of this part only when the next is at work, and fail that
            self.finish(context, asyncio.run(trigger.ending()))
        else:
            self.defer(trigger=trigger, method_name="finish", timeout=self.execution_timeout)

    def finish(self, context: Any, event: dict[str, Any]) -> None:
        """End as the run ended."""
        task = context["ti"]
        ended = f"flow run {event['state']}: {event['message']}"
        ended += f" ({task.xcom_pull(task_ids=task.task_id, key='flow_run_url')})"
        if event["type"] == "COMPLETED":
            self.log.info(ended)
            task.xcom_push("manifest", event["manifest"])
        elif event["type"] == "CANCELLED":
            raise AirflowFailException(ended)  # a person wanted it: no retry
        else:
            raise AirflowException(ended)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Cancel the run if the wait for it ended without its end."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout):
            self._flow_run_id = context["ti"].xcom_pull(task_ids=self.task_id, key="flow_run_id")
            self.on_kill()
            raise

    def on_kill(self) -> None:
        """Cancel the run."""
        if self._flow_run_id:
            with httpx.Client(**api(Connection.get(self.prefect_conn_id))) as client:
                try:
                    answer = send(client, "POST", f"/flow_runs/{self._flow_run_id}/set_state", CANCEL)
                    answer.raise_for_status()
                except httpx.HTTPError as error:  # what ended the task is to be told, not this
                    self.log.error("flow run %s is not cancelled: %r", self._flow_run_id, error)

    def _accepted(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code in (400, 409, 422):
            raise AirflowFailException(f"Prefect refused the run: {answer.text[:2000]}")
        if not answer.is_success:
            raise AirflowException(f"Prefect answered {answer.status_code} to {answer.request.url.path}")
        found: dict[str, Any] = answer.json()
        return found


class PrefectRunTrigger(BaseTrigger):
    """Wait for the end of a flow run; a server that is away for a while does not matter."""

    def __init__(self, prefect_conn_id: str, flow_run_id: str, poll_s: float) -> None:
        super().__init__()
        self.prefect_conn_id = prefect_conn_id
        self.flow_run_id = flow_run_id
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What makes it anew in the triggerer."""
        arguments = {"prefect_conn_id": self.prefect_conn_id, "flow_run_id": self.flow_run_id, "poll_s": self.poll_s}
        return "prefect_run.PrefectRunTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the run's end."""
        self.log.info("waiting for flow run %s", self.flow_run_id)
        yield TriggerEvent(await self.ending())

    async def ending(self) -> dict[str, Any]:
        """Look until the run has ended: its state's type and name, message, and the manifest's URI if it completed."""
        async with httpx.AsyncClient(**api(await Connection.async_get(self.prefect_conn_id))) as client:
            while (event := await self._look(client)) is None:
                await asyncio.sleep(self.poll_s)
        return event

    async def _look(self, client: httpx.AsyncClient) -> dict[str, Any] | None:
        try:
            answer = await client.get(f"/flow_runs/{self.flow_run_id}")
            if answer.status_code == 404:
                return {"type": "FAILED", "state": "Deleted", "message": "it is gone from Prefect"}
            state = answer.raise_for_status().json()["state"] or {}
            if state.get("type") not in ENDED:
                return None
            event = {"type": state["type"], "state": state["name"], "message": state["message"] or "no message"}
            if state["type"] == "COMPLETED":
                event["manifest"] = await self._manifest(client)
            return event
        except httpx.HTTPError as error:
            self.log.warning("no answer from Prefect, asking again: %r", error)
            return None

    async def _manifest(self, client: httpx.AsyncClient) -> str | None:
        """URI of the dataset's manifest, from the link that the flow run left."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [self.flow_run_id]}, "type": {"any_": ["manifest"]}}}
        found = (await client.post("/artifacts/filter", json=wanted)).raise_for_status().json()
        return json.loads(found[0]["data"]) if found else None

    async def on_kill(self) -> None:
        """Cancel the run: a person ended the task."""
        async with httpx.AsyncClient(**api(await Connection.async_get(self.prefect_conn_id))) as client:
            answer = await send_async(client, "POST", f"/flow_runs/{self.flow_run_id}/set_state", CANCEL)
            answer.raise_for_status()
