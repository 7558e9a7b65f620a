"""The store of a command, and the server that the command reads rasters from."""

from __future__ import annotations

import os

from pydantic import ValidationError

from rasterembed.environment_variables import unknown_variable
from rasterembed.errors import UsageError
from rasterembed.options_model import allowed_values
from rasterembed.store.object_store import ObjectStore, open_store
from rasterembed.store.server_settings import SourceSettings, SourceStore

PREFIX = "RASTEREMBED_SOURCE_"
"""Beginning of the environment variables with the fields of `SourceStore`. Keys do not belong on a command line, where
every user of the machine can read them."""

VARIABLES = {field: f"{PREFIX}{field.upper()}" for field in SourceSettings.model_fields}
"""The environment variables, by the field of `SourceStore`."""


def open_command_store(root: str | None) -> ObjectStore:
    """Return the store for a root that a person typed. Rasters are read as the environment variables say.

    Args:
        root: folder or s3://bucket/prefix. The default is `DEFAULT_ROOT`.

    Raises:
        UsageError: if the root or a variable is wrong.
    """
    store = open_store(root)
    if unknown := unknown_variable(PREFIX, VARIABLES.values()):
        raise UsageError(unknown)
    given = {field: os.environ[name] for field, name in VARIABLES.items() if os.environ.get(name)}
    if not given:
        return store
    try:
        source_store = SourceStore.model_validate(given)
    except ValidationError as error:
        field = next(iter(error.errors(include_input=False)[0]["loc"]), None)
        raise UsageError(f"{VARIABLES.get(str(field), PREFIX + '…')}: {allowed_values(error)}") from error
    return store.model_copy(update={"source_store": source_store})
