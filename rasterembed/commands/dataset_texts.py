"""Texts about datasets for a terminal: the list of a store, and the description of one dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from shlex import quote
from typing import Any

from rasterembed.command_line.this_program import PROGRAM, as_typed
from rasterembed.command_line.wrong_options import in_command_words
from rasterembed.commands.texts import pairs, text_table
from rasterembed.dataset.continuing import run_text
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.listing import DatasetSummary, Unfinished, Unlisted
from rasterembed.dataset.manifest import State
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, StoreUnavailableError
from rasterembed.escape import escape_terminal
from rasterembed.number_text import agreeing, counted, part_of
from rasterembed.qa.report import read_report
from rasterembed.size_text import size_text
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.stored_model import MAX_BYTES

_DIGEST_LETTERS = 12
"""Number of letters of a digest that are shown. --json shows all of them."""

_DIGITS_OF_NS = 19
"""Number of digits of a time in ns since 1970, from the year 2001 to the year 2286."""

_SHOWN_FILES = 20
"""Largest number of files of a scene that are shown, a line for each."""

_SHOWN_SHARDS = 10
"""Largest number of shards that are described one by one."""

_SHOWN_UNFINISHED = 10
"""Largest number of unfinished datasets that are described one by one below a list."""

_WITHOUT_REPORT: dict[State, str] = {
    "embedded": "not run yet, so there is no report",
    "ready": "passed, without a report",
    "failed_qa": "not passed, without a report",
}
"""Result of quality checks that left no report, by the dataset's state. A run of a collection checks its scenes so."""

_ADD_OPTIONS = "the options of the first run for quality checks, the vector index and speed, if it had any"
_ADD_ALL_OPTIONS = "the options of the first run: its version did not keep them"
"""What a person adds to the command that goes on with a dataset."""


def table(datasets: Sequence[DatasetSummary]) -> str:
    """Return a text table with one line for each dataset.

    One line for each unfinished or unreadable dataset is below the table.
    """
    heads = ("dataset", "state", "tiles", "rows", "size", "created (UTC)", "model", "raster")
    rows = [
        (
            dataset.id,
            dataset.state,
            str(dataset.tiles),
            # An unfinished dataset has vectors, and nobody has counted them.
            *(("-", "-") if dataset.created is None else (str(dataset.rows), size_text(dataset.bytes))),
            _date(dataset),
            escape_terminal(dataset.model),
            escape_terminal(dataset.raster),
        )
        for dataset in datasets
    ]
    problems = [escape_terminal(dataset.problem) for dataset in datasets if dataset.problem]
    unfinished = [_unfinished_line(dataset) for dataset in datasets if dataset.state is Unlisted.UNFINISHED]
    left = len(unfinished) - _SHOWN_UNFINISHED
    more = [f"{left:,} more {agreeing(left, 'is', 'are')} unfinished"] if left > 0 else []
    return "\n".join((text_table(heads, rows), *problems, *unfinished[:_SHOWN_UNFINISHED], *more))


def _unfinished_line(dataset: DatasetSummary) -> str:
    """Return one line about an unfinished dataset: how far it is, and which command says how to go on."""
    counts = f"{part_of(dataset.written_shards, dataset.shards, 'shard')} written"
    written = counts if dataset.shards else "its plan cannot be read"
    how = in_command_words(f"`rasterembed datasets show {dataset.id}`")
    return f"{dataset.id} is unfinished: {written}, and {run_text(dataset.running)}; {how} says how to go on"


def _date(dataset: DatasetSummary) -> str:
    """Return the date in the manifest. Without a usable manifest, return the date of a file, and say so."""
    if dataset.created is None:
        return f"file of {dataset.modified:%Y-%m-%d %H:%M}"
    return f"{dataset.created:%Y-%m-%d %H:%M}"


def describe(dataset: Dataset) -> str:
    """Return the facts about a dataset as text: one line for each fact, with a name and a value."""
    return "\n".join(f"{name}: {escape_terminal(text)}" for name, text in _facts(dataset))


def describe_unfinished(store: ObjectStore, unfinished: Unfinished) -> str:
    """Return what is known about an unfinished dataset as text: one line for each fact, with a name and a value."""
    return "\n".join(f"{name}: {escape_terminal(text)}" for name, text in _facts_of_unfinished(store, unfinished))


def unfinished_as_json(unfinished: Unfinished) -> dict[str, Any]:
    """Return what is known about an unfinished dataset as JSON values."""
    plan = unfinished.plan
    return {
        "dataset_id": unfinished.id,
        "state": Unlisted.UNFINISHED.value,
        "shards": None if plan is None else plan.sharding.count,
        "written_shards": unfinished.written,
        "running": unfinished.running,
        "collection": unfinished.collection,
        "continue_with": unfinished.continue_with,
        "plan": None if plan is None else plan.model_dump(mode="json"),
    }


def _facts_of_unfinished(store: ObjectStore, unfinished: Unfinished) -> Iterator[tuple[str, str]]:
    plan, layout = unfinished.plan, DatasetLayout(unfinished.id)
    yield "dataset id", unfinished.id
    yield "state", f"{Unlisted.UNFINISHED}: {unfinished.describe()}"
    if unfinished.collection is not None:
        yield "collection", unfinished.collection
    if unfinished.continue_with:
        yield "continue", as_typed(unfinished.continue_with)
    if unfinished.collection is None:
        if plan is not None:
            yield "add", _ADD_ALL_OPTIONS if plan.requested is None else _ADD_OPTIONS
        yield "or delete", as_typed(f"{PROGRAM} datasets delete {unfinished.id} --root {quote(store.root)}")
    if plan is None:
        return
    yield "plan", store.uri(layout.plan(plan.fingerprint))
    configuration = plan.configuration()
    yield from _facts_of_source(configuration["source"])
    yield from _facts_of_profile(plan)
    yield "model", plan.model.name
    yield from _facts_of_configuration(configuration, plan.model.dimensions)
    yield "tiles", f"{plan.sharding.tile_count} planned"
    yield "shards", f"{plan.sharding.count} planned, {unfinished.written} written"
    yield "fingerprint", plan.fingerprint
    yield "planned", f"{unfinished.modified:%Y-%m-%d %H:%M:%S} UTC"


