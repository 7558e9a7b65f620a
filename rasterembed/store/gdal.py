"""Give GDAL the options and the credentials that it needs to read a raster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from rasterembed.store.https_url import is_https
from rasterembed.store.object_store import ObjectStore

MAX_READ_BYTES = 64 * 2**20
"""Largest number of bytes that one call reads. GDAL's cache must hold this many bytes of an S3 object."""

_FEW_READS = {
    "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": str(MAX_READ_BYTES),  # Most bytes of blocks that GDAL requests together.
    "GDAL_INGESTED_BYTES_AT_OPEN": 65536,  # In most files, this many bytes hold the header and the block index.
}
"""GDAL's options for a file on a server, of which each read is a request."""


@contextmanager
def gdal_environment(store: ObjectStore, uri: str, *, cache_bytes: int) -> Iterator[str]:
    """Configure GDAL to read `uri`, and yield the path for GDAL's open call.

    The options and the credentials apply only to the calling thread, so threads can read from several stores at once.
    The credentials are never put into environment variables. The block cache is an exception: all threads of the
    process share it.

    Args:
        store: store with the endpoint and the credentials for `uri`. See `ObjectStore.source`.
        uri: an absolute path, s3://bucket/key, or an https:// address.
        cache_bytes: size in bytes of GDAL's block cache, which belongs to the whole process.

    Raises:
        UsageError: if `AWS_ENDPOINT_URL` is not the URL of a server.

    Example:
        >>> from rasterembed.store.gdal import gdal_environment
        >>> from rasterembed.store.object_store import ObjectStore
        >>> store = ObjectStore(root="/data/embeddings")
        >>> with gdal_environment(store, "/data/scene.tif", cache_bytes=2**26) as path:
        ...     path
        '/data/scene.tif'
    """
    import rasterio  # It takes long to import, and a search reads no raster.
    from rasterio.session import AWSSession

    options: dict[str, Any] = {
        "GDAL_CACHEMAX": cache_bytes,  # A Python int is a number of bytes. The text "64" would mean 64 MB.
        # GDAL must not list the raster's folder, and must not open other files in that folder.
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_PAM_ENABLED": "NO",
        # Turn this optimization off. With it, GDAL returns random memory for the missing rows of a truncated PNG,
        # without an error.
        "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
        # Raise an error for a damaged or truncated JPEG file. By default, GDAL fills the missing part with grey. The
        # JPEG blocks of a TIFF need more: see `rasterembed.raster.jpeg_damage`.
        "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
        "CPL_DEBUG": False,
    }
    if not uri.startswith("s3://"):
        if is_https(uri):
            options |= _FEW_READS
        with rasterio.Env(session=None, **options):
            yield uri
        return
    server = store.source
    endpoint = urlsplit(server.endpoint or "https://")
    session = AWSSession(
        server.s3.session,
        aws_unsigned=server.unsigned,
        endpoint_url=endpoint.netloc or None,
        requester_pays=server.requester_pays,
    )
    options |= _FEW_READS | {
        "AWS_HTTPS": "NO" if endpoint.scheme == "http" else "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE" if server.path_style else "TRUE",
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",  # Keep nothing after closing: an object may be replaced meanwhile.
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
        # If a read is longer than this cache, GDAL splits the read into parts that overlap.
        "CPL_VSIL_CURL_CACHE_SIZE": str(MAX_READ_BYTES + 2**20),
        "GDAL_HTTP_MAX_RETRY": 1,  # If the retry fails too, the shard reader opens the raster again.
        "GDAL_HTTP_RETRY_DELAY": 0.5,
        "GDAL_HTTP_CONNECTTIMEOUT": 10,
        "GDAL_HTTP_TIMEOUT": 120,
    }
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        options["GDAL_CURL_CA_BUNDLE"] = bundle  # boto3 and s3fs read AWS_CA_BUNDLE, but GDAL does not.
    with rasterio.Env(session=session, **options):
        yield f"/vsis3/{uri.removeprefix('s3://')}"
