"""The Prefect server that a flow's command starts for itself, if `PREFECT_API_URL` is not set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

_WRAPPER = Path(__file__).with_name("ends_with_parent.py")


class EmbeddedServer(SubprocessASGIServer):
    """Prefect's embedded server, in a process that ends with this process.

    Prefect stops its embedded server when the command exits. A command that is killed by SIGKILL cannot stop the
    server, and Prefect's own server would run until the machine stops. `flows.ends_with_parent` explains how this
    server notices that the command has ended.

    Prefect keeps one instance for each port in a dictionary of the base class. If this class is instantiated first,
    Prefect's clients use this instance.
    """

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        """Start the server with the arguments and the environment that Prefect uses."""
        module = "uvicorn"
        options = ["--app-dir", str(prefect.__module_path__.parent), "--log-level", "error", "--lifespan", "on"]
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        return subprocess.Popen(
            [
                *(sys.executable, "-P", str(_WRAPPER), module),
                *("--factory", "prefect.server.api.server:create_app", *options, *address),
            ],
            stdin=subprocess.PIPE,
            # A terminal sends Ctrl-C to all processes of the command. A process in another session does not get it. So
            # the server still works when the run tells it how it ended.
            start_new_session=True,
            env={**os.environ, **own, **settings},
        )

    def stop(self) -> None:
        """Stop the server, and close the pipe."""
        process = self.server_process
        super().stop()
        if process is not None and process.stdin is not None:
            process.stdin.close()
