"""Write the flows' parameters as JSON schemas for the DAGs, because Airflow's environment has no Prefect.

python airflow/write_form.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_DAGS = Path(__file__).parent / "dags"

_TYPE_WORDS = {"type", "items", "additionalProperties"}
"""Words of a schema that concern values of one type only. Schemas of several types with these words can be joined."""


def forms() -> dict[Path, str]:
    """Return the files with the parameters of the flows, and their texts.

    Each text has a JSON schema for each parameter of a flow. Each schema includes the definitions that it uses.
    """
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from flows.embed_collection import embed_collection_flow
    from flows.raster_embeddings import raster_embeddings

    return {
        _DAGS / "flow_parameters.json": _form(raster_embeddings.parameters.model_dump()),
        _DAGS / "collection_parameters.json": _form(embed_collection_flow.parameters.model_dump()),
    }


def _form(schema: dict[str, Any]) -> str:
    definitions: dict[str, Any] = schema["definitions"]
    parameters = {name: _parameter(dict(given), definitions) for name, given in schema["properties"].items()}
    return json.dumps(parameters, indent=1, ensure_ascii=False) + "\n"


def _parameter(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    del schema["position"]
    if reference := schema.pop("$ref", None):
        schema = definitions[reference.rsplit("/", 1)[1]] | schema
    options = schema.get("anyOf", [])
    if options and all({"type"} <= set(option) <= _TYPE_WORDS for option in options):
        # Airflow's form reads a list of types, but not alternatives (`anyOf`).
        del schema["anyOf"]
        for option in options:
            schema |= option
        schema["type"] = [option["type"] for option in options]
    used = {name: given for name, given in definitions.items() if f'"#/definitions/{name}"' in json.dumps(schema)}
    return schema | ({"definitions": used} if used else {})


if __name__ == "__main__":
    for file, text in forms().items():
        file.write_text(text)
