"""Compare a listing of scenes with the catalogue: which scenes are new, changed, to be tried again, or gone."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.found_scene import FoundScene, Listing
from rasterembed.collection.listing_address import lies_at
from rasterembed.collection.scene_row import SceneState


@dataclass(frozen=True)
class Comparison:
    """The difference between a listing and a catalogue."""

    new: tuple[FoundScene, ...]
    """Scenes that the catalogue does not have."""
    changed: tuple[FoundScene, ...]
    """Scenes with another state of their files or of their STAC Item than the catalogue says. See `state_of`."""
    again: tuple[FoundScene, ...]
    """Scenes that did not change, and either failed before or get another verdict of the quality checks now."""
    unchanged: tuple[FoundScene, ...]
    """Scenes that are embedded and did not change."""
    found_again: tuple[str, ...]
    """Ids of the datasets of unchanged scenes that the catalogue calls gone, or found in another listing."""
    gone: tuple[str, ...]
    """Ids of the datasets of scenes that belong to the address of the listing, and that are missing now. See
    `compare`."""
    newly_gone: tuple[str, ...]
    """Those of `gone` that the catalogue does not call gone yet."""

    @property
    def to_embed(self) -> Iterator[FoundScene]:
        """All scenes that a run has to embed: the new ones, the changed ones, and those to be tried again."""
        return chain(self.new, self.changed, self.again)

    @property
    def to_embed_count(self) -> int:
        """Number of scenes that a run has to embed."""
        return len(self.new) + len(self.changed) + len(self.again)


class _Known(NamedTuple):
    """What the catalogue says about a scene. The fields are columns of the catalogue, see `SceneRow`."""

    source: str
    id: str
    source_size: int | None
    source_version: str | None
    state: str
    listing: str
    gone: bool
    item: str | None


def compare(
    catalogue: Catalogue, listing: Listing, exists: Callable[[str], bool], again: Container[str] = ()
) -> Comparison:
    """Compare a listing with a catalogue, by size and version of each scene. See `state_of`.

    A scene is gone if the catalogue found it in a listing from the same address, or if its file lies at this address
    and does not exist any more. So the listing of one folder never declares the scenes of other folders gone. With a
    listing that ended early, no scene is gone. A scene is not gone either if its STAC Item is listed, but its files
    cannot be found, for example because of a wrong name of an asset.

    Args:
        catalogue: catalogue of the collection.
        listing: the scenes that exist now.
        exists: function that returns whether a file exists. A listing of a folder leaves some files out, such as those
            with a hidden name.
        again: addresses of scenes that are tried again though they are embedded.
    """
    columns = (catalogue.table[name].to_pylist() for name in _Known._fields)
    known = {row.source: row for row in map(_Known._make, zip(*columns, strict=True))}
    new: list[FoundScene] = []
    changed: list[FoundScene] = []
    tried_again: list[FoundScene] = []
    unchanged: list[FoundScene] = []
    found_again: list[str] = []
    for scene in listing.scenes:
        row = known.get(scene.uri)
        if row is None:
            new.append(scene)
            continue
        if (scene.size, scene.version) != (row.source_size, row.source_version):
            changed.append(scene)
        elif row.state == SceneState.FAILED or scene.uri in again:
            tried_again.append(scene)
        else:
            unchanged.append(scene)
            if row.gone or row.listing != listing.address:
                found_again.append(row.id)
    listed = {scene.uri for scene in listing.scenes}
    without_files = {scene.item for scene in listing.scenes if scene.problem is not None} - {None}

    def is_missing(row: _Known) -> bool:
        failed = row.state == SceneState.FAILED
        if row.listing == listing.address:
            return failed or row.item not in without_files
        if failed and row.item is not None:  # The address may name a place in a document, and no file.
            return False
        return lies_at(row.source, listing.address) and not exists(row.source)

    missing = [row for row in known.values() if row.source not in listed and is_missing(row)]
    if listing.ended_early:
        missing = []
    return Comparison(
        tuple(new),
        tuple(changed),
        tuple(tried_again),
        tuple(unchanged),
        tuple(found_again),
        gone=tuple(row.id for row in missing),
        newly_gone=tuple(row.id for row in missing if not row.gone),
    )
