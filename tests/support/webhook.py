"""Help tests of uploads: run the webhook, build the notifications of S3 servers, and send requests to Prefect's API."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx
from prefect import Flow

from flows.embed_collection import embed_collection_flow
from flows.raster_embeddings import raster_embeddings
from tests.support.http import request
from tests.support.prefect_server import PrefectServer
from tests.support.servers import HOST, ServerProcess, free_port
from tests.support.waiting import wait_for

PROJECT = Path(__file__).parents[2]
TOKEN = "no/real+token"


# --- notifications ---------------------------------------------------------------------------------------------------


def record(bucket: str, key: str, etag: str = "e1", /, **about: Any) -> dict[str, Any]:
    """Return a record as MinIO writes it. The key is escaped as in a query."""
    return {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": "",
        "eventTime": "2026-01-02T03:04:05.678Z",
        "eventName": "s3:ObjectCreated:Put",
        "userIdentity": {"principalId": "someone"},
        "requestParameters": {"principalId": "someone", "region": "", "sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "18A6", "x-minio-origin-endpoint": "http://127.0.0.1:9000"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Config",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "someone"}, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {
                "key": quote_plus(key),
                "size": 1024,
                "eTag": etag,
                "contentType": "image/tiff",
                "userMetadata": {"content-type": "image/tiff"},
                "sequencer": "18A6B0C1",
            }
            | about,
        },
        "source": {"host": "127.0.0.1", "port": "", "userAgent": "MinIO (linux; amd64)"},
    }


def minio(bucket: str, key: str, etag: str = "e1", /, **about: Any) -> dict[str, Any]:
    """Return the body that MinIO sends. Besides the records, it has the event and the unescaped key."""
    return {
        "EventName": "s3:ObjectCreated:Put",
        "Key": f"{bucket}/{key}",
        "Records": [record(bucket, key, etag, **about)],
    }


def rustfs(bucket: str, key: str, etag: str = "e1") -> dict[str, Any]:
    """Return RustFS's body for an object without versions. It is like MinIO's body, but both keys are escaped."""
    body = minio(bucket, key, etag)
    body["Key"] = f"{bucket}/{quote_plus(key)}"
    body["Records"][0] |= {"eventSource": "rustfs:s3", "eventVersion": "2.1"}
    return body


def ceph(bucket: str, key: str, etag: str = "e1") -> dict[str, Any]:
    """Return the body that Ceph sends. The key is not escaped, the version is empty, and the event has no `s3:`."""
    body = {"Records": [record(bucket, key, etag, key=key, versionId="", metadata=[], tags=[])]}
    body["Records"][0] |= {"eventSource": "ceph:s3", "eventName": "ObjectCreated:Put", "eventId": "1.2.3"}
    return body


def sns(body: dict[str, Any]) -> dict[str, Any]:
    """Put a body into the envelope of a notification service."""
    return {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:::t", "Message": json.dumps(body)}


def snake(value: Any) -> Any:
    """Give a body `snake_case` names, as some releases write them. The list is then called `records`."""
    if isinstance(value, list):
        return [snake(item) for item in value]
    if isinstance(value, dict):
        return {
            "".join(f"_{c.lower()}" if c.isupper() else c for c in k).lstrip("_"): snake(v) for k, v in value.items()
        }
    return value


def pascal(value: Any) -> Any:
    """Give all names of a body `PascalCase`."""
    if isinstance(value, list):
        return [pascal(item) for item in value]
    if isinstance(value, dict):
        return {k[:1].upper() + k[1:]: pascal(v) for k, v in value.items()}
    return value


# --- the service -----------------------------------------------------------------------------------------------------


@dataclass
class Webhook:
    """The webhook in its own process."""

    port: int
    environment: dict[str, str]
    log: Path
    root: Path
    descriptors: int | None = None
    """Number of files and connections that the service may have open."""
    _process: ServerProcess | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Address of the service."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start the service, and return when it answers."""
        command = [sys.executable, "-m", "services.webhook", "--host", HOST, "--port", str(self.port)]
        if self.descriptors:
            command = ["sh", "-c", f'ulimit -n {self.descriptors}; exec "$@"', "sh", *command]
        self._process = ServerProcess(command, self.log, self.environment)
        process = self._process

        def answers() -> bool:
            process.check()
            try:
                return request("GET", f"{self.url}/healthz", timeout=5).is_success
            except httpx.HTTPError:
                return False

        wait_for(answers, "the webhook")

    @property
    def pid(self) -> int:
        """Number of the service's process."""
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        """Kill the service. It has no chance to answer."""
        assert self._process
        self._process.kill()
        self._process = None

    def stop(self) -> None:
        """Stop the service as a service manager does."""
        if self._process:
            self._process.end()
            self._process = None

    def post(self, body: Any, token: str | None = TOKEN, timeout: float = 60) -> httpx.Response:
        """Send a notification once."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return request("POST", f"{self.url}/uploads", content=content, headers=headers, timeout=timeout)

    def deliver(self, body: Any) -> None:
        """Send a notification until the answer is 2xx, as MinIO does, but without its wait of 3 s."""

        def taken() -> bool:
            try:
                return self.post(body, timeout=10).is_success
            except httpx.HTTPError:
                return False

        wait_for(taken, "the notification to be taken")

    def counts(self) -> dict[str, float]:
        """Return the Prometheus counters, by their names without the prefix."""
        lines = request("GET", f"{self.url}/metrics").raise_for_status().text.splitlines()
        return {
            name.removeprefix("upload_webhook_").replace("_total", ""): float(value)
            for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
            if "_total" in name
        }

    def dead_letters(self) -> list[dict[str, Any]]:
        """Return the content of all dead letters. The root must be a folder."""
        return [json.loads(path.read_bytes()) for path in (self.root / "dead-letters/uploads").glob("*.json")]


@contextmanager
def webhook(
    prefect_api_url: str,
    deployment: str,
    root: Path | str | None = None,
    descriptors: int | None = None,
    **settings: str,
) -> Iterator[Webhook]:
    """Run the webhook. After the test, check that its log has no traceback and no token."""
    with tempfile.TemporaryDirectory(prefix="webhook-") as folder:
        chosen = {"token": TOKEN, "deployment": deployment, "root": str(root or f"{folder}/store")} | settings
        environment = os.environ | {f"UPLOAD_WEBHOOK_{name.upper()}": value for name, value in chosen.items()}
        environment |= {"PREFECT_API_URL": prefect_api_url}
        service = Webhook(free_port(), environment, Path(folder) / "webhook.log", Path(chosen["root"]), descriptors)
        try:
            service.start()
            yield service
        except BaseException:
            print(service.log.read_text()[-4000:])  # pytest shows this text together with the failure.
            raise
        finally:
            service.stop()
        log = service.log.read_text()
        assert "Traceback" not in log
        assert TOKEN not in log


# --- Prefect ---------------------------------------------------------------------------------------------------------


def ask(method: str, url: str, body: Any = None) -> httpx.Response:
    """Send a request to Prefect's API. Repeat it after 503: with SQLite, another request was writing."""

    def answer() -> httpx.Response | None:
        answer = request(method, url, json=body, timeout=30)
        return None if answer.status_code == 503 else answer

    answered: httpx.Response = wait_for(answer, f"an answer to {method} {url}")
    return answered.raise_for_status()


