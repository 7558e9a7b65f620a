"""What can go wrong by a person's doing, as exceptions whose text is one line fit to be read by them."""

from __future__ import annotations


class RasterEmbedError(Exception):
    """Base of every error that names what was wrong, where, and what to do."""

    exit_code = 1
    """Exit status of the command line: 2 for wrong usage, 1 for data that cannot be worked on."""


class UsageError(RasterEmbedError):
    """A parameter is wrong; nothing was read or written."""

    exit_code = 2


class DataError(RasterEmbedError):
    """The raster, the model or the dataset cannot be worked on as it is."""


class StoreError(DataError):
    """The object store refused: wrong keys, a missing bucket or object, no rights."""


class StoreUnavailableError(StoreError):
    """The object store did not answer or broke off; the same call may work later."""


class ConfigurationChangedError(DataError):
    """The dataset exists with another configuration, and `replace` was not given."""


class LeaseHeldError(DataError):
    """Another run holds the dataset."""


class LeaseLostError(DataError):
    """This run's lease expired and another run took the dataset over."""


class Cancelled(RasterEmbedError):  # noqa: N818 - it says what happened, it is no error of anybody's
    """The run was told to stop; complete shards stay, nothing else does."""
