"""Give a DAG the parameters of a Prefect flow.

The parameters are JSON schemas in a file beside the DAG, because Airflow's environment has no Prefect.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param
from prefect_run import PrefectRunOperator


def flow_dag(dag_id: str, form_file: Path, *, deployment: str, description: str, doc: str | None) -> DAG:
    """Return a DAG with one task, `embed`, which runs a Prefect deployment and waits for its end.

    Args:
        dag_id: name of the DAG.
        form_file: JSON file with a schema for each parameter of the flow.
        deployment: default of the parameter `deployment`, as flow/deployment.
        description: description of the DAG in one line.
        doc: description of the DAG as Markdown.
    """
    form: dict[str, Any] = json.loads(form_file.read_text())
    with DAG(
        dag_id,
        description=description,
        schedule=None,
        params={
            "deployment": Param(
                deployment,
                type="string",
                pattern="^[^/]+/[^/]+$",
                description="Prefect deployment to run, as flow/deployment.",
            ),
            **{name: Param(**schema) for name, schema in form.items()},
        },
        user_defined_macros={"chosen": _chosen(form)},
        render_template_as_native_obj=True,
        tags=["raster-embeddings"],
        doc_md=doc,
    ) as dag:
        PrefectRunOperator(
            task_id="embed",
            deployment="{{ params.deployment }}",
            parameters="{{ chosen(params) }}",
            poll_s=float(os.environ.get("RASTER_EMBEDDINGS_POLL_SECONDS", "10")),
        )
    return dag


def _chosen(form: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that keeps the flow parameters which differ from their defaults.

    The deployment sets all other parameters.
    """

    def chosen(params: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in params.items() if name in form and value != form[name].get("default")}

    return chosen
