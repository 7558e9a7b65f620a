"""Resolve the addresses in a STAC document or a list of scenes. A stranger may have written the document."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote, urlsplit

from rasterembed.errors import DataError
from rasterembed.store.object_store import locate

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def resolve_href(base: str, href: str, *, encoded: bool) -> str:
    """Return the full address that a document means.

    A document on S3 may name only objects on S3. Otherwise, a person who may write into the bucket could let a run read
    any local file.

    Args:
        base: address of the document: absolute path, or s3://bucket/key.
        href: address in the document. A relative address begins in the document's folder.
        encoded: whether `%` begins a code in the address, as in a STAC document. It does not in a list of paths.

    Returns:
        Absolute path, or s3://bucket/key.

    Raises:
        DataError: if the address is on a web server, is a local file named by a document on S3, or leads out of the
            bucket.
        UsageError: if the address is no path.

    Example:
        >>> resolve_href("s3://bucket/items/one.json", "../pixels/one%201.tif", encoded=True)
        's3://bucket/pixels/one 1.tif'
    """
    remote = base.startswith("s3://")
    if href.startswith("file://"):
        path, local = unquote(urlsplit(href).path), True
    elif href.startswith("s3://"):
        bucket, _, key = href.removeprefix("s3://").partition("/")
        return locate(f"s3://{bucket}/{unquote(key) if encoded else key}", "scene")
    elif _SCHEME.match(href):
        raise DataError(
            f"{href} is not on S3 or in a folder: copy the scene to one of them, because scenes are not read from "
            "other servers"
        )
    else:
        path, local = (unquote(href) if encoded else href), href.startswith("/")
    if local and remote:
        raise DataError(f"{base} names the local file {path}: a document on S3 may name only objects on S3")
    if local or not remote:
        return locate(posixpath.normpath(posixpath.join(posixpath.dirname(base), path)), "scene")
    bucket, _, key = base.removeprefix("s3://").partition("/")
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(key), path))
    if joined.startswith(".."):
        raise DataError(f"{base}: the link {href} leads out of the bucket")
    return locate(f"s3://{bucket}/{joined}", "scene")
