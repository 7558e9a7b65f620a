"""Errors for answers of an S3 server, and for a server that does not answer as S3 does."""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    HTTPClientError,
    PartialCredentialsError,
    ProfileNotFound,
)

from rasterembed.errors import ObjectMissingError, StoreError, StoreUnavailableError, one_line

_ANSWER_FIELDS = {
    "get_object": ("ETag",),
    "head_object": ("ETag",),
    "put_object": ("ETag",),
    "list_objects_v2": ("Name", "KeyCount", "IsTruncated"),
}
"""Fields of the answer to a request, by botocore's name of the request. Each S3 server sends at least one of them."""

_RIGHTS = {
    "HeadObject": "GetObject",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
}
"""The rights that a request needs, as policies name them, if the request has another name."""

_WRONG_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException")
"""Codes of the answer to a request for another region than the bucket's."""

_WRONG_TIME = ("RequestTimeTooSkewed", "RequestExpired")
"""Codes of the answer to a request whose time differs too much from the server's."""

_REMEDIES = {
    "ExpiredToken": "the session token has expired: get new keys, and set AWS_SESSION_TOKEN to their token",
    "InvalidToken": "the session token does not belong to the keys: correct AWS_SESSION_TOKEN, or unset it",
    "InvalidObjectState": "the object is in an archive: restore it first",
    "QuotaExceeded": "the quota of the bucket or of the user is used up: delete something, or raise the quota",
    "XMinioStorageFull": "the server's disks are full: free some space",
}
"""What to do about an error, by the server's code for it."""

_ALLOWED_SKEW_S = 15 * 60
"""Largest difference in seconds between the clocks of client and server that S3 accepts."""

NOT_S3 = "the server does not answer as an S3 server does: check the endpoint"


class NotS3Error(Exception):
    """The answer is not that of an S3 server, but for example a web page."""


class EmptyRangeError(StoreError):
    """The object has no byte in the range that was asked for."""


def check_answer(request: str, answer: Mapping[str, Any]) -> None:
    """Refuse an answer that no S3 server gives, such as the page of a web server.

    Args:
        request: botocore's name of the request.
        answer: the answer as botocore has read it.

    Raises:
        NotS3Error: if the answer is not that of an S3 server.
    """
    fields = _ANSWER_FIELDS.get(request)
    if fields is not None and not any(name in answer for name in fields):
        raise NotS3Error


def status_of(error: ClientError) -> int:
    """Return the HTTP status of the server's answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def why_not_sent(error: BotoCoreError) -> str | None:
    """Return why a request was never sent because of a setting of AWS, or None if there is another reason.

    Args:
        error: botocore's error.
    """
    if isinstance(error, ProfileNotFound):
        return f"AWS_PROFILE: the files of AWS have no profile {str(error.kwargs['profile'])!r}"
    if isinstance(error, ConfigParseError):
        return f"{error.kwargs['path']}: this file of AWS cannot be read as an INI file: correct it"
    if isinstance(error, PartialCredentialsError):
        missing, place = error.kwargs["cred_var"], error.kwargs["provider"]
        return f"one of the two keys is missing ({missing}, from {place}): give both"
    # aiohttp refuses a header with a line break. Only the keys bring texts of a person into headers.
    if isinstance(error, HTTPClientError) and type(error.kwargs.get("error")) is ValueError:
        return "a key holds a line break or another control character: correct the access key and the session token"
    return None


def why_no_certificates() -> str | None:
    """Return why the file of certificates that AWS_CA_BUNDLE names cannot be used, or None if it can."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if not bundle:
        return None
    try:
        ssl.create_default_context(cafile=bundle)
    except OSError as error:
        return f"AWS_CA_BUNDLE: {bundle} cannot be read as certificates ({error.strerror or one_line(error)})"
    return None


def refusal(where: str, region: str, error: ClientError) -> StoreError:
    """Return an error for the server's answer. The error quotes only the code: the message may hold access keys.

    Args:
        where: address of the object, and the server.
        region: region that the request was for.
        error: botocore's error.
    """
    status, code = status_of(error), error.response.get("Error", {}).get("Code") or "no code"
    if code == "NoSuchBucket":
        return StoreError(f"{where}: there is no such bucket: check its name, or create it on the server")
    if status == 404:
        # The answer to a HEAD request has no body, so it does not tell whether the bucket exists.
        what = "object" if code == "NoSuchKey" else "object, or no such bucket"
        return ObjectMissingError(f"{where}: there is no such {what}")
    if status == 416:  # Requested Range Not Satisfiable: the range begins behind the end of the object.
        return EmptyRangeError(f"{where}: the object ends before the bytes that were asked for")
    if code in _REMEDIES:
        return StoreError(f"{where}: {_REMEDIES[code]} ({code})")
    other = _other_region(region, error)
    if other is not None or code in _WRONG_REGION:
        found = "in another region" if other is None else f"in region {other}"
        wanted = "=…" if other is None else f"={other}"
        return StoreError(
            f"{where}: the bucket is {found}, and the request was for {region}: set AWS_REGION{wanted}, or the region "
            "of the block or of the source store"
        )
    if status == 403:
        if code in _WRONG_TIME or _has_wrong_clock(error):
            return StoreError(f"{where}: the clocks of this machine and of the server differ: set this machine's clock")
        right = f"s3:{_RIGHTS.get(error.operation_name, error.operation_name)}"
        return StoreError(
            f"{where}: access denied ({code}): check the keys, and that the bucket's policy allows {right}"
        )
    # 409 means that another conditional write to the same key is in progress.
    if status in (409, 429, 500, 502, 503, 504):
        return StoreUnavailableError(f"{where}: {code} (HTTP {status})")
    return StoreError(f"{where}: {code} (HTTP {status})")


def _other_region(region: str, error: ClientError) -> str | None:
    """Return the region of the bucket if the answer names another one than the request's, else None."""
    found = _headers(error).get("x-amz-bucket-region") or error.response.get("Error", {}).get("Region")
    if not isinstance(found, str) or re.fullmatch("[a-z0-9-]{1,40}", found) is None:
        return None
    return None if found == region else found


def _has_wrong_clock(error: ClientError) -> bool:
    """Return whether the answer has another time than this machine. An answer to a HEAD request has no better code."""
    try:
        sent = parsedate_to_datetime(_headers(error)["date"]).timestamp()
    except (KeyError, ValueError):
        return False
    return abs(sent - time.time()) > _ALLOWED_SKEW_S


def _headers(error: ClientError) -> Mapping[str, str]:
    headers: Mapping[str, str] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers
