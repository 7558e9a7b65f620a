"""Let public functions answer an unknown parameter with an error of one line that says how to give the option."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar

from pydantic import BaseModel

import rasterembed
from rasterembed.errors import UsageError
from rasterembed.escape import cut
from rasterembed.near_names import known_names, near_names
from rasterembed.options_model import OneLineErrors, advice_about_option

_NAME_LETTERS = 80
"""Longest part of a wrong name that a text shows."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def known_parameters(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a public function raise a UsageError for an unknown parameter, where Python would raise a TypeError.

    The options of a command are parameters of several models in Python. The text says which of them has the option.

    Example:
        >>> @known_parameters
        ... def search(query: Query, where: Where | None = None) -> None: ...
        >>> search(tile="r000000_c000000")
        Traceback (most recent call last):
        rasterembed.errors.UsageError: search has no parameter `tile`: write query=Query(tile='r000000_c000000')
    """
    names = frozenset(
        name for name, one in inspect.signature(function).parameters.items() if one.kind is not one.POSITIONAL_ONLY
    )

    @wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not kwargs.keys() <= names:
            unknown = next(name for name in kwargs if name not in names)
            raise UsageError(_unknown_parameter(function, unknown, kwargs[unknown]))
        return function(*args, **kwargs)

    return checked


def _unknown_parameter(function: Callable[..., object], name: str, value: object) -> str:
    """Return one line about an unknown parameter: how to give it, or which parameters the function has."""
    parameters = [one for one in inspect.signature(function).parameters if one not in ("self", "cls")]
    advice = advice_about_option(dict(_models_of(function)), name, value)
    if not advice or near_names(name, parameters):
        advice = f"it has {known_names(name, parameters)}"
    return f"{function.__qualname__.removesuffix('.__init__')} has no parameter `{cut(name, _NAME_LETTERS)}`: {advice}"


def _models_of(function: Callable[..., object]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the models of options that a function takes, each with the text before its call, such as `options=`."""
    for parameter in inspect.signature(function).parameters.values():
        for word in re.findall(r"\w+", str(parameter.annotation)):
            kind = getattr(rasterembed, word, None) if word in rasterembed.__all__ else None
            if isinstance(kind, type) and issubclass(kind, OneLineErrors):
                yield f"{parameter.name}=", kind