def _facts_of_configuration(configuration: Mapping[str, Any], dimensions: int) -> Iterator[tuple[str, str]]:
    """Yield the facts in the configuration of a plan or a manifest."""
    yield "weights", _weights_text(configuration["model"])
    yield "vectors", f"{dimensions} numbers, pooling {configuration['pooling']}, {pairs(configuration['dtype'])}"
    for name in ("radiometry", "grid", "selection"):
        yield name, pairs(configuration[name])


def _facts(dataset: Dataset) -> Iterator[tuple[str, str]]:
    manifest, configuration = dataset.manifest, dataset.manifest.configuration
    yield "dataset id", manifest.dataset_id
    yield "state", manifest.state
    yield "manifest", dataset.store.uri(dataset.layout.manifest)
    yield from _facts_of_source(configuration["source"])
    yield from _facts_of_plan(dataset)
    yield "model", manifest.model
    yield from _facts_of_configuration(configuration, manifest.dimensions)
    yield "tiles", f"{manifest.tiles} planned, {manifest.rows} embedded, {manifest.skipped} skipped"
    if manifest.skipped:
        yield "skipped", in_command_words(dataset.skipped_text())
    yield "quality checks", _verdict(dataset)
    index = dataset.store.read(dataset.layout.vector_index_info, MAX_BYTES) is not None
    yield "vector index", "yes" if index else "no"
    yield "fingerprint", manifest.fingerprint
    yield "written", f"{manifest.created:%Y-%m-%d %H:%M:%S} UTC by run {manifest.run_id}"
    yield "versions", pairs(manifest.versions)
    for computation in manifest.computations:
        yield "computed by", str(computation)
    yield "shards", f"{len(manifest.shards)}, {size_text(manifest.bytes)}"
    for shard in manifest.shards[:_SHOWN_SHARDS]:
        counts = f"{counted(shard.rows, 'row')}, {shard.skipped} skipped, {size_text(shard.bytes)}"
        yield f"shard {shard.number}", f"{counts}, {shard.path}"
    if len(manifest.shards) > _SHOWN_SHARDS:
        yield "more shards", f"{len(manifest.shards) - _SHOWN_SHARDS} (--json shows all)"


def _facts_of_source(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the raster, what its STAC Item says, and the files of a scene of several files, a line for each."""
    yield "raster", _source_text({name: value for name, value in source.items() if name not in ("assets", "item")})
    if "item" in source:
        yield "STAC Item", pairs(source["item"])
    assets = source.get("assets", ())
    for asset in assets[:_SHOWN_FILES]:
        yield "file", _source_text(asset)
    if len(assets) > _SHOWN_FILES:
        yield "more files", f"{len(assets) - _SHOWN_FILES} (--json shows all)"


def _source_text(source: Mapping[str, Any]) -> str:
    """Return address, size and version of a raster or file. What a person declared about the file follows."""
    values = dict(source)
    uri, size, version = values.pop("uri"), values.pop("size"), values.pop("version")
    # The version of a local file is the time of its last change in ns. That of an object is its ETag.
    state = f"version {version}"
    if "://" not in uri and version.isdecimal() and len(version) == _DIGITS_OF_NS:
        state = f"changed {datetime.fromtimestamp(int(version) // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return ", ".join(filter(None, (uri, size_text(size), state, pairs(values))))


def _weights_text(model: Mapping[str, Any]) -> str:
    """Return the name of a model with a short digest of its weights, and how pixels are put into the model."""
    values = dict(model)
    name, digest, revision = values.pop("id"), values.pop("weights_sha256"), values.pop("revision", None)
    at = f" at {revision[:_DIGEST_LETTERS]}" if revision else ""
    return f"{name}{at}, sha256 {digest[:_DIGEST_LETTERS]}…, {pairs(values)}"


def _facts_of_plan(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Yield the facts that only the plan holds. If the plan cannot be read, yield the reason."""
    try:
        plan: Plan = dataset.plan
    except StoreUnavailableError:
        raise
    except DataError as error:
        yield "plan", str(error)
        return
    yield from _facts_of_profile(plan)


def _facts_of_profile(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield the facts about the raster that a plan holds."""
    profile = plan.profile.original
    yield (
        "format",
        f"{profile.driver}, {profile.width}x{profile.height} px, {counted(profile.count, 'band')} of {profile.dtype}",
    )
    yield "acquired", f"{profile.acquired:%Y-%m-%d %H:%M:%S} UTC" if profile.acquired else "not known"
    yield "place on Earth", "yes" if profile.on_earth else "no"


def _verdict(dataset: Dataset) -> str:
    """Return the result of the last quality checks in one line."""
    try:
        report = read_report(dataset.store, dataset.manifest.dataset_id)
    except StoreUnavailableError:
        raise
    except DataError as error:
        return str(error)
    if report is None:
        return in_command_words(f"{_WITHOUT_REPORT[dataset.manifest.state]}: `rasterembed qa {dataset.id}` writes it")
    if report.fingerprint != dataset.manifest.fingerprint:
        again = in_command_words(f"`rasterembed qa {dataset.id}`")
        return f"the report is of an earlier configuration: run {again}"
    return f"{report.summary()}; see {dataset.store.uri(dataset.layout.qa_report_markdown)}"
