"""Files that a person downloads from the page: the tiles of an answer, or a program that gives the same answer."""

from __future__ import annotations

from dataclasses import dataclass

from rasterembed.explorer.asking.requests import ExportFormat
from rasterembed.search.answer import Answer
from rasterembed.search.output import FORMATS


@dataclass(frozen=True)
class Download:
    """A file for the browser."""

    name: str
    """Name of the file. It has only letters, digits, dots, hyphens and underscores."""
    media_type: str
    content: bytes

    @property
    def headers(self) -> dict[str, str]:
        """The header that lets the browser save the file under its name."""
        return {"Content-Disposition": f'attachment; filename="{self.name}"'}


_ENDINGS = {ExportFormat.GEOJSON: ".geojson", ExportFormat.GEOPARQUET: ".parquet", ExportFormat.PYTHON: ".py"}

MEDIA_TYPES = {
    ExportFormat.GEOJSON: "application/geo+json",
    ExportFormat.GEOPARQUET: "application/vnd.apache.parquet",
    ExportFormat.PYTHON: "text/x-python; charset=utf-8",
}


def answer_download(view_id: str, answer: Answer, file_format: ExportFormat) -> Download:
    """Return the tiles of an answer as a file, as `rasterembed search --out` writes it.

    Args:
        view_id: checked id of the dataset or the collection.
        answer: the answer.
        file_format: GeoJSON or GeoParquet.
    """
    return _download(view_id, file_format, FORMATS[_ENDINGS[file_format]](answer))


def program_download(view_id: str, program: str) -> Download:
    """Return a Python program as a file.

    Args:
        view_id: checked id of the dataset or the collection.
        program: the program.
    """
    return _download(view_id, ExportFormat.PYTHON, program.encode())


def _download(view_id: str, file_format: ExportFormat, content: bytes) -> Download:
    return Download(f"{view_id}-nearest{_ENDINGS[file_format]}", MEDIA_TYPES[file_format], content)
