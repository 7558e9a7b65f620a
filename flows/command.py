"""A flow as a command: options, help and defaults come from the flow's own parameters."""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, get_type_hints

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from prefect import Flow
from prefect.settings import (
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from pydantic import BaseModel, ValidationError

from rasterembed.errors import RasterEmbedError, one_line

USAGE, FAILED, INTERRUPTED = 2, 1, 130

_SETTINGS: dict[Any, Any] = {
    # the embedded server may take longer than Prefect's default 20 s on a busy machine
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120,
    # nothing that a person did not ask for leaves the machine; offline it would log errors
    PREFECT_SERVER_ANALYTICS_ENABLED: False,
}


class _App(App):
    """Looks for help in no docstrings: `_flattened` and pydantic's fields have it all.

    Of a class cyclopts reads the source, and that of pydantic's `BaseModel` for each parameter that is a model.
    """

    def assemble_argument_collection(
        self, *, default_parameter: Parameter | None = None, parse_docstring: bool = False
    ) -> ArgumentCollection:
        return super().assemble_argument_collection(default_parameter=default_parameter)


def command(flow: Flow[..., BaseModel]) -> NoReturn:
    """Run a flow with parameters from the command line, print its result, and exit; see `run`."""
    for name, value in run(flow, sys.argv[1:]).model_dump(mode="json").items():
        print(f"{name.replace('_', ' ')}: {value}")
    sys.exit(0)


def run(flow: Flow[..., BaseModel], argv: list[str]) -> BaseModel:
    """Run a flow with parameters as they are written on a command line.

    Fields of a parameter that is a model become options of their own.

    Raises:
        SystemExit: with status 2 for wrong usage, 1 if the flow failed, 130 if it was interrupted, after one line on
            standard error where a person can cause it; with 0 after `--help`.
    """
    app = _App(
        name=f"python -m {_module(flow.fn)}",
        help=inspect.getdoc(flow.fn),
        version_flags=[],
        default_parameter=Parameter(negative_iterable=()),
    )
    app.default(_flattened(flow))
    try:
        function, bound, _ = app.parse_args(argv, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        _end(_usage(error), USAGE)
    if function != app.default_command:
        function(*bound.args, **bound.kwargs)  # --help
        sys.exit(0)
    # ended by a service manager or a worker: as by Ctrl-C, so that what is unfinished is cleared
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with temporary_settings(_SETTINGS):
            return flow(**bound.arguments)
    except RasterEmbedError as error:
        _end(str(error), error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted; what is complete stays, and the same command goes on from there", INTERRUPTED)


def _module(function: Callable[..., Any]) -> str:
    main = sys.modules["__main__"].__spec__
    return main.name if function.__module__ == "__main__" and main else function.__module__


def _flattened(flow: Flow[..., BaseModel]) -> Callable[..., Any]:
    """A function of the flow's parameters whose models cyclopts spreads into options."""
    hints = get_type_hints(flow.fn, include_extras=True)

    def parameters() -> Any:
        for name, parameter in inspect.signature(flow.fn).parameters.items():
            hint = hints[name]
            if isinstance(hint, type) and issubclass(hint, BaseModel):
                hint = Annotated[hint, Parameter(name="*", group=name.replace("_", " ").capitalize())]
            else:
                hint = Annotated[hint, Parameter(help=flow.parameters.properties[name].get("description"))]
            # what is required comes by place, the rest by name
            kind = parameter.POSITIONAL_OR_KEYWORD if parameter.default is parameter.empty else parameter.KEYWORD_ONLY
            yield parameter.replace(annotation=hint, kind=kind)

    def flattened(**_: Any) -> None:
        """Never called: its signature is what counts."""

    flattened.__signature__ = inspect.Signature(list(parameters()))  # type: ignore[attr-defined]
    flattened.__annotations__ = {p.name: p.annotation for p in parameters()}
    return flattened


def _usage(error: CycloptsError) -> str:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ValidationError):
        first = cause.errors()[0]
        option = ".".join(str(part) for part in first["loc"][:1]).replace("_", "-")
        if not option and error.argument is not None:  # a parameter that is no model
            option = error.argument.name.strip("-*")
        reason = first["msg"].removeprefix("Value error, ")
        return f"--{option}: {reason}, not {first['input']!r}" if option else reason
    return one_line(error, limit=1000)


def _end(reason: str, status: int) -> NoReturn:
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(status)
