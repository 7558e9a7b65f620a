"""Load a block that a flow's parameters name."""

from __future__ import annotations

from typing import TypeVar

from prefect.blocks.core import Block
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from rasterembed.errors import UsageError, one_line, validation_reason

AnyBlock = TypeVar("AnyBlock", bound=Block)


def load_block(kind: type[AnyBlock], name: str, what: str) -> AnyBlock:
    """Return the block of this name.

    Args:
        kind: class of the block.
        name: name of the block.
        what: word for the block in errors, such as "object store".

    Raises:
        UsageError: if the block does not exist, or if one of its values is wrong.
    """
    try:
        block = kind.load(name)
    except ValidationError as error:
        raise UsageError(f"{what} {name!r}: {validation_reason(error)}") from error
    except ValueError as error:
        if isinstance(error.__cause__, ObjectNotFound):
            raise UsageError(
                f"{what} {name!r}: the Prefect server has no block of this name: list its blocks with "
                "`python -m prefect block ls`, or save one, as docs/stores.md shows (docs/models.md for weights)"
            ) from error
        raise UsageError(f"{what} {name!r}: {one_line(error)}") from error
    assert isinstance(block, kind)  # Inside an event loop, `load` would return a coroutine.
    return block
