"""Run a Prefect deployment as an Airflow task.

The task uses Prefect's REST API, because Prefect is not installed in Airflow's environment. This module is a plugin,
because Airflow's triggerer must import it, and cannot import modules from the DAG folder.
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

WRITTEN = ("manifest", "catalogue")
"""What a flow writes. A table artifact whose key begins with the word has its URI in a column of this name."""

AGAIN: dict[str, Any] = {
    "retry": tenacity.retry_if_exception_type(httpx.TransportError)
    | tenacity.retry_if_result(lambda answer: answer.status_code in (429, 502, 503, 504)),
    "wait": tenacity.wait_random_exponential(multiplier=0.5, max=10),
    "stop": tenacity.stop_after_delay(60),
    "retry_error_callback": lambda state: state.outcome.result(),  # the last answer, or the last exception
}
"""When and how often a request is repeated. If two writes arrive at once, Prefect on SQLite answers 503 to one of them.
Every request of this module may safely arrive twice: the idempotency key prevents a second run."""


def api(connection: Connection) -> dict[str, Any]:
    """Return the options of an HTTP client for Prefect's API, from an Airflow connection.

    The connection's host is the URL of the API, for example http://prefect-server:4200/api. A password without a login
    is an API key. A login and a password are for a self-hosted server with basic authentication.
    """
    url = (connection.host or "").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise AirflowFailException(
            f"connection {connection.conn_id!r}: the host must be the URL of Prefect's API, for example http://127.0.0.1:4200/api"
        )
    options: dict[str, Any] = {"base_url": url, "timeout": TIMEOUT_S}
    if connection.login:
        options["auth"] = (connection.login, connection.password or "")
    elif connection.password:
        options["headers"] = {"Authorization": f"Bearer {connection.password}"}
    return options


@tenacity.retry(**AGAIN)
def send(client: httpx.Client, method: str, path: str, body: Any = None) -> httpx.Response:
    """Send a request and return the answer. Repeat it for up to a minute while Prefect is busy or does not answer.

    Raises:
        httpx.TransportError: if there is no answer within that minute.
    """
    return client.request(method, path, json=body)


@tenacity.retry(**AGAIN)
async def send_async(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> httpx.Response:
    """Send a request as `send` does, asynchronously."""
    return await client.request(method, path, json=body)


class PrefectRunOperator(BaseOperator):
    """Create a flow run of a deployment, wait for the end of the run, and succeed or fail as the run did.

    While the run works, Airflow's triggerer waits for its end, and no Airflow worker is occupied. The operator writes
    three XCom values: `flow_run_id`, `flow_run_url` (the page of the run), and the URI of what was written: `manifest`
    of a dataset, or `catalogue` of a collection. If the task is marked failed or succeeded, is cleared, or times out,
    the operator cancels the run.

    Args:
        deployment: the deployment, as flow/deployment.
        parameters: parameters of the run. The deployment sets all other parameters.
        prefect_conn_id: id of the Airflow connection with the URL of Prefect's API.
        poll_s: seconds between two requests for the run's state.
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
        """Create the run, and let the trigger wait for it. Each try of the task creates a new flow run."""
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
            # Do not defer if the run has ended: Airflow might see the end of `execute` only after `finish` began, and
            # would then fail `finish`.
            self.finish(context, asyncio.run(trigger.ending()))
        else:
            self.defer(trigger=trigger, method_name="finish", timeout=self.execution_timeout)

    def finish(self, context: Any, event: dict[str, Any]) -> None:
        """Succeed or fail as the run did."""
        task = context["ti"]
        ended = f"flow run {event['state']}: {event['message']}"
        ended += f" ({task.xcom_pull(task_ids=task.task_id, key='flow_run_url')})"
        if event["type"] == "COMPLETED":
            self.log.info(ended)
            for name, uri in event["written"].items():
                task.xcom_push(name, uri)
        elif event["type"] == "CANCELLED":
            raise AirflowFailException(ended)  # A person cancelled the run, so no retry.
        else:
            raise AirflowException(ended)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Cancel the run if the wait failed or timed out."""
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
                except (
                    httpx.HTTPError
                ) as error:  # Airflow must report why the task ended, so this error is only logged.
                    self.log.error("flow run %s is not cancelled: %r", self._flow_run_id, error)

    def _accepted(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code in (400, 409, 422):
            raise AirflowFailException(f"Prefect refused the run: {answer.text[:2000]}")
        if not answer.is_success:
            raise AirflowException(f"Prefect answered {answer.status_code} to {answer.request.url.path}")
        found: dict[str, Any] = answer.json()
        return found


class PrefectRunTrigger(BaseTrigger):
    """Wait for the end of a flow run, also while the server does not answer for some time."""

    def __init__(self, prefect_conn_id: str, flow_run_id: str, poll_s: float) -> None:
        super().__init__()
        self.prefect_conn_id = prefect_conn_id
        self.flow_run_id = flow_run_id
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments with which the triggerer creates this trigger."""
        arguments = {"prefect_conn_id": self.prefect_conn_id, "flow_run_id": self.flow_run_id, "poll_s": self.poll_s}
        return "prefect_run.PrefectRunTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, at the end of the run."""
        self.log.info("waiting for flow run %s", self.flow_run_id)
        yield TriggerEvent(await self.ending())

    async def ending(self) -> dict[str, Any]:
        """Wait until the run has ended.

        Returns:
            Type, name and message of the run's state. If the run completed, also the URIs of what was written.
        """
        async with httpx.AsyncClient(**api(await Connection.async_get(self.prefect_conn_id))) as client:
            while (event := await self._look(client)) is None:
                await asyncio.sleep(self.poll_s)
        return event

    async def _look(self, client: httpx.AsyncClient) -> dict[str, Any] | None:
        try:
            answer = await client.get(f"/flow_runs/{self.flow_run_id}")
            if answer.status_code == 404:
                return {"type": "FAILED", "state": "Deleted", "message": "the run was deleted from Prefect"}
            state = answer.raise_for_status().json()["state"] or {}
            if state.get("type") not in ENDED:
                return None
            event = {"type": state["type"], "state": state["name"], "message": state["message"] or "no message"}
            if state["type"] == "COMPLETED":
                event["written"] = await self._written(client)
            return event
        except httpx.HTTPError as error:
            self.log.warning("no answer from Prefect; the request will be repeated: %r", error)
            return None

    async def _written(self, client: httpx.AsyncClient) -> dict[str, str]:
        """Return the URIs of what the run wrote, by `WRITTEN`. They are in table artifacts of the flow run."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [self.flow_run_id]}, "type": {"any_": ["table"]}}}
        found = (await client.post("/artifacts/filter", json=wanted)).raise_for_status().json()
        return {
            name: str(json.loads(one["data"])[0][name])
            for one in found
            for name in WRITTEN
            if one["key"].startswith(f"{name}-")
        }

    async def on_kill(self) -> None:
        """Cancel the run, because a person ended the task."""
        async with httpx.AsyncClient(**api(await Connection.async_get(self.prefect_conn_id))) as client:
            answer = await send_async(client, "POST", f"/flow_runs/{self.flow_run_id}/set_state", CANCEL)
            answer.raise_for_status()
