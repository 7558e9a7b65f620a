"""The base class of all options, and texts about a wrong value in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from rasterembed.errors import UsageError
from rasterembed.escape import cut
from rasterembed.near_names import known_names, near_names
from rasterembed.number_text import number_text

_REASONS = {
    "bool_parsing": "give yes or no",
    "bool_type": "give yes or no",
    "dict_type": "give a dict",
    "finite_number": "give a finite number",
    "float_parsing": "give a number",
    "float_type": "give a number",
    "greater_than": "give more than {gt}",
    "greater_than_equal": "give {ge} or more",
    "int_from_float": "give a whole number",
    "int_parsing": "give a whole number",
    "int_type": "give a whole number",
    "less_than": "give less than {lt}",
    "less_than_equal": "give {le} or less",
    "literal_error": "give {expected}",
    "model_type": "give {class_name}(…)",
    "multiple_of": "give a multiple of {multiple_of}",
    "string_too_long": "give at most {max_length} letters",
    "string_too_short": "give a longer text, of at least {min_length} letters",
    "string_type": "give a text",
    "too_long": "give at most {max_length} values",
    "tuple_type": "give several values, in a tuple or a list",
    **{
        f"{kind}_{problem}": "give a date such as 2024-06-01, or a time such as 2024-06-01T12:00:00Z"
        for kind in ("date", "datetime")
        for problem in ("parsing", "from_date_parsing", "from_datetime_parsing", "from_datetime_inexact", "type")
    },
}
"""Texts for people, by the type of pydantic's error. Every text begins with `give`, so that `or` can join two texts."""

_SHOWN_LETTERS = 80
"""Longest part of a wrong value that an error shows."""


class ShownValueError(ValueError):
    """The error of a check whose text shows the wrong value. Other texts get the value at their end."""


class _ErrorsInOneLine(type(BaseModel)):  # type: ignore[misc]
    """Makes a class raise a UsageError of one line where pydantic would raise a ValidationError of several lines.

    Only a call of the class, such as `Grid(size=20)`, is changed. `model_validate`, and models that contain the class,
    raise pydantic's error: they read stored files and forms, and their callers name the file or the form.
    """

    def __call__(cls, *args: Any, **values: Any) -> Any:
        if args:
            example = f"{cls.__name__}({next(iter(cls.model_fields))}=…)"
            raise UsageError(f"{cls.__name__} takes its values by name: write {example}")
        try:
            return super().__call__(**values)
        except ValidationError as error:
            raise UsageError(_wrong_value(cls, error)) from error


if TYPE_CHECKING:
    # Type checkers know the parameters of a model only if its metaclass is pydantic's own.
    OneLineErrors = BaseModel
else:

    class OneLineErrors(BaseModel, metaclass=_ErrorsInOneLine):
        """Base of a model whose wrong values raise a UsageError of one line. See `_ErrorsInOneLine`.

        Its `repr` shows only the values that differ from their defaults. Models of options contain each other, so that
        all values together would fill a screen.
        """

        def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
            """Yield the names and values that `repr` shows."""
            defaults = {name: field.get_default() for name, field in type(self).model_fields.items()}
            return ((name, value) for name, value in super().__repr_args__() if value != defaults.get(str(name)))


