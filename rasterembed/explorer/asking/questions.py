"""Turn the body of a request into the library's `Query` and `Where`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import ValidationError

from rasterembed.errors import Access, DataError, RasterEmbedError, os_errors
from rasterembed.escape import cut
from rasterembed.explorer.asking.images import IMAGE_NAME, ImageFolder
from rasterembed.explorer.asking.library_options import library_options
from rasterembed.explorer.asking.requests import AskedQuery, AskedWhere, ClickRequest, SearchRequest
from rasterembed.explorer.views import View
from rasterembed.search.answer import Answer
from rasterembed.search.query import Query, Where
from rasterembed.store.local_cache import temporary_folder

POLYGON_NAME = "the polygon"
"""Words that stand for the path of a polygon's file in errors."""


@contextmanager
def opened_query(asked: AskedQuery, images: ImageFolder) -> Iterator[Query]:
    """Yield the query of a request. Inside the block, errors name a dropped image by words and not by its path.

    Args:
        asked: the examples of the request.
        images: folder of the uploaded images.

    Raises:
        ProblemError: with status 404, if the folder does not have the image.
        UsageError: if the examples do not fit together.
    """
    image = None if asked.image is None else str(images.path(asked.image))
    with _named({} if image is None else {image: IMAGE_NAME}):
        yield library_options(
            Query,
            tile=asked.tile,
            lonlat=asked.lonlat,
            image=image,
            like=tuple(asked.like),
            unlike=tuple(asked.unlike),
            include_query=asked.include_query,
        )


@contextmanager
def opened_where(asked: AskedWhere) -> Iterator[Where]:
    """Yield the filters of a request. The library reads polygons from a file, which exists inside the block.

    Args:
        asked: the filters of the request.

    Raises:
        UsageError: if a filter is wrong.
        StoreError: if the file for the polygon cannot be written.
    """
    values = asked.model_dump(exclude={"polygon"}, exclude_none=True)
    values["scenes"] = tuple(asked.scenes)
    if asked.polygon is None:
        yield library_options(Where, **values)
        return
    with temporary_folder("polygon") as folder:
        file = folder / "polygon.geojson"
        with os_errors(str(file), Access.WRITE):
            file.write_text(json.dumps(asked.polygon.model_dump(mode="json")))
        with _named({str(file): POLYGON_NAME}):
            yield library_options(Where, within=str(file), **values)


def where_of_place(request: ClickRequest) -> Where:
    """Return the filters for the tile at the place of a click. The area of the request is left out.

    Args:
        request: the click.

    Raises:
        UsageError: if a filter is wrong.
    """
    values = request.where.model_dump(exclude={"bbox", "polygon"}, exclude_none=True)
    values["scenes"] = tuple(request.where.scenes)
    if request.date is not None:
        values |= {"since": request.date, "until": request.date}
    return library_options(Where, **values)


def query_of_tile(dataset_id: str, tile_id: str) -> AskedQuery:
    """Return the query for a tile that is stored under these ids.

    Raises:
        DataError: if no run of this library writes such an id.
    """
    try:
        return AskedQuery(tile=f"{dataset_id}/{tile_id}")
    except ValidationError as error:
        raise DataError(
            f"dataset {dataset_id!r}: {cut(tile_id, 100)!r} is not a tile id: embed the raster again"
        ) from error


@contextmanager
def _named(words: Mapping[str, str]) -> Iterator[None]:
    """Replace the paths of the service's own files by words in the errors of the block.

    Args:
        words: words for people, by the path.
    """
    try:
        yield
    except RasterEmbedError as error:
        text = str(error.args[0]) if error.args else ""
        for path, word in words.items():
            text = text.replace(path, word)
        error.args = (text, *error.args[1:])
        raise


def answer_of(view: View, images: ImageFolder, request: SearchRequest) -> Answer:
    """Return the answer of the library to a request.

    Args:
        view: the dataset or the collection that is asked.
        images: folder of the uploaded images.
        request: the request.

    Raises:
        ProblemError: with status 404, if the folder does not have the image.
        UsageError: if the query or a filter is wrong.
        DataError: if the view cannot answer.
    """
    with opened_query(request.query, images) as query, opened_where(request.where) as where:
        return view.searcher.ask(query, where, request.k)
