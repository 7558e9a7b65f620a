"""Uploads of images that people drop on the page, to search for tiles that look like them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from rasterembed.errors import UsageError
from rasterembed.explorer.asking.images import ImageFolder, keep_image
from rasterembed.explorer.dependencies import KNOWN_PARAMETERS, SEARCH_SLOT, UsedExplorer, UsedView
from rasterembed.explorer.problems import ProblemError, responses

router = APIRouter(prefix="/api", tags=["search"], dependencies=[KNOWN_PARAMETERS])


class UploadedImage(BaseModel):
    """An image that the service keeps, so that it can be the example of a search."""

    image: str
    """SHA-256 digest of the uploaded bytes, in hexadecimal. A search names the image by it."""
    width: int
    """Columns, px."""
    height: int
    """Rows, px."""
    remark: str
    """Remark for people, for example if the image is much larger than a tile. Empty if there is nothing to say."""


async def _image_bytes(request: Request, explorer: UsedExplorer) -> AsyncIterator[bytes]:
    """Read the body of a request. `BodyLimit` bounds its size, and a slot bounds the memory of all uploads."""
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(explorer.work.uploads.slot())
        except ProblemError:
            # A browser that still sends would see a broken connection, and not the answer.
            async for _ in request.stream():
                pass
            raise
        yield await request.body()


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/png", "image/jpeg", "image/tiff", "image/webp")
        },
    }
}


@router.post("/{kind}/{id}/images", responses=responses(404, 409, 413, 502, 507), openapi_extra=_BODY)
def upload_image(
    # FastAPI reads the parameters in this order. A client that sends its image slowly must not keep searches waiting.
    data: Annotated[bytes, Depends(_image_bytes, scope="function")],
    request: Request,
    slot: Annotated[None, SEARCH_SLOT],
    view: UsedView,
) -> UploadedImage:
    """Keep an image as an example for searches. The body is a PNG, JPEG, TIFF or WebP file."""
    if request.headers.get("Content-Type", "").startswith("multipart/"):
        raise UsageError("the body is a form: send the bytes of a PNG, JPEG, TIFF or WebP file as the body")
    digest, chip = keep_image(ImageFolder(), view.searcher.dataset_of_image(), data)
    return UploadedImage(image=digest, width=chip.width, height=chip.height, remark=chip.remark)
