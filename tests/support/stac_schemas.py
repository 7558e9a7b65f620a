"""Validate STAC documents against the published schemas, without a network.

tests/data/stac-schemas/README.md says where the schemas come from. The schemas of core STAC 1.1 are those in pystac.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

_FOLDER = Path(__file__).parents[1] / "data/stac-schemas"

_CORE = {"Feature": "item", "Collection": "collection", "Catalog": "catalog"}
"""Name of the core schema, by the field `type` of a document."""

_EXTENSIONS = ("eo-v1.1.0", "file-v2.1.0", "mlm-v1.4.0", "processing-v1.1.0", "projection-v2.0.0", "raster-v1.1.0")

EMBEDDINGS = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"


def check(document: dict[str, Any]) -> dict[str, Any]:
    """Validate an Item or a Collection against core STAC 1.1 and against each of its extensions. Return it.

    An extension without a schema in the folder is an error, so no extension is left out by mistake.
    """
    assert document["stac_version"] == "1.1.0"
    text = json.dumps(document, allow_nan=False)
    name = _CORE[document["type"]]
    for uri in (
        f"https://schemas.stacspec.org/v1.1.0/{name}-spec/json-schema/{name}.json",
        *document.get("stac_extensions", []),
    ):
        errors = [f"{error.json_path}: {error.message}" for error in _validator(uri).iter_errors(json.loads(text))]
        assert not errors, (uri, errors[:5])
    return document


def check_geoparquet_footer(value: Any) -> None:
    """Validate the key `stac-geoparquet` of a Parquet footer, and the Collections in it."""
    schema = _read(_FOLDER / "stac-geoparquet-v0.7.0.json")
    schema["properties"]["version"] = {
        "enum": ["1.0.0", "1.1.0"]
    }  # The schema is older than version 1.1.0 of the text.
    Draft7Validator(schema).validate(value)
    for name, collection in value["collections"].items():
        assert check(collection)["id"] == name


@cache
def _validator(uri: str) -> Draft7Validator:
    schema = _registry().get_or_retrieve(uri).value.contents
    return Draft7Validator(schema, registry=_registry(), format_checker=FormatChecker())


@cache
def _registry() -> Registry[Any]:
    """Return all schemas by their addresses. Nothing else can be retrieved."""
    published = {
        f"https://stac-extensions.github.io/{name}/{version}/schema.json": _read(_FOLDER / f"{name}-{version}.json")
        for name, version in (each.split("-") for each in _EXTENSIONS)
    }
    published[EMBEDDINGS] = _read(_FOLDER / "embeddings-v0.0.1.json")
    published["https://proj.org/schemas/v0.7/projjson.schema.json"] = _read(_FOLDER / "projjson-v0.7.json")
    core = files("pystac.validation") / "jsonschemas"
    for path in (core / "stac-spec/v1.1.0").iterdir():
        schema = json.loads(path.read_text())
        published[schema["$id"].removesuffix("#").replace("commonjson", "common.json")] = schema
    for name in ("Feature", "Geometry"):
        published[f"https://geojson.org/schema/{name}.json"] = json.loads((core / f"geojson/{name}.json").read_text())
    # Some schemas say draft 2020-12 or nothing. STAC itself uses draft 7.
    resources = [(uri, Resource(contents=schema, specification=DRAFT7)) for uri, schema in published.items()]
    return Registry().with_resources(resources)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
