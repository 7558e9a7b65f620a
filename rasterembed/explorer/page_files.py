"""The files of the built page. `make page` builds them into the folder `static`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request, Response

from rasterembed.explorer.header_fields import accepted_encodings, has_etag
from rasterembed.explorer.problems import ProblemError, ProblemType

STATIC = Path(__file__).with_name("static")
"""Folder of the built page."""

INDEX = "index.html"

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
"""Media types of the files that the page has, by their ending. Other files are not served."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""Names of files. A name has no slash and does not begin with a dot, so it stays in the folder."""

_HASHED = re.compile(r".*-[A-Za-z0-9]{8,}\.[a-z0-9.]+")
"""Names with a digest of the content. Such a file never changes."""

_ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
"""Compressed forms of a file, the smaller one first: their names in HTTP, and the endings of their files."""


def not_built(folder: Path) -> str:
    """Return the text for people about a page that was not built into a folder."""
    return (
        f"the page was not built into {folder}: run `make page` in the folder of the sources, which needs Node.js 18 "
        "or newer (Debian: apt-get install nodejs npm), or install the package from a wheel; the API at /api works "
        "without the page"
    )


@dataclass(frozen=True)
class PageFiles:
    """The files of the page in a folder. They are read when they are asked for, so a new build needs no restart."""

    folder: Path = STATIC

    @property
    def is_built(self) -> bool:
        """Whether the page was built."""
        return (self.folder / INDEX).is_file()

    def page(self, request: Request) -> Response:
        """Return the page itself.

        Raises:
            ProblemError: if the page was not built.
        """
        if not self.is_built:
            raise ProblemError(503, ProblemType.PAGE_MISSING, not_built(self.folder))
        return self._file(request, self.folder / INDEX)

    def asset(self, request: Request, name: str) -> Response:
        """Return a file of the page.

        Args:
            request: the request.
            name: name of the file in the folder `assets`.

        Raises:
            ProblemError: with status 404, if the page has no such file.
        """
        file = self.folder / "assets" / name
        if not _NAME.fullmatch(name) or file.suffix not in _MEDIA_TYPES or not file.is_file():
            raise ProblemError(
                404,
                ProblemType.NOT_FOUND,
                "the page has no such file: reload the page, because a newer one may have been built",
            )
        return self._file(request, file)

    def _file(self, request: Request, file: Path) -> Response:
        encoding, sent = _chosen_form(file, request.headers.get("Accept-Encoding", ""))
        data = sent.read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        fixed = file.parent.name == "assets" and _HASHED.fullmatch(file.name)
        headers = {
            "ETag": etag,
            "Cache-Control": "public, max-age=31536000, immutable" if fixed else "no-cache",
            "Vary": "Accept-Encoding",
        }
        if has_etag(request.headers.get("If-None-Match", ""), etag):
            return Response(status_code=304, headers=headers)
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        return Response(data, 200, headers, _MEDIA_TYPES[file.suffix])


def _chosen_form(file: Path, accepted: str) -> tuple[str | None, Path]:
    """Return the name of the encoding and the file of the smallest form that the browser accepts.

    Args:
        file: the file itself.
        accepted: the header Accept-Encoding of the request.
    """
    weights = accepted_encodings(accepted)
    for name, ending in _ENCODINGS:
        compressed = file.with_name(f"{file.name}{ending}")
        if weights.get(name, weights.get("*", 0.0)) > 0 and compressed.is_file():
            return name, compressed
    return None, file
