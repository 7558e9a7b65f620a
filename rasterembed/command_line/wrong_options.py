"""Let errors and messages name each option as a person types it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from cyclopts import App, Argument, CoercionError, CycloptsError, MissingArgumentError
from cyclopts.exceptions import UnknownOptionError, UnusedCliTokensError
from pydantic import ValidationError

from rasterembed.command_line.this_program import as_typed
from rasterembed.errors import UsageError, one_line
from rasterembed.options_model import allowed_values, shows_value
from rasterembed.parameter_names import NamedParameter, replace_commands, replace_parameters

_WITH_ROOT = tuple(f"rasterembed {name} " for name in ("collection", "datasets", "embed", "qa", "search"))
"""Beginnings of the commands that have the option `--root` and that texts of the library tell to run."""

_running: list[tuple[App, Sequence[str]]] = []
"""The command that is running, and its words. Threads of the command give messages too, so it is not a `ContextVar`."""

_NEAR_OPTION = 0.75
"""Smallest similarity of an option to a wrong one, from 0 to 1, as `difflib.get_close_matches` counts it. One wrong
letter in a name of four gives 0.75."""

_NEGATIVE_LIST = re.compile(r"-\.?[0-9][^ ]*,.*")
"""A list of numbers that begins with a minus sign, such as `-1,1,1`."""


def join_negative_lists(arguments: Sequence[str]) -> list[str]:
    """Join each option and its value, if the value is a list such as `-1,1,1`: `--std=-1,1,1`.

    Cyclopts takes a word that begins with a minus sign and is not a number as an option. The error would say that the
    value is missing.

    Args:
        arguments: the words after the command's name.
    """
    joined: list[str] = []
    for argument in arguments:
        if _NEGATIVE_LIST.fullmatch(argument) and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def usage_error(error: CycloptsError | UsageError) -> str:
    """Return one line that says which option is wrong and why.

    Args:
        error: the error of cyclopts, or of an `OptionsModel` that cyclopts made.
    """
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ValidationError):
        return _validation_error(cause, None if isinstance(error, UsageError) else error.argument)
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return _missing(error, error.argument)
    if isinstance(error, CoercionError) and error.token is not None:
        kinds: dict[object, str] = {bool: "yes or no", int: "a whole number", float: "a number"}
        name = error.token.keyword or (error.argument.name if error.argument else "")
        if error.msg is not None:
            return f"{name}: {error.msg}"
        if error.target_type in kinds:
            return f"{name}: give {kinds[error.target_type]}, not {error.token.value!r}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return (
            f"{error.unused_tokens[0]!r} is one argument too many: put a pattern, or a name with spaces, in quotes, "
            "and commas between several values of an option; --help lists the arguments and options"
        )
    return _unknown_option(error) if isinstance(error, UnknownOptionError) else one_line(error, limit=1000)


def _unknown_option(error: UnknownOptionError) -> str:
    """Return one line about an option that the command does not have. It names the option that a person may mean.

    Such an option has nearly the same letters, or its name is a word of the wrong name, as `size` is of `tile-size`.
    Cyclopts compares the names with their dashes, so it finds options near that have only a few letters in common.
    """
    word = error.token.keyword or error.token.value
    name = word.removeprefix("--")
    known = [
        each.removeprefix("--") for argument in error.argument_collection if argument.parse for each in argument.names
    ]
    near = get_close_matches(name, [each for each in known if each[:1] == name[:1]], n=1, cutoff=_NEAR_OPTION)
    near = near or [each for each in known if each in name.split("-")]
    hint = f" Did you mean --{near[0]}?" if near else ""
    return f"Unknown option: {word}.{hint} --help lists all options."


def _validation_error(error: ValidationError, argument: Argument | None) -> str:
    """Return one line about a wrong value.

    Args:
        error: the error of pydantic.
        argument: the argument, if it is a plain parameter and not the field of a model.
    """
    first = error.errors()[0]
    option = "".join(f"--{part}" for part in first["loc"][:1]).replace("_", "-")
    if not option and argument is not None and not argument.children:  # It is not the check of a whole model.
        option = _typed_name(argument)
    reason, value = allowed_values(error), first["input"]
    if first["type"] == "too_short":  # An option with a list takes one word.
        reason = f"give {first['ctx']['min_length']} values with commas between them, and no space"
    if not option:
        return reason
    if shows_value(first):
        return f"{option}: {reason}"
    words = value if isinstance(value, tuple | list) else [value]
    return f"{option}: {reason}, not {', '.join(map(repr, words))}"


def _typed_name(argument: Argument) -> str:
    """Return the name of an option as a person typed it: `-k` or `--k`. Without it, return the first name."""
    return next((token.keyword for token in argument.tokens if token.keyword), argument.name)


def _missing(error: MissingArgumentError, argument: Argument) -> str:
    count, _ = argument.token_count()
    name = error.keyword or _typed_name(argument)
    words = argument.name.strip("-").upper()
    is_typed = error.keyword is not None or bool(argument.tokens)
    if not name.startswith("-") or (not is_typed and argument.index is not None):
        option = next((each for each in argument.names if each.startswith("--")), None)
        by_name = f": give it, or {option} {words}" if option else ""
        return f"the argument {words} is missing{by_name}; --help lists the arguments and options"
    if not is_typed:
        return f"the option {name} is missing: give {name} {words}; --help lists the arguments and options"
    if count <= 1:
        return f"{name}: give a value"
    got = len(error.tokens_so_far) % count
    return f"{name}: give {count} values, not {got or 'none'}; put a space between two values, and no comma"


def name_options(text: str, app: App, arguments: Sequence[str]) -> str:
    """Replace the names of parameters in an error of the library by the options that a person types.

    The library names a parameter as Python does, in backticks: `allow_no_crs`. On a command line, it is --allow-no-crs.
    A setting of the source store is an environment variable for commands that have no option for a source store.
    A command in backticks gets the root of the running command, because the library does not know how it was given. It
    begins as a shell in the current folder starts this program, so that it can be pasted.

    Args:
        text: the text of the error.
        app: the command, or a group of commands.
        arguments: the words after the command's name.
    """
    return _as_typed(name_marked_options(text, _options(app, arguments)), arguments)


def _as_typed(text: str, arguments: Sequence[str]) -> str:
    """Write the commands that a text tells to run as a person types them, with the `--root` of the running command.

    Args:
        text: the text of the error.
        arguments: the words of the running command.
    """
    given = [*arguments, ""]
    roots = [
        given[at + 1] if word == "--root" else word.removeprefix("--root=")
        for at, word in enumerate(arguments)
        if word == "--root" or word.startswith("--root=")
    ]

    def typed(command: str) -> str:
        needs_root = roots and command.startswith(_WITH_ROOT) and "--root" not in command
        return as_typed(f"{command} --root {shlex.quote(roots[-1])}" if needs_root else command)

    return replace_commands(text, typed)


def name_marked_options(text: str, options: Mapping[str, str]) -> str:
    """Replace the names of parameters as `name_options` does, and leave commands as they are.

    Args:
        text: an error, a result or a help text.
        options: options of the command, by the name of the parameter in Python.
    """

    def option(parameter: NamedParameter) -> str | None:
        if parameter.owner is not None:
            return None if parameter.owner in options else _variable(parameter)
        name = options.get(parameter.name)
        if name is None and parameter.value:  # An option of another command, such as `anchor=crs` of the command embed.
            name = f"--{parameter.name.replace('_', '-')}"
        return f"{name} {parameter.value}" if name and parameter.value else name

    return replace_parameters(text, option)


def _variable(parameter: NamedParameter) -> str | None:
    """Return the environment variable with a field of the source store, or None for any other field."""
    if parameter.owner != "source_store":
        return None
    from rasterembed.command_line.command_store import VARIABLES  # Its imports would delay the help.

    variable = VARIABLES.get(parameter.name)
    return variable and f"the environment variable {variable}"


def name_options_of_result(result: object, app: App, arguments: Sequence[str]) -> object:
    """Return the result of a command with the options that a person types, if the result is a text.

    Commands in the result stay: they may be part of the name of a file, or of JSON. A text of the library that is part
    of a result goes through `in_command_words`.

    Args:
        result: the result of the command's function.
        app: the command, or a group of commands.
        arguments: the words after the command's name.
    """
    return name_marked_options(result, _options(app, arguments)) if isinstance(result, str) else result


@contextmanager
def running_command(app: App, arguments: Sequence[str]) -> Iterator[None]:
    """Let `in_command_words` know the command that runs inside this block.

    Args:
        app: the command, or a group of commands.
        arguments: the words after the command's name.
    """
    _running.append((app, arguments))
    try:
        yield
    finally:
        _running.pop()


def in_command_words(text: str) -> str:
    """Return a message of the library with the options of the running command. See `name_options`.

    Without a running command, the text is unchanged.
    """
    return name_options(text, *_running[-1]) if _running else text


def _options(app: App, arguments: Sequence[str]) -> dict[str, str]:
    """Return the options of the command in `arguments`, by the name of the parameter in Python."""
    command = app.parse_commands(arguments)[1][-1]
    if command.default_command is None:
        return {}
    return option_names(command.assemble_argument_collection())


def option_names(arguments: Iterable[Argument]) -> dict[str, str]:
    """Return the options of a command by the name of the parameter in Python.

    Args:
        arguments: the arguments of the command.
    """
    names = (name for argument in arguments for name in argument.names if name.startswith("--"))
    return {name.removeprefix("--").replace("-", "_"): name for name in names}
