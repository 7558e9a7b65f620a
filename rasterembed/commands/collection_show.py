"""The texts of `rasterembed collection list` and `rasterembed collection show`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.collection import Collection
from rasterembed.collection.fixed_settings import in_a_new_collection, settings_are_fixed
from rasterembed.collection.scene_row import SceneRow, SceneState, failure_text
from rasterembed.collection.shared_texts import counts_text, scenes_are_gone, state_text, undated_text
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.collection.summaries import CollectionSummary
from rasterembed.command_line.this_program import as_typed
from rasterembed.command_line.wrong_options import in_command_words
from rasterembed.commands.texts import pairs, text_table
from rasterembed.commands.words_of_embed import in_words_of_embed
from rasterembed.dataset.continuing import run_text
from rasterembed.escape import escape_terminal
from rasterembed.number_text import agreeing, counted
from rasterembed.qa.collection_run import current_report
from rasterembed.store.known_collections import embed_command
from rasterembed.store.layout import DatasetLayout, name_of
from rasterembed.store.lease import running_run

SHOWN_FAILURES = 10
"""Largest number of failed scenes that `show` shows one by one."""

_ADD_OPTIONS = "--assets, and the options for quality checks, the vector index and speed, if the first run had any"
"""What a person adds to the command that goes on with a collection."""


def table(collections: Sequence[CollectionSummary]) -> str:
    """Return a text table with one line for each collection.

    One line for each unreadable or unfinished collection is below the table.
    """
    heads = ("collection", "state", "scenes", "rows", "dates (UTC)", "model")
    rows = [
        (
            summary.id,
            state_text(summary.state, summary.rows, running=summary.running),
            counts_text(summary.scenes, dict(summary.counts)),
            str(summary.rows),
            _dates(summary.first, summary.last),
            escape_terminal(summary.model),
        )
        for summary in collections
    ]
    problems = [escape_terminal(summary.problem) for summary in collections if summary.problem]
    unfinished = [
        f"{summary.id} is unfinished: {run_text(summary.running)}; to continue: `{as_typed(summary.continue_with)}`"
        for summary in collections
        if summary.continue_with
    ]
    return "\n".join((text_table(heads, rows), *problems, *map(escape_terminal, unfinished)))


def describe(collection: Collection) -> str:
    """Return the facts about a collection as text: one line for each fact, with a name and a value."""
    return "\n".join(f"{name}: {escape_terminal(text)}" for name, text in _facts(collection))


def facts_as_json(collection: Collection) -> dict[str, Any]:
    """Return the facts about a collection as JSON values, with all failed scenes."""
    catalogue = collection.catalogue
    bbox, (first, last) = catalogue.extent()
    return {
        "id": collection.id,
        "state": collection.state.value,
        **_run_of(collection),
        "scenes": {state.value: count for state, count in catalogue.counts().items()},
        "rows": catalogue.vectors,
        "quality": _quality(collection),
        "gone": _gone(catalogue),
        "first": None if first is None else first.isoformat(),
        "last": None if last is None else last.isoformat(),
        "undated": catalogue.undated,
        "bbox": bbox,
        "failures": [
            {"id": row.id, "source": row.source, "state": row.state.value, "reason": row.reason}
            for row in _failures(collection)
        ],
        "configuration": collection.configuration.model_dump(mode="json"),
    }


def _run_of(collection: Collection) -> dict[str, Any]:
    """Return what is known about the run of an unfinished collection as JSON values. Empty for any other collection."""
    if collection.state is not CollectionState.EMBEDDING:
        return {}
    return {
        "running": running_run(collection.store, collection.layout) is not None,
        "continue_with": embed_command(collection.store, collection.id, collection.listing),
    }


def _quality(collection: Collection) -> dict[str, Any] | None:
    """Return the verdict about the collection as a whole as JSON values, or None if this state was not checked."""
    report = current_report(collection.store, collection.layout, collection.configuration, collection.catalogue)
    if report is None:
        return None
    return {"passed": report.passed, "breached": [metric.name for metric in report.breaches]}


def _older_dataset(collection: Collection, row: SceneRow) -> str:
    """Return a sentence about the dataset of a failed scene, which an earlier run wrote. Empty if it has none."""
    layout = DatasetLayout(row.id)
    if name_of(layout.manifest) not in collection.store.sizes(layout.dataset_folder):
        return ""
    return f" (dataset {row.id} has the vectors of an earlier run; the collection does not use them)"


def _facts(collection: Collection) -> Iterator[tuple[str, str]]:
    catalogue, store, values = collection.catalogue, collection.store, collection.configuration.values()
    yield "collection", collection.id
    if collection.state is CollectionState.EMBEDDING:
        running = running_run(store, collection.layout) is not None
        yield "state", f"{state_text(collection.state, catalogue.vectors, running=running)}: {run_text(running)}"
        yield "continue", as_typed(embed_command(store, collection.id, collection.listing))
        yield "add", _ADD_OPTIONS
    else:
        yield "state", state_text(collection.state, catalogue.vectors)
    yield "catalogue", store.uri(collection.layout.catalogue)
    described = collection.table
    if described is None:
        yield "table", "no"
    else:
        counts = f"{counted(described.rows, 'row')}, {counted(len(described.parts), 'file')}"
        yield "table", f"{counts}, {store.uri(collection.layout.table)}"
    yield "model", collection.configuration.model.name
    for name in ("model", "radiometry", "grid", "selection"):
        yield {"model": "weights"}.get(name, name), pairs(values[name])
    yield "scenes", counts_text(catalogue.count, catalogue.counts())
    yield "rows", str(catalogue.vectors)
    report = current_report(store, collection.layout, collection.configuration, catalogue)
    if report is not None:
        yield "quality", f"{report.summary()}; see {store.uri(collection.layout.qa_report_markdown)}"
    elif catalogue.vectors:
        command = in_command_words(f"`rasterembed qa --collection {collection.id}`")
        yield "quality", f"not checked as it is now: {command} checks it"
    gone = _gone(catalogue)
    if gone:
        them = agreeing(len(gone), "it", "them")
        advice = f"a run with --prune deletes {them}"
        yield "gone", f"{scenes_are_gone(gone)}: the last listing did not have {them}; {advice}"
    bbox, (first, last) = catalogue.extent()
    yield "dates", _dates(first, last)
    if catalogue.undated:
        yield "undated", undated_text(catalogue)
    placeless = "no scene has a place on Earth" if catalogue.vectors else "not known"
    yield "bbox", placeless if bbox is None else ", ".join(f"{side:.6f}" for side in bbox)
    for listing in sorted(filter(None, set(catalogue.table["listing"].to_pylist()))):
        yield "scenes from", listing
    failures = _failures(collection)
    fixed = bool(failures) and settings_are_fixed(store, collection.layout, catalogue)
    for row in failures[:SHOWN_FAILURES]:
        failed = row.state is SceneState.FAILED
        more = _older_dataset(collection, row) if failed else in_command_words(f" (report: `rasterembed qa {row.id}`)")
        text = in_a_new_collection(failure_text(row), fixed=fixed)
        mark = " (this scene is gone)" if row.gone else ""
        yield row.state.value, f"{in_command_words(in_words_of_embed(text))}{more}{mark}"
    if len(failures) > SHOWN_FAILURES:
        yield "more failed scenes", f"{len(failures) - SHOWN_FAILURES} (--json shows all)"
    yield "fingerprint", collection.configuration.fingerprint


def _gone(catalogue: Catalogue) -> list[str]:
    """Return the ids of the scenes that are gone."""
    table = catalogue.table
    ids: list[str] = table.filter(table["gone"])["id"].to_pylist()
    return ids


def _failures(collection: Collection) -> list[SceneRow]:
    """Return the scenes that failed or did not pass their quality checks."""
    return list(collection.catalogue.filter(states=[SceneState.FAILED, SceneState.FAILED_QA]).rows())


def _dates(first: datetime | None, last: datetime | None) -> str:
    """Return the first and the last day of acquisition."""
    if first is None or last is None:
        return "not known"
    days = (f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}")
    return days[0] if days[0] == days[1] else " to ".join(days)
