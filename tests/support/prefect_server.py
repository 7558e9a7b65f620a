"""Run a real Prefect server for tests, in its own process and folder, on loopback."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import httpx
import prefect
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from tests.support.http import request
from tests.support.servers import ServerProcess, free_port

_START_S = 240

_NEW_SERVER = Path(__file__).parents[2] / ".pytest_cache" / f"prefect-{prefect.__version__}"
"""Folder with the files of a new server of this release of Prefect: an empty database with all tables, and a note of
the block types in it. The first server makes them. That takes more processor time than the rest of its start."""


@dataclass
class PrefectServer:
    """A running server."""

    api_url: str
    home: Path
    """Folder of the server's database and log."""
    database_url: str | None = None
    """URL of the database. None: SQLite in `home`."""
    few_certificates: bool = False
    """Whether clients load a single certificate. By default, each client loads those of all authorities, also for an
    address without TLS. That takes longer than most requests."""
    _process: ServerProcess | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the server and wait until it is healthy. A stopped server gets its old port and data again."""
        host, port = urlsplit(self.api_url).hostname or "", str(urlsplit(self.api_url).port)
        # Prefect's pages in a browser call the API at PREFECT_UI_API_URL.
        folder = self.home / "server"
        own = {"PREFECT_HOME": str(folder), "PREFECT_UI_API_URL": self.api_url}
        environment = self.environment() | own
        del environment["PREFECT_API_URL"]
        if self.database_url:
            environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = self.database_url
        is_new = not folder.exists() and not self.database_url
        if is_new and _NEW_SERVER.exists():
            shutil.copytree(_NEW_SERVER, folder)
        command = ["-m", "prefect", "server", "start", "--host", host, "--port", port]
        self._process = ServerProcess([sys.executable, *command], self.home / "server.log", environment)
        _wait_until_healthy(self, self._process)
        if is_new and not _NEW_SERVER.exists():
            _keep(folder)

    def stop(self) -> None:
        """Stop the server, as in an outage. If it has stopped already, do nothing."""
        if self._process:
            self._process.end()
            self._process = None

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that talks to the server."""
        values = {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_HOME": str(self.home / "client"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        if self.few_certificates:
            values["PREFECT_API_SSL_CERT_FILE"] = str(self.certificate)
        return os.environ | values

    @property
    def certificate(self) -> Path:
        """File with the certificate of one authority."""
        path = self.home / "certificate.pem"
        if not path.exists():
            end = "-----END CERTIFICATE-----"
            path.write_text(certifi.contents().partition(end)[0] + end + "\n")
        return path


@contextmanager
def prefect_server(
    host: str = "127.0.0.1", database_url: str | None = None, few_certificates: bool = False
) -> Iterator[PrefectServer]:
    """Start a server, wait until it is healthy, and stop it afterwards.

    Args:
        host: address that the server listens on.
        database_url: see `PrefectServer`.
        few_certificates: see `PrefectServer`. Containers and benchmarks need all certificates: a container cannot read
            the file, and a benchmark measures what users have.
    """
    with tempfile.TemporaryDirectory(prefix="prefect-") as folder:
        server = PrefectServer(f"http://{host}:{free_port()}/api", Path(folder), database_url, few_certificates)
        try:
            server.start()
            yield server
        finally:
            # Wait until this process has sent all logs and events of its flows. Without a server it would print errors.
            APILogWorker.drain_all(timeout=10)
            EventsWorker.drain_all(timeout=10)
            server.stop()


def _keep(folder: Path) -> None:
    """Keep the files of a new server for later servers. Another test process may do the same at this moment."""
    # Without the files, a later server takes longer to start and is the same.
    with suppress(OSError, sqlite3.Error):
        _NEW_SERVER.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="prefect-", dir=_NEW_SERVER.parent) as place:
            new = Path(place) / "new"
            new.mkdir()
            shutil.copy(folder / "memo_store.toml", new)
            # SQLite's own copy has the changes that are still in the write-ahead log.
            with (
                closing(sqlite3.connect(folder / "prefect.db")) as source,
                closing(sqlite3.connect(new / "prefect.db")) as copy,
            ):
                source.backup(copy)
            new.rename(_NEW_SERVER)


def _wait_until_healthy(server: PrefectServer, process: ServerProcess) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        process.check()
        try:
            if request("GET", f"{server.api_url}/health").is_success:
                return
        except httpx.HTTPError:
            pass  # It does not listen yet.
        time.sleep(0.2)
    raise RuntimeError(f"no answer from the Prefect server: {process.last_output()}")
