"""A Python program that asks the question of a request, and gets the same answer.

Values of the request are written by `repr`, which writes every text as a literal of Python. So a text cannot end its
literal and become code, and control characters are written as escapes.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from rasterembed.explorer.asking.requests import SearchRequest
from rasterembed.explorer.views import View, ViewKind
from rasterembed.store.object_store import ObjectStore

_LONGEST_LINE = 100

_SEARCHERS = {ViewKind.DATASETS: "Searcher", ViewKind.COLLECTIONS: "CollectionSearcher"}


def search_program(view: View, request: SearchRequest, image: Path | None) -> str:
    """Return a Python program that prints the answer to a request.

    A polygon and an image are part of the program. It writes them to temporary files, because the library reads files.
    The program holds no keys of an S3 server: it takes them from the environment.

    Args:
        view: the dataset or the collection that is asked.
        request: the request.
        image: file of the request's image, or None if the request has none.
    """
    polygon = request.where.polygon
    query = request.query.model_dump(exclude_defaults=True, exclude={"image"})
    where = request.where.model_dump(exclude_defaults=True, exclude={"polygon"})
    question: list[str] = []
    if image is not None:
        question += ['image = Path(folder) / "image"', "image.write_bytes(base64.b64decode(IMAGE))"]
    if polygon is not None:
        question += ['area = Path(folder) / "area.geojson"', "area.write_text(json.dumps(POLYGON))"]
    question += [
        *_assignment("query", "Query", query, {"image": "image"} if image is not None else {}),
        *_assignment("where", "Where", where, {"within": "area"} if polygon is not None else {}),
        f"with {_opened(view)} as searcher:",
        f"    answer = searcher.ask(query, where, k={request.k})",
        "print(answer)",
    ]
    if image is not None or polygon is not None:
        question = ["with tempfile.TemporaryDirectory() as folder:", *(f"    {line}" for line in question)]
    return "\n".join(
        [
            "# The search that the explorer showed. If the data changed since then, so may the answer.",
            *_imports(image is not None, polygon is not None, view.kind),
            "",
            *([] if image is None else ['IMAGE = """', base64.encodebytes(image.read_bytes()).decode() + '"""']),
            *([] if polygon is None else [f"POLYGON = {polygon.model_dump()!r}"]),
            *_store(view.store),
            *question,
            "",
        ]
    )


def _imports(has_image: bool, has_polygon: bool, kind: ViewKind) -> list[str]:
    lines = ["import base64"] if has_image else []
    if has_polygon:
        lines.append("import json")
    if has_image or has_polygon:
        lines += ["import tempfile", "from pathlib import Path", ""]
    names = ["ObjectStore", "Query", _SEARCHERS[kind], "Where"]
    return [*lines, f"from rasterembed import {', '.join(sorted(names))}"]


def _store(store: ObjectStore) -> list[str]:
    """Return the line that opens the store. It has the address of the S3 server, and no key."""
    values: dict[str, Any] = {"root": store.root}
    if not store.is_s3:
        return _assignment("store", "ObjectStore", values, {})
    if store.endpoint_url is not None:
        values["endpoint_url"] = store.endpoint_url
    if store.region is not None:
        values["region"] = store.region
    if not store.path_style:
        values["path_style"] = False
    comment = "# The keys come from the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    return [comment, *_assignment("store", "ObjectStore", values, {})]


def _opened(view: View) -> str:
    name = f"[{view.id!r}]" if view.kind is ViewKind.DATASETS else repr(view.id)
    return f"{_SEARCHERS[view.kind]}(store, {name})"


def _assignment(name: str, kind: str, values: dict[str, Any], variables: dict[str, str]) -> list[str]:
    """Return the lines of a call whose result gets a name.

    Args:
        name: name of the result.
        kind: class that is called.
        values: values of the parameters.
        variables: names of variables, by the parameters whose values they hold.
    """
    arguments = [f"{key}={value!r}" for key, value in values.items()]
    arguments += [f"{key}={variable}" for key, variable in variables.items()]
    line = f"{name} = {kind}({', '.join(arguments)})"
    if len(line) <= _LONGEST_LINE:
        return [line]
    return [f"{name} = {kind}(", *(f"    {argument}," for argument in arguments), ")"]
