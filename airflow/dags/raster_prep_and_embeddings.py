"""Embed a raster. The DAG starts a run of the Prefect deployment, and waits for the end of the run.

The DAG has the same parameters as the flow. They are described in `flow_parameters.json` beside this file. To write
that file, run `python airflow/write_form.py` in the project's environment. docs/airflow.md explains the setup.
"""

from __future__ import annotations

import os
from pathlib import Path

from prefect_form import flow_dag

# Airflow looks for DAGs only in files that have the words "airflow" and "dag".
dag = flow_dag(
    "raster_prep_and_embeddings",
    Path(__file__).parent / "flow_parameters.json",
    deployment=os.environ.get("RASTER_EMBEDDINGS_DEPLOYMENT", "raster-embeddings/embed-docker"),
    description="Embed the tiles of a raster with DINOv3.",
    doc=__doc__,
)
