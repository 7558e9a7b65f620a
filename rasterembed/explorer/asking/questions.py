"""Turn the body of a request into the library's `Query` and `Where`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rasterembed.errors import RasterEmbedError, os_errors
from rasterembed.explorer.asking.images import ImageFolder
from rasterembed.explorer.asking.requests import AskedQuery, AskedWhere
from rasterembed.search.query import Query, Where
from rasterembed.store.local_cache import temporary_folder

POLYGON_NAME, IMAGE_NAME = "the polygon", "the dropped image"
"""Words that stand for the service's own files in errors. A person on the page does not know these files."""


@contextmanager
def opened_query(asked: AskedQuery, images: ImageFolder) -> Iterator[Query]:
    """Yield the query of a request. Inside the block, errors name a dropped image by words and not by its path.

    Args:
        asked: the examples of the request.
        images: folder of the uploaded images.

    Raises:
        UnknownImageError: if the folder does not have the image.
        UsageError: if the examples do not fit together.
    """
    image = None if asked.image is None else str(images.path(asked.image))
    with _named({} if image is None else {image: IMAGE_NAME}):
        yield Query(
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
        yield Where(**values)
        return
    with temporary_folder("polygon") as folder:
        file = folder / "polygon.geojson"
        _write_polygon(asked, file)
        with _named({str(file): POLYGON_NAME}):
            yield Where(within=str(file), **values)


def polygon_text(asked: AskedWhere) -> str | None:
    """Return the polygon of a request as GeoJSON, or None if the request has none."""
    return None if asked.polygon is None else json.dumps(asked.polygon.model_dump(mode="json"))


def _write_polygon(asked: AskedWhere, file: Path) -> None:
    with os_errors(str(file)):
        file.write_text(polygon_text(asked) or "")


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
