"""Embed a raster. The DAG starts a run of the Prefect deployment, and waits for the end of the run.

The DAG has the same parameters as the flow. They are described in `flow_parameters.json` beside this file. To write
that file, run `python airflow/write_form.py` in the project's environment. docs/airflow.md explains the setup.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param
from prefect_run import PrefectRunOperator

FORM: dict[str, Any] = json.loads((Path(__file__).parent / "flow_parameters.json").read_text())


def chosen(params: dict[str, Any]) -> dict[str, Any]:
    """Return the flow parameters that differ from their defaults. The deployment sets all other parameters."""
    return {name: value for name, value in params.items() if name in FORM and value != FORM[name].get("default")}


with DAG(
    "raster_prep_and_embeddings",
    description="Embed the tiles of a raster with DINOv3.",
    schedule=None,
    params={
        "deployment": Param(
            os.environ.get("RASTER_EMBEDDINGS_DEPLOYMENT", "raster-embeddings/embed-docker"),
            type="string",
            pattern="^[^/]+/[^/]+$",
            description="Prefect deployment to run, as flow/deployment.",
        ),
        **{name: Param(**schema) for name, schema in FORM.items()},
    },
    user_defined_macros={"chosen": chosen},
    render_template_as_native_obj=True,
    tags=["raster-embeddings"],
    doc_md=__doc__,
):
    PrefectRunOperator(
        task_id="embed",
        deployment="{{ params.deployment }}",
        parameters="{{ chosen(params) }}",
        poll_s=float(os.environ.get("RASTER_EMBEDDINGS_POLL_SECONDS", "10")),
    )
