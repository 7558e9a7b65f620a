"""Embed many scenes as a collection. The DAG starts a run of the Prefect deployment, and waits for the end of the run.

The DAG has the same parameters as the flow `embed-collection`. They are described in `collection_parameters.json`
beside this file. To write that file, run `python airflow/write_form.py` in the project's environment. docs/airflow.md
explains the setup.
"""

from __future__ import annotations

import os
from pathlib import Path

from prefect_form import flow_dag

# Airflow looks for DAGs only in files that have the words "airflow" and "dag".
dag = flow_dag(
    "collection_embeddings",
    Path(__file__).parent / "collection_parameters.json",
    deployment=os.environ.get("RASTER_EMBEDDINGS_COLLECTION_DEPLOYMENT", "embed-collection/collection-docker"),
    description="Embed the new, changed and failed scenes of a folder, a list or a STAC document with DINOv3.",
    doc=__doc__,
)
