"""Pictures of quality reports."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import StoreError
from rasterembed.explorer.problems import ProblemError, ProblemType
from rasterembed.explorer.views import View
from rasterembed.near_names import known_names
from rasterembed.qa.collection_report import CAPTIONS as COLLECTION_CAPTIONS
from rasterembed.qa.report import CAPTIONS

_MOST_BYTES = 32 * 2**20
"""Largest picture that is sent. Those of the library have less than a megabyte."""

_PNG = b"\x89PNG\r\n\x1a\n"


class QaPicture(BaseModel):
    """A picture of a quality report."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    url: str
    """Address of the picture, relative to the page."""


def pictures_of(view: View) -> tuple[QaPicture, ...]:
    """Return the pictures of a view's quality report. The names come from this software, and never from the store.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    present = view.store.sizes(view.layout.qa_folder)
    return tuple(
        QaPicture(name=name, title=title, url=f"api/{view.kind}/{view.id}/qa/{name}")
        for name, title in _captions(view).items()
        if name in present
    )


def picture_version(view: View, name: str) -> str:
    """Return a text that changes when a picture changes.

    Raises:
        ProblemError: with status 404, if the report has no such picture.
    """
    if name not in _captions(view):
        raise _missing(view, name)
    try:
        info = view.store.describe_object(view.layout.qa_file(name))
    except StoreError as error:
        raise _missing(view, name) from error
    return f"{info.size} {info.version}"


def read_picture(view: View, name: str) -> bytes:
    """Return a picture of a view's quality report, as PNG.

    Raises:
        ProblemError: with status 404, if the report has no such picture.
    """
    data = view.store.read(view.layout.qa_file(name), _MOST_BYTES) if name in _captions(view) else None
    if data is None or not data.startswith(_PNG):
        raise _missing(view, name)
    return data


def _captions(view: View) -> dict[str, str]:
    return CAPTIONS if isinstance(view.content, Dataset) else COLLECTION_CAPTIONS


def _missing(view: View, name: str) -> ProblemError:
    present = [picture.name for picture in pictures_of(view)]
    option = "" if isinstance(view.content, Dataset) else "--collection "
    advice = f"it has {known_names(name, present)}" if present else f"run `rasterembed qa {option}{view.id}` first"
    return ProblemError(
        404, ProblemType.NOT_FOUND, f"the quality report of {view.layout.owner} has no picture {name!r}: {advice}"
    )
