"""The figures of the page about performance are those of the result files, as in the tables of the other pages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import PROJECT


def result(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PROJECT / f"benchmarks/results/{name}.json").read_text())
    return content


def answers() -> dict[str, str]:
    """Return the rows of the page's table: the answer of each question, by the first words of the question."""
    lines = (PROJECT / "docs/performance.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ") and "?" in line]
    return {question.removesuffix("?"): answer for question, answer in rows}


def test_speed_and_ratios() -> None:
    report, page = result("latest"), answers()
    speeds = {dtype: report["runs"][f"ours_{dtype}/from_file"] for dtype in ("bfloat16", "float32")}
    per_second = {dtype: run["tiles_per_s"]["median"] for dtype, run in speeds.items()}
    assert (
        f"{per_second['bfloat16']:.0f} tiles/s in bfloat16, {per_second['float32']:.0f} in float32"
        in page["How fast is it"]
    )
    ratios = report["ratios"]
    best, bfloat16 = page["Compared with the best other way"], "end_to_end_over_best_peer_cpu"
    assert f"{ratios[bfloat16]:.1f} ×" in best
    assert f"{ratios[bfloat16 + '_float32']:.1f} × in float32" in best
    alone = "end_to_end_over_in_memory_cpu"
    assert page["How close to the model alone"].startswith(
        f"{ratios[alone]:.2f} in bfloat16, {ratios[alone + '_float32']:.2f} in float32"
    )
    float32, in_bfloat16 = (ratios[f"end_to_end_over_matmul_cpu_{dtype}"] for dtype in ("float32", "bfloat16"))
    assert page["How close to the processor's limit"] == (
        f"{float32:.2f} of the matrix product in float32, {in_bfloat16:.2f} in bfloat16"
    )


def test_growth_memory_and_start() -> None:
    page, line, memory, start = answers(), result("growth")["line"], result("memory"), result("cold_start")["runs"]
    assert f"{line['fixed_s']:.1f} s, and {line['ms_per_tile']:.2f} ms a tile" in page["How does cost grow"]
    assert page["How much memory"].startswith(f"{memory['runs']['whole']['peak_mib'] * 2**20 / 1e9:.1f} GB")
    assert f"{memory['ratios']['peak'] - 1:.0%} more".replace("%", " %") in page["How much memory"]
    assert page["How soon is it working"].startswith(
        f"{start['help']['median']:.1f} s to the help of a flow; {start['first_shard']['median']:.0f} s from"
    )


@pytest.mark.parametrize("engine", ["flat", "ivf"])
def test_search(engine: str) -> None:
    measured, answer = result("search")["runs"]["clustered/1000000"]["engines"][engine], answers()["How fast is search"]
    unfiltered = measured["filters"]["100"]
    if engine == "flat":
        assert f"{unfiltered['cpu_ms']:.0f} ms of a core for an exact answer" in answer
        assert f"built in {measured['build']['cpu_s']:.0f} or" in answer
    else:
        assert f"{unfiltered['cpu_ms']:.1f} ms at recall {unfiltered['recall']:.2f}" in answer
        assert f"or {measured['build']['cpu_s']:.0f} s of a core" in answer


def test_a_slow_store_and_prefect() -> None:
    page, slow, prefect = answers(), result("slow_store")["ratios"], result("prefect_overhead")["ratios"]
    assert page["If the store is slow"].startswith(
        f"{slow['S3, 0 ms']:.2f} of the speed in memory, and {slow['S3, 200 ms']:.2f} with 200 ms"
    )
    assert page["What does Prefect cost"].startswith(f"{prefect['prefect_ms_per_shard']:.0f} ms a shard")
