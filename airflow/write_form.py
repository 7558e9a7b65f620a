"""Write the flow's parameters as JSON schemas for the DAG, because Airflow's environment has no Prefect.

python airflow/write_form.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FORM = Path(__file__).parent / "dags" / "flow_parameters.json"


def form() -> str:
    """Return a JSON schema for each parameter of the flow. Each schema includes the definitions that it uses."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from flows.raster_embeddings import raster_embeddings

    schema = raster_embeddings.parameters.model_dump()
    definitions: dict[str, Any] = schema["definitions"]
    parameters = {name: _parameter(dict(given), definitions) for name, given in schema["properties"].items()}
    return json.dumps(parameters, indent=1, ensure_ascii=False) + "\n"


def _parameter(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    del schema["position"]
    if reference := schema.pop("$ref", None):
        schema = definitions[reference.rsplit("/", 1)[1]] | schema
    options = schema.get("anyOf", [])
    if options and all(set(option) == {"type"} for option in options):
        # Airflow's form reads a list of types, but not alternatives (`anyOf`).
        del schema["anyOf"]
        schema["type"] = [option["type"] for option in options]
    used = {name: given for name, given in definitions.items() if f'"#/definitions/{name}"' in json.dumps(schema)}
    return schema | ({"definitions": used} if used else {})


if __name__ == "__main__":
    FORM.write_text(form())
