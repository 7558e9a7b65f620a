"""Read a JSON object of a store into a pydantic model.

Anybody who may write to the bucket can change the object. At most `MAX_BYTES` are therefore read, and content that does
not fit the model raises an error of one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from rasterembed.errors import DataError, validation_reason
from rasterembed.store.object_store import ObjectStore

MAX_BYTES = 32 * 2**20
"""Largest size of a JSON object that is read. The manifest of a dataset with 500 shards has 200 KB."""

_Model = TypeVar("_Model", bound=BaseModel)


def read_model(
    store: ObjectStore,
    key: str,
    model: type[_Model],
    *,
    name: str,
    remedy: str | Callable[[], str],
    why_unusable: Callable[[_Model], str | None] | None = None,
) -> _Model | None:
    """Read a JSON object of a store, and check its fields.

    Args:
        store: the store.
        key: key of the object.
        model: pydantic model of the content.
        name: word for the object in errors, such as `manifest`.
        remedy: what a person can do if the object cannot be read, or a function that finds it out.
        why_unusable: function that returns the reason why this library cannot have written the content, or None if it
            can. By default, only the model checks the content.

    Returns:
        The content, or None if the object does not exist.

    Raises:
        DataError: if the object is too large, is not JSON, does not fit the model, or is unusable. The text names the
            first wrong field.
        StoreError: if the store refuses or does not answer.
    """
    data = store.read(key, MAX_BYTES + 1)
    if data is None:
        return None
    if len(data) > MAX_BYTES:
        raise DataError(
            f"{store.uri(key)}: it has more than {MAX_BYTES // 2**20} MiB, too much for a {name}: {_text_of(remedy)}"
        )
    try:
        content = model.model_validate_json(data)
    except ValidationError as error:
        raise _unreadable(store, key, name, _first_reason(error), remedy) from error
    reason = None if why_unusable is None else why_unusable(content)
    if reason is not None:
        raise _unreadable(store, key, name, reason, remedy)
    return content


def _unreadable(store: ObjectStore, key: str, name: str, reason: str, remedy: str | Callable[[], str]) -> DataError:
    """Return the error for an object with content that this version cannot use."""
    return DataError(f"{store.uri(key)}: this version cannot read the {name} ({reason}): {_text_of(remedy)}")


def _text_of(remedy: str | Callable[[], str]) -> str:
    return remedy if isinstance(remedy, str) else remedy()


def _first_reason(error: ValidationError) -> str:
    """Return the first wrong field and pydantic's message about it, without the field's value."""
    location = error.errors(include_url=False, include_input=False)[0]["loc"]
    # Shorten each part and replace its unusual characters: it can be a key of the stored JSON, which can be any text.
    place = ".".join(re.sub(r"\W", "?", str(part))[:40] for part in location)
    return f"{place}: {validation_reason(error)}" if place else validation_reason(error)
