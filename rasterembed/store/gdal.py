"""How GDAL reads rasters of a store: its options and credentials, for one thread at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import rasterio
from rasterio.session import AWSSession

from rasterembed.store.object_store import ObjectStore

MAX_READ_BYTES = 64 * 2**20
"""Largest number of bytes read in one call. GDAL must be able to keep this much of an S3 object in its cache."""


@contextmanager
def gdal_environment(store: ObjectStore, uri: str, *, cache_bytes: int) -> Iterator[str]:
    """Configure GDAL, for the calling thread only, to read `uri`; yield the path by which GDAL opens it.

    The credentials never enter the environment of the process, so threads can read from several stores at once.

    Args:
        store: store whose endpoint and credentials reach `uri`.
        uri: an absolute path, or s3://bucket/key.
        cache_bytes: size of GDAL's block cache in bytes. All threads of the process share this cache.

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
    options: dict[str, Any] = {
        "GDAL_CACHEMAX": cache_bytes,  # A Python int means bytes; only the environment variable's "64" means MB.
        # GDAL must not list the folder, nor open other files beside the raster.
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_PAM_ENABLED": "NO",
        # With this optimization GDAL fills the missing rows of a truncated PNG with random memory, without an error.
        "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
        # Otherwise a JPEG image, or a JPEG block of a TIFF, that is cut off or damaged is read on in grey.
        "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
        "CPL_DEBUG": False,
    }
    if not uri.startswith("s3://"):
        with rasterio.Env(session=None, **options):
            yield uri
        return
    endpoint = urlsplit(store.endpoint or "https://")
    session = AWSSession(store.aws_session, aws_unsigned=store.unsigned, endpoint_url=endpoint.netloc or None)
    options |= {
        "AWS_HTTPS": "NO" if endpoint.scheme == "http" else "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE" if store.path_style else "TRUE",
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",  # An object may be replaced while this process runs.
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
        "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": str(MAX_READ_BYTES),  # Blocks that GDAL may request together.
        # GDAL splits a read that is longer than this cache, and the parts overlap.
        "CPL_VSIL_CURL_CACHE_SIZE": str(MAX_READ_BYTES + 2**20),
        "GDAL_INGESTED_BYTES_AT_OPEN": 65536,  # One request gets the header and the block index of most files.
        "GDAL_HTTP_MAX_RETRY": 1,  # For one failed request. After that, the shard reader opens the raster again.
        "GDAL_HTTP_RETRY_DELAY": 0.5,
        "GDAL_HTTP_CONNECTTIMEOUT": 10,
        "GDAL_HTTP_TIMEOUT": 120,
    }
    with rasterio.Env(session=session, **options):
        yield f"/vsis3/{uri.removeprefix('s3://')}"
