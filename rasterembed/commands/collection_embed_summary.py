"""The text at the end of `rasterembed collection embed`."""

from __future__ import annotations

from rasterembed.collection.shared_texts import (
    SHOWN_SCENES,
    counts_text,
    nothing_to_embed,
    scenes_are_gone,
    state_text,
    undated_text,
    work_text,
)
from rasterembed.collection_pipeline import CollectionResult
from rasterembed.command_line.this_program import as_typed
from rasterembed.command_line.wrong_options import in_command_words
from rasterembed.escape import escape_terminal
from rasterembed.number_text import agreeing, counted, first_names


def summary(result: CollectionResult, search: str | None) -> str:
    """Return the result of a run as text for people.

    Args:
        result: the result of `embed_collection`.
        search: command that searches the collection. None if it has no vectors.
    """
    collection, comparison = result.collection, result.comparison
    catalogue, store = collection.catalogue, collection.store
    # A person who sees this after a second looks for an error, so it is said first.
    nothing = nothing_to_embed(comparison)
    lines = [] if nothing is None else [f"note: {nothing}"]
    lines += [
        f"collection: {collection.id}",
        f"model: {collection.configuration.model.name}",
        f"state: {state_text(collection.state, catalogue.vectors)}",
        f"scenes: {counts_text(catalogue.count, catalogue.counts())}",
        f"rows: {catalogue.vectors}",
        f"catalogue: {store.uri(collection.layout.catalogue)}",
    ]
    if collection.table is not None:
        lines.append(f"table: {store.uri(collection.layout.table)}")
    if result.report is not None and catalogue.vectors:
        lines.append(f"quality: {result.report.summary()}")
    lines.append(f"this run: {work_text(comparison) or 'no scene to embed'}")
    lines += [f"failed: {in_command_words(text)}" for text in result.failures()]
    if result.pruned:
        count = len(result.pruned)
        pruned = f"{counted(count, 'scene')} that {agreeing(count, 'is', 'are')} gone"
        lines.append(f"pruned: {pruned} ({first_names(result.pruned, SHOWN_SCENES)})")
    elif comparison.gone:
        lines.append(f"gone: {scenes_are_gone(comparison.gone)}, but not deleted (--prune does it)")
    if result.listing.repeated:
        repeated = [escape_terminal(source) for source in result.listing.repeated]
        count = len(repeated)
        named = f"{counted(count, 'scene')} {agreeing(count, 'is', 'are')} named more than once"
        used = f"of {agreeing(count, 'it', 'each')}, only the first entry was used"
        lines.append(f"note: {named} ({first_names(repeated, SHOWN_SCENES)}); {used}")
    if catalogue.undated:
        lines.append(f"undated: {undated_text(catalogue)}")
    if search is not None:
        lines.append(f"search: {as_typed(search)}")
    return "\n".join(lines)
