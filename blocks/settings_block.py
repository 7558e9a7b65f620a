"""Base class of the blocks: an unknown field is refused."""

from __future__ import annotations

from typing import Any

from prefect.blocks.core import Block
from pydantic import ConfigDict, model_validator

from rasterembed.near_names import known_names

_FIELDS_OF_PREFECT = frozenset({"block_type_slug"})
"""Fields that Prefect adds to a block that it saves."""


class SettingsBlock(Block):
    """A block whose fields are all known. Prefect alone keeps an unknown field, and nothing reads it."""

    # Error texts must not show a refused value, because the value may hold a secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields and name not in _FIELDS_OF_PREFECT:
                raise ValueError(f"{cls.__name__} has no field `{name}`: it has {known_names(name, cls.model_fields)}")
        return values