@dataclass(frozen=True)
class Deployment:
    """A deployment on a Prefect server."""

    api_url: str
    id: str
    name: str
    """Name in the form flow/deployment."""

    def runs(self) -> list[dict[str, Any]]:
        """Return the flow runs of the deployment, oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            wanted = {"deployments": {"id": {"any_": [self.id]}}, "sort": "ID_DESC", "offset": len(found)}
            page = ask("POST", f"{self.api_url}/flow_runs/filter", wanted).json()
            if not page:
                return sorted(found, key=lambda run: run["created"])
            found += page

    def count(self, *states: str) -> int:
        """Count the flow runs in the given states, such as COMPLETED. Without states, count all."""
        wanted: dict[str, Any] = {"deployments": {"id": {"any_": [self.id]}}}
        if states:
            wanted["flow_runs"] = {"state": {"type": {"any_": states}}}
        found: int = ask("POST", f"{self.api_url}/flow_runs/count", wanted).json()
        return found

    def rasters(self) -> list[str]:
        """Return the rasters of the deployment's flow runs."""
        return [run["parameters"]["raster"] for run in self.runs()]


RASTER, COLLECTION = "flows/raster_embeddings.py:raster_embeddings", "flows/embed_collection.py:embed_collection_flow"
"""Entrypoints of the flows that a test can deploy."""

_FLOWS: dict[str, Flow[Any, Any]] = {RASTER: raster_embeddings, COLLECTION: embed_collection_flow}

_LIMITS: dict[str, dict[str, Any]] = {
    RASTER: {},
    COLLECTION: {"concurrency_limit": 1, "concurrency_options": {"collision_strategy": "ENQUEUE"}},
}
"""Limits of the deployments, as prefect.yaml sets them."""


