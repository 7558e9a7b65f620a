"""Run a flow from the command line. Each parameter of the flow becomes an option."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, ParamSpec, TypeVar

from prefect import Flow
from prefect.settings import (
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from pydantic import BaseModel

from rasterembed.commands.command_app import command_app
from rasterembed.commands.run import run as run_command
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
    """Run a flow with the arguments of this process, print the flow's result, and exit. See `run`."""
    for name, value in run(flow, sys.argv[1:]).model_dump(mode="json").items():
        if value is not None:
            print(escape_lines(f"{name.replace('_', ' ')}: {value}"))
    sys.exit(0)


def run(flow: Flow[_Parameters, _Result], arguments: Sequence[str]) -> _Result:
    """Run a flow with the arguments of a command line, and return the flow's result.

    Raises:
        SystemExit: as `rasterembed.commands.run.run` does.
    """
    app = command_app(f"python -m {_module(flow.fn)}", flow.fn, call=flow)
    with temporary_settings(_SETTINGS):
        result: _Result = run_command(app, arguments)
    return result


def _module(function: Callable[..., Any]) -> str:
    """Return the name of the module that defines a function, even if the module runs as `__main__`."""
    main = sys.modules["__main__"].__spec__
    return main.name if function.__module__ == "__main__" and main else function.__module__
