"""Run the explorer for tests: the real command as a process, with the built page."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.debian import InstallationError, can_install, install_packages
from tests.support.http import request
from tests.support.servers import HOST, ServerProcess, free_port

PROJECT = Path(__file__).parents[2]
_PAGE = PROJECT / "rasterembed/explorer/page"
_BUNDLE = PROJECT / "rasterembed/explorer/static"
_START_S = 240


@dataclass
class Explorer:
    """The command `rasterembed explore` on one store, in its own process."""

    root: str
    folder: Path
    """Folder for the log and the cache of the service."""
    options: tuple[str, ...] = ()
    """Further options of the command."""
    environment: dict[str, str] = field(default_factory=dict)
    """Further environment variables."""
    token: str | None = None
    """Token that the service asks for. None if it asks for none."""
    port: int = field(default_factory=free_port)
    _process: ServerProcess | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Address of the page, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """File with everything that the service printed."""
        return self.folder / "explorer.log"

    @property
    def pid(self) -> int:
        """Number of the process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Explorer:
        """Start the service."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the service."""
        self.stop()

    def start(self) -> None:
        """Start the service, and return when it answers. A stopped service gets its old port again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [str(Path(sys.executable).with_name("rasterembed")), "explore", "--root", self.root]
        command += ["--host", HOST, "--port", str(self.port), *self.options]
        own = {"TMPDIR": str(self.folder)} | self.environment
        self._process = ServerProcess(command, self.log, os.environ | own)
        deadline = time.monotonic() + _START_S
        while not self._answers():
            self._process.check()
            assert time.monotonic() < deadline, f"no answer in {_START_S} s:\n{self.log.read_text()}"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return request("GET", f"{self.url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """Stop the service as a service manager does. If it has stopped already, do nothing."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """Send a GET request. Parameters that are None are left out."""
        asked = {name: value for name, value in parameters.items() if value is not None}
        return request("GET", f"{self.url}{path}", params=asked, headers=self._headers(), timeout=60)

    def post(self, path: str, body: Any) -> httpx.Response:
        """Send a POST request with a JSON body."""
        return request("POST", f"{self.url}{path}", json=body, headers=self._headers(), timeout=60)

    def _headers(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}


def build_page() -> Path:
    """Build the page if it is not built yet, and return the folder of the bundle.

    Node is installed from Debian's packages if it is missing and this is root. Without Node, the test is skipped, and
    fails in CI.
    """
    if (_BUNDLE / "index.html").exists():
        return _BUNDLE
    install("npm", "nodejs", "npm")
    for command in (["npm", "ci", "--no-audit", "--no-fund"], ["npm", "run", "build"]):
        done = subprocess.run(command, cwd=_PAGE, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return _BUNDLE


def install(command: str, *packages: str) -> str:
    """Return the path of a command. Install it from Debian's packages if it is missing and this is root.

    If that is not possible, the test is skipped, and fails in CI.
    """
    found, missing = shutil.which(command), f"{command} is missing; as root: apt-get install {' '.join(packages)}"
    if found is None and can_install():
        try:
            install_packages(*packages)
        except InstallationError as error:
            missing = str(error)
        found = shutil.which(command)
    if found is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(missing)
    return found
