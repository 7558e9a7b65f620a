"""Run a flow from the command line. Each parameter of the flow becomes an option."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, ParamSpec, TypeVar

from prefect import Flow
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from pydantic import BaseModel

from flows.early_checks import check_early
from rasterembed.command_line.command_app import command_app
from rasterembed.command_line.outputs import print_result
from rasterembed.command_line.run import run as run_command
from rasterembed.command_line.this_program import as_typed
from rasterembed.errors import one_line
from rasterembed.escape import escape_lines

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result", bound=BaseModel)

_SETTINGS: dict[Any, Any] = {
    # On a busy machine the embedded server takes longer to start than Prefect's default of 20 s.
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120,
    # No usage data leaves the machine. Without internet, the attempt to send the data would log errors.
    PREFECT_SERVER_ANALYTICS_ENABLED: False,
}


def command(flow: Flow[_Parameters, _Result]) -> NoReturn:
    """Run a flow with the arguments of this process, print the flow's result, and exit. See `run`.

    The result has a search command for readers on any machine. It is printed as a shell here starts it.
    """
    result = run(flow, sys.argv[1:]).model_dump(mode="json")
    if result.get("search"):
        result["search"] = as_typed(result["search"])
    lines = (f"{name.replace('_', ' ')}: {value}" for name, value in result.items() if value is not None)
    print_result(escape_lines("\n".join(lines)))


def run(flow: Flow[_Parameters, _Result], arguments: Sequence[str]) -> _Result:
    """Run a flow with the arguments of a command line, and return the flow's result.

    Raises:
        SystemExit: as `rasterembed.command_line.run.run` does.
    """
    app = command_app(f"python -m {_module(flow.fn)}", flow.fn, call=_prepared(flow))
    with temporary_settings(_SETTINGS), _errors_printed_once():
        result: _Result = run_command(app, arguments)
    return result


def _prepared(flow: Flow[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Return a function that runs the flow, after a check for errors that would end in Prefect's traceback.

    If a Prefect server is set, it must answer and accept the password. Without one, the parameters are checked, and
    Prefect starts an embedded server.
    """

    @functools.wraps(flow.fn)
    def start(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        if not PREFECT_API_URL.value():
            check_early(inspect.signature(flow.fn).bind(*args, **kwargs).arguments)
            from flows.embedded_server import EmbeddedServer  # This import takes seconds.

            server = EmbeddedServer()  # Prefect's client finds this instance.
            try:
                server.start()
            except RuntimeError as error:  # The text of a failed start can have the output of the server.
                server.stop()
                sys.exit(
                    f"the command's own Prefect server did not start ({one_line(error)}): on a busy machine, run "
                    "again; or start a server (prefect server start) and set PREFECT_API_URL"
                )
        else:
            from flows.prefect_connection import connect

            with connect() as client:
                client.api_version()
        return flow(*args, **kwargs)

    return start


class _NoErrorsOfRuns(logging.Filter):
    """Leaves out the log records with which flow runs and task runs report errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(("prefect.flow_runs", "prefect.task_runs")):
            return True
        # Look at the text too, because Prefect logs the end of a failed task run at level INFO.
        return record.levelno < logging.ERROR and not record.getMessage().startswith("Finished in state Failed(")


@contextmanager
def _errors_printed_once() -> Iterator[None]:
    """Hide Prefect's messages about a failed run on the terminal, because the command prints the error at its end.

    Prefect logs the error of a task up to four times. The server still gets these log records.
    """
    hide = _NoErrorsOfRuns()
    consoles = [handler for handler in logging.root.handlers if isinstance(handler, PrefectConsoleHandler)]
    for handler in consoles:
        handler.addFilter(hide)
    try:
        yield
    finally:
        for handler in consoles:
            handler.removeFilter(hide)


def _module(function: Callable[..., Any]) -> str:
    """Return the name of the module that defines a function, even if the module runs as `__main__`."""
    main = sys.modules["__main__"].__spec__
    return main.name if function.__module__ == "__main__" and main else function.__module__
