"""Pictures that browsers keep: their ETag, and how long they may be used without a question to the service."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response

from rasterembed.explorer.dependencies import UsedView
from rasterembed.explorer.header_fields import has_etag

_DAY_S = 86_400


@dataclass(frozen=True)
class Picture:
    """A picture that the address and the version of the view determine. `UsedPicture` gives one to an endpoint."""

    key: str
    """Digest of the address, the view's version and the version of this software."""
    known: str
    """The header If-None-Match of the request: the ETags that the browser has."""
    is_fixed: bool
    """Whether the address names the version of the view, so that its picture never changes."""

    def response(self, media_type: str, draw: Callable[[], bytes], *, also: str = "") -> Response:
        """Return the picture, or the status 304 if the browser has it. It is drawn only if the browser needs it.

        Args:
            media_type: media type of the picture, such as `image/png`.
            draw: function that draws the picture.
            also: text with everything else that determines the picture.
        """
        etag = f'"{hashlib.sha256(f"{self.key} {also}".encode()).hexdigest()[:32]}"'
        keep = f"private, max-age={_DAY_S}, immutable" if self.is_fixed else "private, no-cache"
        headers = {"ETag": etag, "Cache-Control": keep}
        if has_etag(self.known, etag):
            return Response(status_code=304, headers=headers)
        return Response(draw(), 200, headers, media_type)


def _picture(
    request: Request,
    view: UsedView,
    v: Annotated[
        str | None, Query(description="Version of the view. With it, browsers keep the picture.", max_length=64)
    ] = None,
) -> Picture:
    asked = urlencode(sorted((name, value) for name, value in request.query_params.multi_items() if name != "v"))
    text = f"{version('raster-embeddings')} {view.version} {request.url.path}?{asked}"
    key = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return Picture(key, request.headers.get("If-None-Match", ""), v == view.version)


UsedPicture = Annotated[Picture, Depends(_picture)]
"""How the picture of an endpoint is kept, as its parameter. It takes the parameter `v` of the address.

Example:
    >>> def thumbnail(view: UsedView, picture: UsedPicture) -> Response:  # doctest: +SKIP
    ...     return picture.response("image/webp", lambda: draw(view))
"""
