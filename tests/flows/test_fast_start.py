"""Importing a flow leaves the process as it was; only a command's entry point prepares for a fast start."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import PROJECT

FLOWS = ["raster_embeddings", "embed_shards", "qa_report", "search_embeddings", "reconcile_uploads"]


def _python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=240, check=True
    )
    return done.stdout


def test_importing_a_flow_leaves_the_garbage_collector_alone() -> None:
    program = f"""
import gc, importlib
for flow in {FLOWS!r}:
    importlib.import_module(f"flows.{{flow}}")
    print(flow, gc.isenabled(), gc.get_freeze_count())
"""
    assert _python("-c", program).splitlines() == [f"{flow} True 0" for flow in FLOWS]


def test_a_command_exempts_prefects_import_from_collection() -> None:
    program = (
        "import gc; from flows.fast_start import import_prefect; import_prefect(); "
        "print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    )
    assert _python("-c", program).split() == ["True", "True"]