class OptionsModel(OneLineErrors):
    """Base class of options. Options cannot be changed, and unknown names are refused.

    Raises:
        UsageError: if a value is wrong. The text names the option, the remedy and the value in one line.

    Example:
        >>> from rasterembed import Grid
        >>> Grid(size=20)
        Traceback (most recent call last):
        rasterembed.errors.UsageError: Grid: `size`: give a multiple of 16, not 20
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


def _wrong_value(model: type[BaseModel], error: ValidationError) -> str:
    """Return one line about the first wrong value of a model: the name of the option, what is allowed, the value."""
    first = error.errors(include_url=False)[0]
    names, inner = _place(model, first["loc"])
    if first["type"] == "extra_forbidden":
        unknown = str(first["loc"][-1])
        advice = advice_about_option({"": inner}, unknown, first["input"]) or _advice_about_other_models(unknown)
        if not advice or near_names(unknown, inner.model_fields):
            advice = f"it has {known_names(unknown, inner.model_fields)}"
        return f"{inner.__name__} has no option `{unknown}`: {advice}"
    if names and first["type"] == "missing" and not isinstance(first["loc"][-1], int):
        name, description = names[-1], inner.model_fields[names[-1]].description
        return f"{inner.__name__}: `{name}` is missing: write {inner.__name__}({name}=…). {description or ''}".rstrip()
    where = f"{model.__name__}: `{'.'.join(names)}`: " if names else f"{model.__name__}: "
    reason = allowed_values(error)
    secret = model.model_config.get("hide_input_in_errors", False)
    if secret or not names or first["type"] == "missing" or shows_value(first):
        # The value may be a secret, is the whole model, is too short, or is in the text.
        return where + reason
    return f"{where}{reason}, not {cut(repr(first['input']), _SHOWN_LETTERS)}"


def advice_about_option(models: Mapping[str, type[BaseModel]], name: str, value: object = ...) -> str:
    """Return an advice how to give an option that is in a field of a model, or a near one. Empty if there is none.

    Args:
        models: models of options, by the text before their calls, such as `options=`.
        name: name of the option, as a person gave it.
        value: the value that the person gave. It is shown if it is short.

    Example:
        >>> from rasterembed import EmbedOptions
        >>> advice_about_option({"options=": EmbedOptions}, "size", 64)
        'write options=EmbedOptions(grid=Grid(size=64))'
    """
    places = [place for before, model in models.items() for place in _options_in(model, before)]
    exact = [place for place in places if place.name == name]
    if exact:
        outermost = min(place.depth for place in exact)
        return f"write {' or '.join(place.with_value(value) for place in exact if place.depth == outermost)}"
    near = near_names(name, list(dict.fromkeys(place.name for place in places))).removesuffix(", ...").split(", ")
    return (
        f"did you mean {' or '.join(place.with_value() for place in places if place.name in near)}?" if near[0] else ""
    )


@dataclass(frozen=True)
class _OptionPlace:
    """An option of a model, or of a model in a field of this model."""

    call: str
    """Beginning of the call that gives the option, such as `EmbedOptions(grid=Grid(`."""
    name: str
    """Name of the option."""
    secret: bool
    """Whether a value may be a secret."""

    @property
    def depth(self) -> int:
        """Number of models that contain the option."""
        return self.call.count("(")

    def with_value(self, value: object = ...) -> str:
        """Return the whole call: `EmbedOptions(grid=Grid(size=64))`. A long value or a secret is not shown."""
        shown = isinstance(value, (bool, int, float, str)) and len(repr(value)) <= _SHOWN_LETTERS and not self.secret
        return f"{self.call}{self.name}={repr(value) if shown else '…'}{')' * self.depth}"


def _options_in(model: type[BaseModel], before: str = "") -> Iterator[_OptionPlace]:
    """Yield every option of a model, and of the models in its fields.

    Args:
        model: a model of options.
        before: text before the call of the model.
    """
    call = f"{before}{model.__name__}("
    for name, field in model.model_fields.items():
        yield _OptionPlace(call, name, model.model_config.get("hide_input_in_errors", False))
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _options_in(kind, f"{call}{name}=")


def _advice_about_other_models(name: str) -> str:
    """Return a text that names the loaded models with an option of this name. Empty if there is none."""
    models = sorted(
        model.__name__
        for model in _models_below(OptionsModel)
        if model.__module__.startswith(__package__) and name in model.__annotations__
    )
    return f"it is an option of {' and of '.join(models)}" if models else ""


def _models_below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in model.__subclasses__():
        yield one
        yield from _models_below(one)


def shows_value(error: Mapping[str, Any]) -> bool:
    """Return whether the text of an error shows the wrong value already.

    Args:
        error: an error as pydantic describes it.
    """
    return isinstance(error.get("ctx", {}).get("error"), ShownValueError)


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel]]:
    """Return the names of the options that lead to a wrong value, and the innermost model.

    Positions in tuples and members of unions are left out: they are at the end of pydantic's location.
    """
    names: list[str] = []
    for part in map(str, location):
        if part not in model.model_fields:
            break
        names.append(part)
        kind = model.model_fields[part].annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        model = kind
    return names, model


def allowed_values(error: ValidationError) -> str:
    """Return a text about the values that the first wrong option allows. The text does not name the option.

    If the option allows several types, the text names all of them.
    """
    return reason_of(error.errors(include_url=False))


def reason_of(errors: Sequence[Mapping[str, Any]]) -> str:
    """Return a text about the values that the first wrong option allows. See `allowed_values`.

    Args:
        errors: the errors as pydantic describes them, at least one.
    """
    same_option = [one for one in errors if one["loc"][:1] == errors[0]["loc"][:1]]
    missing = [one["loc"][-1] for one in same_option if one["type"] == "missing"]
    if missing and isinstance(missing[-1], int):  # A tuple is too short.
        return f"give {missing[-1] + 1} values"
    if missing:
        return "give a value"
    reasons = dict.fromkeys(
        _REASONS[one["type"]].format_map({name: _number(value) for name, value in one.get("ctx", {}).items()})
        for one in same_option
        if one["type"] in _REASONS
    )
    if errors[0]["type"] in _REASONS:
        return " or ".join(reasons).replace(" or give ", " or ")
    message: str = errors[0]["msg"]
    return message.removeprefix("Value error, ")


def has_reason(error: Mapping[str, Any]) -> bool:
    """Return whether `reason_of` describes an error in the words of this library, and not in those of pydantic.

    Args:
        error: an error as pydantic describes it.
    """
    return error["type"] in {*_REASONS, "missing", "value_error"}


def _number(value: object) -> object:
    """Return a number as text for people, and any other value as it is."""
    return number_text(value) if isinstance(value, float) else value