def deploy(server: PrefectServer, entrypoint: str = RASTER, **options: Any) -> Deployment:
    """Make a deployment with a real flow's parameters. If `options` name no work pool, its runs are never started."""
    flow = _FLOWS[entrypoint]
    body = {
        "flow_id": ask("POST", f"{server.api_url}/flows/", {"name": flow.name}).json()["id"],
        "name": f"test-{uuid.uuid4().hex[:8]}",
        "enforce_parameter_schema": True,
        "entrypoint": entrypoint,
        "parameter_openapi_schema": flow.parameters.model_dump(),
    }
    body |= _LIMITS[entrypoint] | options
    made = ask("POST", f"{server.api_url}/deployments/", body).json()
    return Deployment(server.api_url, made["id"], f"{flow.name}/{body['name']}")


@contextmanager
def worker(server: PrefectServer, pool: str, folder: Path, *command: str, **environment: str) -> Iterator[None]:
    """Start a worker with `python -m COMMAND`, wait until its work pool is ready, and stop it in the end."""
    chosen = server.environment() | {
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_HOME": str(folder / "worker"),
        "OMP_NUM_THREADS": "1",
    }
    process = ServerProcess([sys.executable, "-m", *command], folder / "worker.log", chosen | environment)
    try:

        def online() -> bool:
            process.check()
            pools = ask("POST", f"{server.api_url}/work_pools/filter", {}).json()
            return any(found["name"] == pool and found["status"] == "READY" for found in pools)

        wait_for(online, "the worker", timeout=120)
        yield
    finally:
        process.end()


def process_worker(server: PrefectServer, pool: str, folder: Path) -> AbstractContextManager[None]:
    """Run Prefect's process worker, with two runs at a time."""
    options = ("--pool", pool, "--type", "process", "--limit", "2")
    return worker(server, pool, folder, "prefect", "worker", "start", *options)


def deploy_to(server: PrefectServer, pool: str, entrypoint: str = RASTER, **parameters: Any) -> Deployment:
    """Deploy a real flow for a worker of `pool` on this machine."""
    return deploy(
        server,
        entrypoint,
        work_pool_name=pool,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(PROJECT)}}],
        parameters=parameters,
    )


def upload_events(server: PrefectServer, resource: str, at_least: int = 1) -> list[dict[str, Any]]:
    """Wait until the server has stored `at_least` events of an object, which takes seconds, and return them."""

    def stored() -> list[dict[str, Any]]:
        wanted = {"filter": {"resource": {"id": [resource]}, "occurred": {"since": "2026-01-01T00:00:00Z"}}}
        found: list[dict[str, Any]] = ask("POST", f"{server.api_url}/events/filter", wanted).json()["events"]
        return found if len(found) >= at_least else []

    found: list[dict[str, Any]] = wait_for(stored, f"the event of {resource}")
    return found


class Gate:
    """A TCP relay to a server. It can stop all traffic, or hold back the answers only."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server((HOST, 0))
        self._ended = threading.Event()
        self._refused = threading.Event()
        self.requests = threading.Event()
        """Set while data from the client may pass."""
        self.answers = threading.Event()
        """Set while data from the server may pass."""
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}{parts.path}"
        self.waiting = threading.Event()
        """Set when data was held back for the first time."""
        self.open()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def refuse(self) -> None:
        """Close all connections, and close each new connection at once, like a server that is down."""
        self._refused.set()

    def open(self) -> None:
        """Let everything pass."""
        self._refused.clear()
        self.requests.set()
        self.answers.set()

    def close(self) -> None:
        """End all threads and connections."""
        self._ended.set()
        self.open()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            if select.select([self._listener], [], [], 0.1)[0]:
                client, _ = self._listener.accept()
                if self._refused.is_set():
                    client.close()
                    continue
                thread = threading.Thread(target=self._relay, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            ways = {client: (server, self.requests), server: (client, self.answers)}
            while not (self._ended.is_set() or self._refused.is_set()):
                for source in select.select(list(ways), [], [], 0.1)[0]:
                    destination, may_pass = ways[source]
                    try:
                        data = source.recv(65536)
                        if data and not may_pass.is_set():
                            self.waiting.set()
                            may_pass.wait()
                        if not data or self._ended.is_set() or self._refused.is_set():
                            return
                        destination.sendall(data)
                    except OSError:
                        return


@contextmanager
def gate(url: str) -> Iterator[Gate]:
    """Run a relay to `url`. At first, all data may pass."""
    relay = Gate(url)
    try:
        yield relay
    finally:
        relay.close()


def basic(token: str) -> str:
    """Return an `Authorization` header of basic authentication with the token as password."""
    return "Basic " + base64.b64encode(f"ceph:{token}".encode()).decode()
