"""What S3 servers post when objects are created, in the forms of MinIO, RustFS, Ceph, AWS and SNS.

All send `Records` in the form of AWS; they differ in the case of names, in the `s3:` before an event's name, in whether
the key is escaped as in a query string (all but Ceph), and in what is wrapped around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import pydantic_core
from pydantic import ValidationError

from rasterembed.store.uploads import Upload

_SNS_TYPES = ("Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation")

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
"""JSON Schema of a body. What is in the records is judged one by one: a broken one must not hold up the others."""


class NotJsonError(ValueError):
    """The body is no JSON."""


class NotANotificationError(ValueError):
    """The body is JSON, but nothing that an S3 server sends."""


class HopelessRecordError(ValueError):
    """The record can never become a run, however often it is sent."""


@dataclass(frozen=True)
class Created:
    """An object was created."""

    upload: Upload
    event: str
    """As s3:ObjectCreated:Put."""
    occurred: datetime
    """When the server says that it happened."""
    size: int | None
    """Bytes."""


def read_body(body: bytes) -> list[dict[str, Any]]:
    """The records of a notification.

    Raises:
        NotJsonError: if it is not JSON.
        NotANotificationError: if it is something else.
    """
    document = _json(body)
    if _is_sns(document):
        if document["Type"] != "Notification":
            return []
        try:
            return _records(_json(document["Message"]))
        except ValueError:
            return [document]  # one hopeless record: the envelope was right
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
    """What was created, or None if the record tells of something else.

    Raises:
        HopelessRecordError: if it cannot be understood, or names no object that could be read.
    """
    event = _text(record, "eventName")
    event = event if event.startswith("s3:") else f"s3:{event}"
    if not event.startswith("s3:ObjectCreated:"):
        return None
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
        raise HopelessRecordError(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from error
    size = _get(about, "size")
    return Created(upload, event, _time(record), size if isinstance(size, int) and size >= 0 else None)


def _version(about: dict[str, Any]) -> str:
    """Version id; ETag; or, where a server sends neither, the number that orders events of one key."""
    for name in ("versionId", "eTag", "sequencer"):
        value = _get(about, name)
        if isinstance(value, str) and (value := value.strip('"')) and value != "null":
            return value
    raise HopelessRecordError("neither version nor ETag")


def _time(record: dict[str, Any]) -> datetime:
    """The record's time, or now where it has none or one to come."""
    now = datetime.now(UTC)
    try:
        time = datetime.fromisoformat(_text(record, "eventTime"))
        return min(time if time.tzinfo else time.replace(tzinfo=UTC), now)
    except (ValueError, OverflowError):
        return now


def _get(record: dict[str, Any], name: str) -> Any:
    """A member by its name in any case, with or without underscores."""
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
