"""Texts about wrong requests: a wrong value or body, an unknown parameter, an unknown path, a wrong method."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.routing import Match
from starlette.types import Scope

from rasterembed.escape import cut
from rasterembed.near_names import known_names
from rasterembed.options_model import has_reason, reason_of

API = "/api/"
"""Beginning of the addresses that only programs ask for."""

_DESCRIPTION = "/api/openapi.json"
"""Path of the description of the API."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_NAME_LETTERS = 80
"""Longest part of a wrong name that a text shows."""

_PATH_LETTERS = 300
"""Longest part of a path that a text shows. The paths of all views and tiles are shorter."""

_REASONS = {
    "enum": "give {expected}",
    "list_type": "give a list of values",
    "model_attributes_type": "give a JSON object in braces",
    "too_short": "give at least {min_length} values",
    "tuple_type": "give a list of values, such as [1, 2]",
    "union_tag_not_found": "its field {discriminator} is missing: give it too",
    "union_tag_invalid": "its field {discriminator} is wrong: give one of {expected_tags}",
}
"""Texts about values that only a request has, by the type of pydantic's error."""


def wrong_value(error: RequestValidationError, request: Request) -> str:
    """Return one line about the first wrong value of a request: its place, and what to give.

    Args:
        error: the error of FastAPI, with at least one wrong value.
        request: the request.
    """
    errors = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        return f"body: it is no JSON from character {first['loc'][-1] + 1} on: {_send_json(request)}"
    if first["loc"] == ("body",) and first["type"] == "missing":
        return f"body: it is missing: {_send_json(request)}"
    if first["loc"] == ("body",) and first["type"] == "model_attributes_type":
        return f"body: {_why_no_object(request)}{_send_json(request)}"
    place = _place(first["loc"], error.body, is_missing=first["type"] == "missing")
    return f"{place}: {_reason([one for one in errors if one['loc'] == first['loc']])}"


def unreadable_body(cause: BaseException | None, request: Request) -> str:
    """Return one line about a body that FastAPI cannot read, and that is no wrong JSON.

    Args:
        cause: the error that reading the body raised.
        request: the request.
    """
    match cause:
        case UnicodeDecodeError():
            return f"body: it is no text in UTF-8: {_send_json(request)}"
        case RecursionError():
            return f"body: its values are nested too deep: {_send_json(request)}"
        case _:
            return "the body cannot be read: send it again"


def _why_no_object(request: Request) -> str:
    """Return why a body is no JSON object. FastAPI reads a body as JSON only if its Content-Type says so."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip()
    if not kind:
        return "its Content-Type is missing: "
    if kind.lower() == "application/json" or kind.lower().endswith("+json"):
        return "it is JSON, but no object in braces: "
    return f"its Content-Type is {cut(kind, _NAME_LETTERS)}: "


def _send_json(request: Request) -> str:
    """Return what to send as the body of a request, with the example of the endpoint's description."""
    app: FastAPI = request.app
    schema = _operation(request)["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rpartition("/")[2]
    example = app.openapi()["components"]["schemas"][name]["examples"][0]
    return f"send `Content-Type: application/json` and a body such as {json.dumps(example)}"


def _operation(request: Request) -> dict[str, Any]:
    """Return the description of the endpoint of a request, as OpenAPI has it."""
    operation: dict[str, Any] = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    return operation


def _place(location: Sequence[int | str], body: Any, *, is_missing: bool) -> str:
    """Return where a value is in a request, such as `body.where.since`.

    Args:
        location: the place as pydantic describes it. It also has the names of a union's members, which are left out.
        body: the body of the request.
        is_missing: whether the last part of the place is a field that is missing.
    """
    parts, value = [location[0]], body
    for number, part in enumerate(location[1:], 2):
        if isinstance(value, Mapping) and part not in value and not (is_missing and number == len(location)):
            continue  # The name of a union's member.
        parts.append(part)
        is_inside = isinstance(value, Mapping) and part in value
        is_item = isinstance(value, list) and isinstance(part, int) and part < len(value)
        value = value[part] if is_inside or is_item else None
    return ".".join(map(str, parts))


def _reason(errors: Sequence[Mapping[str, Any]]) -> str:
    first = errors[0]
    if first["type"] in _REASONS:
        return _REASONS[first["type"]].format_map(first.get("ctx", {}))
    if first["type"] == "missing" and not isinstance(first["loc"][-1], int):
        return "it is missing: give a value"
    if has_reason(first):
        return reason_of(errors)
    return f"this value is not allowed: {_DESCRIPTION} describes it"


def unknown_field(name: str, known: Collection[str]) -> str:
    """Return one line about an unknown field of a body. It names similar fields, or some of the known ones.

    Args:
        name: the unknown field.
        known: the fields that the object may have.
    """
    return f"there is no field {cut(name, _NAME_LETTERS)!r}: it has {known_names(name, known)}"


def wrong_parameter(request: Request) -> str | None:
    """Return one line about a parameter of the address that is unknown, or that is given twice. None if there is none.

    Args:
        request: the request.
    """
    found = Counter(name for name, _ in request.query_params.multi_items())
    known = [one["name"] for one in _operation(request).get("parameters", []) if one["in"] == "query"]
    for name, times in found.items():
        if name not in known:
            takes = f"it takes {known_names(name, known)}" if known else "it takes none, so leave it out"
            return f"{cut(request.url.path, _PATH_LETTERS)} has no parameter {cut(name, _NAME_LETTERS)!r}: {takes}"
        if times > 1:
            return f"query.{name}: it is given {times} times: give it once"
    return None


def unknown_path(app: FastAPI, scope: Scope) -> str:
    """Return one line about a path that does not exist.

    Args:
        app: the application.
        scope: the request, as ASGI describes it.
    """
    path: str = scope["path"]
    if not f"{path}/".startswith(API):
        return "the explorer has no such address: its page is at /, and its API below /api"
    right = path.rstrip("/")
    if right != path and methods_of(app, {**scope, "path": right}):
        return f"the API has no path {cut(path, _PATH_LETTERS)!r}: write {cut(right, _PATH_LETTERS)}"
    return (
        f"the API has no path {cut(path, _PATH_LETTERS)!r}: /api/store lists the datasets and the collections, and "
        f"{_DESCRIPTION} describes all paths"
    )


def wrong_method(path: str, method: str, methods: Sequence[str]) -> str:
    """Return one line about a method that a path does not take.

    Args:
        path: the path of the request.
        method: the method of the request.
        methods: the methods that the path takes.
    """
    return f"{cut(path, _PATH_LETTERS)} does not take {cut(method, _NAME_LETTERS)}: send {' or '.join(methods)}"


def methods_of(app: FastAPI, scope: Scope) -> list[str]:
    """Return the methods that a path takes.

    Args:
        app: the application.
        scope: a request to the path, as ASGI describes it.
    """

    def takes(method: str) -> bool:
        asked = {**scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in app.routes)

    return [method for method in _METHODS if takes(method)]
