"""The names of parameters and commands in a text of the library.

The library puts a parameter in backticks, with or without a value: `allow_no_crs`, `anchor=crs`. A field of another
parameter has the name of this parameter before it: `source_store.https_hosts`. A command to run is in backticks too.
Only this module looks for them. A command then writes them as a person types them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_NAME = "[a-z][a-z0-9_]*"
_PARAMETER = re.compile(rf"`(?:(?P<owner>{_NAME})\.)?(?P<name>{_NAME})(?:=(?P<value>[a-z0-9_.+ -]+))?`")
_COMMAND = re.compile(r"`(?P<command>rasterembed [^`]+)`")


@dataclass(frozen=True)
class NamedParameter:
    """A parameter that a text names."""

    name: str
    value: str | None = None
    """The value, if the text gives one."""
    owner: str | None = None
    """The parameter whose field this is. None for a parameter itself."""


def named_parameters(text: str) -> Iterator[NamedParameter]:
    """Yield the parameters that a text names.

    Example:
        >>> [parameter.name for parameter in named_parameters("a.tif: give `allow_no_crs`, or `anchor=crs`")]
        ['allow_no_crs', 'anchor']
    """
    return (_parameter(match) for match in _PARAMETER.finditer(text))


def replace_parameters(text: str, words: Callable[[NamedParameter], str | None]) -> str:
    """Return a text with other words for the parameters that it names.

    Args:
        text: the text.
        words: function that returns the words for a parameter. None: the parameter stays as it is.
    """

    def replaced(match: re.Match[str]) -> str:
        return words(_parameter(match)) or match[0]

    return _PARAMETER.sub(replaced, text)


def replace_commands(text: str, words: Callable[[str], str]) -> str:
    """Return a text with other words for the commands that it tells to run. Their backticks stay.

    Args:
        text: the text.
        words: function that returns the words for a command, such as `rasterembed datasets verify scene`.
    """
    return _COMMAND.sub(lambda match: f"`{words(match['command'])}`", text)


def _parameter(match: re.Match[str]) -> NamedParameter:
    return NamedParameter(match["name"], match["value"], match["owner"])
