"""Run a command line: print each error in one line, and exit with a status that scripts can check."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from cyclopts import App, CycloptsError

from rasterembed.command_line.command_app import keeps_work
from rasterembed.command_line.outputs import CLOSED_PIPE, flush_outputs, print_message
from rasterembed.command_line.quick_stop import INTERRUPTED, note_interruption
from rasterembed.command_line.stopping import STAYS, stoppable
from rasterembed.command_line.this_program import as_typed
from rasterembed.command_line.wrong_options import (
    join_negative_lists,
    name_options,
    name_options_of_result,
    running_command,
    usage_error,
)
from rasterembed.errors import RasterEmbedError, UsageError, why_not_utf8
from rasterembed.slow_imports import collector_paused

USAGE = 2
"""Exit status for a wrong option."""


def run(app: App, arguments: Sequence[str]) -> Any:
    """Run a command and return what its function returned.

    An error that a person can correct is printed as one line on standard error. Any other error is a bug, and its
    traceback is printed.

    Args:
        app: the command, or a group of commands; see `rasterembed.command_line.command_app.command_app`.
        arguments: the words after the command's name.

    Raises:
        SystemExit: with status 0 after `--help`, `USAGE` for wrong options, and `INTERRUPTED` after an interruption.
            After any other error, the status is the `exit_code` of the error.
    """
    for argument in arguments:
        # Refuse an argument that is not UTF-8. Prefect and the store keep arguments as JSON, which must be UTF-8.
        problem = why_not_utf8(argument)
        if problem is not None:
            stop(f"the argument {problem}", USAGE)
    arguments = join_negative_lists(arguments)
    try:
        with collector_paused():  # The module of the command is imported here.
            function, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
    except (CycloptsError, UsageError) as error:
        stop(name_options(usage_error(error), app, arguments), USAGE)
    except KeyboardInterrupt:
        stop("interrupted before the command began", INTERRUPTED)
    if getattr(function, "__func__", None) in (App.help_print, App.version_print):
        function(*bound.args, **bound.kwargs)
        sys.exit(0)
    keeps = keeps_work(function)
    with stoppable(keeps_work=keeps) as stopping:
        try:
            with running_command(app, arguments):
                result = function(*bound.args, **bound.kwargs)
        except KeyboardInterrupt as error:
            note_interruption()
            stop(_interrupted(error, app, arguments, keeps=keeps), INTERRUPTED)
        except Exception as error:
            if stopping.asked:  # An import or another library that was interrupted can raise any error.
                note_interruption()
                stop(_interrupted(error, app, arguments, keeps=keeps), INTERRUPTED)
            if isinstance(error, BrokenPipeError) and not flush_outputs():
                sys.exit(CLOSED_PIPE)
            if not isinstance(error, RasterEmbedError):
                raise
            stop(name_options(str(error), app, arguments), error.exit_code)
    return name_options_of_result(result, app, arguments)


def stop(reason: str, status: int) -> NoReturn:
    """Print an error and end the process."""
    print_message(f"error: {reason}")
    flush_outputs()
    sys.exit(status)


def _interrupted(error: BaseException, app: App, arguments: Sequence[str], *, keeps: bool) -> str:
    """Return one line about an interrupted command: what stands, and how to go on.

    Args:
        error: the error that ended the command. Its notes say what stands. See `told_when_interrupted`.
        app: the command, or a group of commands.
        arguments: the words after the command's name.
        keeps: whether the command writes work to a store, which stays.
    """
    stands = getattr(error, "__notes__", [])[:1] or ([STAYS] if keeps else [])
    if not keeps:
        return ": ".join(["interrupted", *stands])
    typed = as_typed(f"{app.name[0]} {shlex.join(arguments)}")
    return f"interrupted: {stands[0]}; to continue, run the same command again: `{typed}`"
