"""Read the notifications that S3 servers post when an object is created: MinIO, RustFS, Ceph, AWS, and AWS by SNS.

All servers send `Records` in the form of AWS, with four differences:

- Names differ in upper and lower case.
- The name of an event may begin with `s3:`.
- The key is escaped as in a query string, except by Ceph.
- The records may be inside an envelope.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import pydantic_core
from pydantic import ValidationError

from rasterembed.errors import validation_reason
from rasterembed.store.uploads import Upload

_SNS_TYPES = ("Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation")

_CREATED = re.compile(r"s3:ObjectCreated:[A-Za-z0-9:_*-]{1,100}")
"""Names of events about created objects. Prefect refuses long names, and its database takes no NUL character."""

_FIRST_TIME = datetime(2006, 3, 14, tzinfo=UTC)
"""The day on which the first S3 server began to work. An earlier time is wrong. If one event of a request has a time in
the year 1, Prefect drops all events of the request."""

_MAX_SIZE = 2**63 - 1
"""Largest size of an object, in bytes. Prefect's database takes no larger number."""

SCHEMA: dict[str, Any] = {
    "anyOf": [
        {
            "title": f"S3 event ({name})",
            "type": "object",
            "required": [name],
            "properties": {name: {"type": "array", "items": {"type": "object"}}},
        }
        for name in ("Records", "records")
    ]
    + [
        {
            "title": "SNS envelope around an S3 event",
            "type": "object",
            "required": ["Type", "Message"],
            "properties": {"Type": {"enum": list(_SNS_TYPES)}, "Message": {"type": "string"}},
        },
        {
            "title": "S3 test event",
            "type": "object",
            "required": ["Event"],
            "properties": {"Event": {"const": "s3:TestEvent"}},
        },
    ]
}
"""JSON Schema of a request body. The schema does not describe the records. The webhook reads each record alone, so that
a broken record does not block the others."""


class NotJsonError(ValueError):
    """The body is not JSON."""


class NotANotificationError(ValueError):
    """The body is JSON, but not a notification of an S3 server."""


class HopelessRecordError(ValueError):
    """The record can never become a run, even if it is sent again."""


@dataclass(frozen=True)
class Created:
    """An object that was created, as a notification describes it."""

    upload: Upload
    event: str
    """Name of the event, for example s3:ObjectCreated:Put."""
    occurred: datetime
    """Time of the event by the server's clock."""
    size: int | None
    """Size of the object in bytes, if the server sent it."""


def read_body(body: bytes) -> list[dict[str, Any]]:
    """Return the records of a notification.

    Raises:
        NotJsonError: if the body is not JSON.
        NotANotificationError: if the JSON is not a notification.
    """
    document = _json(body)
    if _is_sns(document):
        if document["Type"] != "Notification":
            return []
        try:
            return _records(_json(document["Message"]))
        except ValueError:
            return [document]  # The envelope is valid, so it counts as one hopeless record.
    return _records(document)


def _records(document: Any) -> list[dict[str, Any]]:
    if not isinstance(document, dict):
        raise NotANotificationError("not an object")
    if document.get("Event") == "s3:TestEvent":
        return []
    records = document.get("Records", document.get("records"))
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise NotANotificationError("no list Records of objects")
    return records


def _json(text: bytes | str) -> Any:
    try:
        return pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise NotJsonError(str(error)) from error


def _is_sns(document: Any) -> bool:
    return (
        isinstance(document, dict) and document.get("Type") in _SNS_TYPES and isinstance(document.get("Message"), str)
    )


def read_record(record: dict[str, Any]) -> Created | None:
    """Return the object that was created, or None if the record is about another event.

    Raises:
        HopelessRecordError: if the record cannot be understood, or if no run could read the object.
    """
    event = _text(record, "eventName")
    event = event if event.startswith("s3:") else f"s3:{event}"
    if not event.startswith("s3:ObjectCreated:"):
        return None
    if not _CREATED.fullmatch(event):
        raise HopelessRecordError("eventName is too long, or has characters that no name of an event has")
    s3 = _object(record, "s3")
    key, about = _text(_object(s3, "object"), "key"), _object(s3, "object")
    if _get(record, "eventSource") != "ceph:s3":
        try:
            key = unquote_plus(key, errors="strict")
        except UnicodeDecodeError as error:
            raise HopelessRecordError("the key is not UTF-8") from error
    try:
        upload = Upload(bucket=_text(_object(s3, "bucket"), "name"), key=key, version=_version(about))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise HopelessRecordError(f"{first['loc'][0]}: {validation_reason(error)}") from error
    size = _get(about, "size")
    return Created(upload, event, _time(record), size if isinstance(size, int) and 0 <= size <= _MAX_SIZE else None)


def _version(about: dict[str, Any]) -> str:
    """Return the version id, else the ETag, else the sequence number of the event."""
    for name in ("versionId", "eTag", "sequencer"):
        value = _get(about, name)
        if isinstance(value, str) and (value := value.strip('"')) and value != "null":
            return value
    raise HopelessRecordError("neither version nor ETag")


def _time(record: dict[str, Any]) -> datetime:
    """Return the record's time in UTC. If the time is missing or impossible, return the present time."""
    now = datetime.now(UTC)
    try:
        time = datetime.fromisoformat(_text(record, "eventTime"))
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return now
    return time if _FIRST_TIME <= time <= now else now


def _get(record: dict[str, Any], name: str) -> Any:
    """Return a member of a JSON object by name. Upper and lower case, and underscores, do not matter."""
    if name in record:
        return record[name]
    wanted = name.lower()
    return next((value for key, value in record.items() if key.replace("_", "").lower() == wanted), None)


def _text(record: dict[str, Any], name: str) -> str:
    value = _get(record, name)
    if not isinstance(value, str) or not value:
        raise HopelessRecordError(f"no {name}")
    return value


def _object(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = _get(record, name)
    if not isinstance(value, dict):
        raise HopelessRecordError(f"no {name}")
    return value
