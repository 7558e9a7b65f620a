"""Turn values of a request into options of the library."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from rasterembed.errors import UsageError
from rasterembed.options_model import OptionsModel, reason_of

Options = TypeVar("Options", bound=OptionsModel)


def library_options(kind: type[Options], **values: Any) -> Options:
    """Return options of the library from the values of a request.

    Args:
        kind: class of the options. Errors do not name it, because the sender of a request does not know it.
        **values: the values.

    Raises:
        UsageError: if a value is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        place = f"`{errors[0]['loc'][0]}`: " if errors[0]["loc"] else ""
        raise UsageError(f"{place}{reason_of(errors)}") from error
