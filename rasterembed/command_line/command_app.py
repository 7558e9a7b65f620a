"""Turn a function into a command: its parameters become options.

If a parameter is a pydantic model, each field of the model becomes one option. Help texts come from the fields'
descriptions and from the `Args` section of the function's docstring. The command line, Prefect's form and the library
therefore describe a parameter in the same words.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import docstring_parser
from cyclopts import App, ArgumentCollection, Group, Parameter, Token
from pydantic import BaseModel

from rasterembed.command_line.wrong_options import name_marked_options, option_names, usage_error
from rasterembed.errors import UsageError
from rasterembed.escape import cut

POSITIONAL = Parameter()
"""Marks a parameter that has a default, but may be given by position: `Annotated[str | None, POSITIONAL]`."""

_TITLES = {"dinov3": "DINOv3", "qa": "QA"}
"""Titles of groups of options. Every other group's title is made from the name of its parameter."""


class OptionsApp(App):
    """A cyclopts application that takes help texts from annotations only.

    Cyclopts would also look for help texts in docstrings. For this, it would parse the source code of every pydantic
    model and of `BaseModel`. Parsing takes longer than the rest of the start. It is not needed, because `command_app`
    puts the help texts into the annotations.
    """

    def assemble_argument_collection(
        self, *, default_parameter: Parameter | None = None, parse_docstring: bool = False
    ) -> ArgumentCollection:
        """Collect the options without reading docstrings.

        Help texts name options as a person types them, and show no empty tuple as a default.
        """
        arguments = super().assemble_argument_collection(default_parameter=default_parameter)
        for argument in arguments:
            text = argument.parameter.help
            if text and "`" in text:
                named = name_marked_options(text, option_names(arguments))
                argument.parameter = Parameter.combine(argument.parameter, Parameter(help=named))
            if argument.field_info.default == ():
                argument.parameter = Parameter.combine(argument.parameter, Parameter(show_default=False))
        return arguments


_KEEPS_WORK = "keeps_work"
"""Name of the attribute of a command's function that `keeps_work` reads."""


def command_app(
    name: str, function: Callable[..., Any], call: Callable[..., Any] | None = None, *, keeps_work: bool = True
) -> OptionsApp:
    """Return a command whose options are the parameters of a function.

    Args:
        name: name of the command in its help.
        function: the function whose parameters become options. Parameters without a default, and parameters with the
            mark `POSITIONAL`, are given by position. All other parameters, and keyword-only parameters, are given by
            name.
        call: the function that the command calls with the parameters, for example the Prefect flow around `function`.
            The default is `function`.
        keeps_work: whether finished work stays in the store if the command is interrupted, and the same command goes on
            with it. A command that only reads the store has no such work.
    """
    described = docstring_parser.parse(inspect.getdoc(function) or "")
    app = OptionsApp(
        name=name,
        help="\n\n".join(filter(None, (described.short_description, described.long_description))),
        version_flags=[],
        # Without this parameter, Cyclopts would add `--empty-x` for every option `--x` with several values.
        default_parameter=Parameter(negative_iterable=()),
    )
    helps = {parameter.arg_name: parameter.description for parameter in described.params}
    command = _spread(function, call or function, helps)
    setattr(command, _KEEPS_WORK, keeps_work)
    app.default(command)
    if app.help and "`" in app.help:
        app.help = name_marked_options(app.help, option_names(app.assemble_argument_collection()))
    return app


def keeps_work(command: Callable[..., Any]) -> bool:
    """Return whether the finished work of an interrupted command stays in the store. See `command_app`."""
    return bool(getattr(command, _KEEPS_WORK, True))


def _spread(function: Callable[..., Any], call: Callable[..., Any], helps: dict[str, str | None]) -> Callable[..., Any]:
    """Wrap a function, so that cyclopts makes options from the fields of its models and knows every help text."""
    parameters = list(_annotated(function, helps))
    needed = {
        name: parameter.annotation
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items()
        if parameter.default is parameter.empty and _is_model(parameter.annotation)
    }

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        missing = {name: _empty(model) for name, model in needed.items() if name not in kwargs}
        return call(*args, **missing, **kwargs)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _empty(model: type[BaseModel]) -> BaseModel:
    """Return a model of which no option was given.

    Raises:
        UsageError: if the model needs an option. The text does not name the model, which is not on the command line.
    """
    try:
        return model()
    except UsageError as error:
        raise UsageError(usage_error(error)) from error


def _annotated(function: Callable[..., Any], helps: dict[str, str | None]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if _is_model(hint):
            title = _TITLES.get(name, name.replace("_", " ").capitalize())
            hint = Annotated[hint, Parameter(name="*", group=Group(title, help=helps.get(name) or ""))]
        else:
            hint = _option(hint, helps.get(name))
        needed = parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY
        by_position = needed or any(mark is POSITIONAL for mark in getattr(hints[name], "__metadata__", ()))
        kind = parameter.POSITIONAL_OR_KEYWORD if by_position else parameter.KEYWORD_ONLY
        # Cyclopts wants a default for a model whose fields have defaults. The command itself makes the empty model.
        default = None if _is_model(hints[name]) and parameter.default is parameter.empty else parameter.default
        yield parameter.replace(annotation=hint, kind=kind, default=default)


def _option(hint: Any, text: str | None) -> Any:
    """Return the annotation with which a parameter that is no model becomes an option.

    Args:
        hint: annotation of the parameter.
        text: help text.
    """
    alternatives = _alternatives(hint)
    if any(get_origin(part) is dict for part in alternatives):
        # Cyclopts would make an option of each key, and would not call the converter.
        return Annotated[Any, Parameter(help=text, converter=_json_object)]
    if int in alternatives:
        return Annotated[hint, Parameter(help=text, converter=_whole_number)]
    return Annotated[hint, Parameter(help=text)]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types that an annotation allows: `int` and `None` for `Annotated[int, ...] | None`."""
    bare = [hint.__origin__ if hasattr(hint, "__metadata__") else hint]
    parts = [part for one in bare for part in (get_args(one) or (one,))]
    return tuple(part.__origin__ if hasattr(part, "__metadata__") else part for part in parts)


def _whole_number(_: Any, tokens: Sequence[Token]) -> int:
    """Return the whole number that a person typed. Cyclopts itself would round `1.5`, and report no error."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"give a whole number, not {text!r}") from None


def _json_object(_: Any, tokens: Sequence[Token]) -> dict[str, Any]:
    """Return the JSON object that a person typed."""
    text = tokens[0].value
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f'give a JSON object, such as \'{{"collections": ["a"]}}\', not {cut(text, 60)!r}')
    return value
