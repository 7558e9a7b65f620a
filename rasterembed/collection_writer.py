"""Write the catalogue and the STAC Collection of a collection, after scenes were embedded or one was checked again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from rasterembed.collection.catalogue import Catalogue, read_catalogue, write_catalogue
from rasterembed.collection.collection import Collection, write_collection
from rasterembed.collection.comparison import Comparison
from rasterembed.collection.configuration import CollectionConfiguration
from rasterembed.collection.found_scene import Listing
from rasterembed.collection.scene_row import SceneRow, embedded_row
from rasterembed.collection.stac_collection import CollectionState, stac_collection
from rasterembed.collection.table_writing import update_table
from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.errors import RasterEmbedError
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.lease import Lease
from rasterembed.store.object_store import ObjectStore

_CATALOGUE_EVERY_S = 60.0
"""Seconds between two writes of the catalogue during a run. The catalogue of 100,000 scenes takes seconds to write."""


class CollectionWriter:
    """Writes the catalogue and the STAC Collection of a run that holds the collection's lease."""

    def __init__(
        self,
        store: ObjectStore,
        layout: CollectionLayout,
        configuration: CollectionConfiguration,
        lease: Lease,
        stored: Catalogue | None,
    ) -> None:
        self.catalogue = stored or Catalogue.of([])
        self.configuration = configuration
        self._store, self._layout, self._lease = store, layout, lease
        self._stored = stored
        self._listing: str | None = None
        self._waiting: list[SceneRow] = []
        self._saved = time.monotonic()

    def clear_unfinished(self) -> None:
        """Delete the unfinished files of a killed run. The run may have written anything but its last file."""
        for folder in self._layout.written_folders:
            self._store.clear_scratch(folder)

    def begin(self, listing: str) -> None:
        """Write the STAC Collection, so that its configuration is fixed and readers see that a run is at work.

        Args:
            listing: address of the scenes of the run.
        """
        self._listing = listing
        self._lease.check()
        self._write_unfinished()

    def rewrite(self) -> None:
        """Write the catalogue also if its rows do not change, because its footer holds the configuration."""
        self._stored = None

    def add(self, row: SceneRow) -> None:
        """Add a row to the catalogue. The file is written at most every `_CATALOGUE_EVERY_S` seconds."""
        self._waiting.append(row)
        if time.monotonic() - self._saved > _CATALOGUE_EVERY_S:
            self._save()

    @contextmanager
    def kept_on_error(self) -> Iterator[None]:
        """Write the rows so far if the block raises an error, so that the next run need not look at these scenes."""
        try:
            yield
        except BaseException:
            with suppress(RasterEmbedError):  # The error of the block is the one that people must see.
                self._save()
            raise

    def finish(self, comparison: Comparison, listing: Listing, pruned: Sequence[str]) -> None:
        """Write the catalogue with all rows of the run, unless the store has the same one."""
        gone = [] if pruned else comparison.gone
        self.catalogue = (
            self.catalogue.updated(self._waiting, without=pruned)
            .with_values(comparison.found_again, listing=listing.address, gone=False)
            .with_values(gone, gone=True)
        )
        self._waiting = []
        self._write()

    def replace(self, catalogue: Catalogue) -> None:
        """Write another catalogue."""
        self.catalogue = catalogue
        self._write()

    def ready(self) -> None:
        """Write the STAC Collection in its final state, unless the store has the same one."""
        from rasterembed.qa.collection_run import current_verdict  # pyproj takes long to import.

        quality = current_verdict(self._store, self._layout, self.configuration, self.catalogue)
        self._lease.check()
        write_collection(self._store, self._layout, self.configuration, self.catalogue, CollectionState.READY, quality)

    def _save(self) -> None:
        """Write the catalogue with all rows so far."""
        if self._waiting:
            self.catalogue = self.catalogue.updated(self._waiting)
            self._waiting = []
            self._write()
        self._saved = time.monotonic()

    def _write(self) -> None:
        """Write the catalogue, if it differs from the stored one, and the STAC Collection of an unfinished run."""
        if self._stored is not None and self._stored.table.equals(self.catalogue.table):
            return
        self._lease.check()
        # The footer always holds the finished collection, so that equal scenes give equal bytes.
        footer = stac_collection(self._layout, self.configuration, self.catalogue, CollectionState.READY)
        write_catalogue(self._store, self._layout, self.catalogue, footer)
        self._stored = self.catalogue
        self._write_unfinished()

    def _write_unfinished(self) -> None:
        """Write the STAC Collection of a run that has not ended."""
        state, listing = CollectionState.EMBEDDING, self._listing
        write_collection(self._store, self._layout, self.configuration, self.catalogue, state, listing=listing)


def record_check(store: ObjectStore, layout: CollectionLayout, lease: Lease, manifest: Manifest) -> None:
    """Write the state of a scene into the catalogue, and bring the table up to date.

    A scene that the catalogue does not have, or has with another fingerprint, is left to the next run.

    Args:
        store: store of the collection.
        layout: layout of the collection.
        lease: the lease on the collection.
        manifest: manifest of the scene's dataset, with its new state.

    Raises:
        DataError: if the catalogue or the vectors of another scene cannot be read.
        LeaseLostError: if another run took the collection over.
        StoreError: if the store refuses or does not answer.
    """
    stored = read_catalogue(store, layout)
    known = None if stored is None else stored.row(manifest.dataset_id)
    if stored is None or known is None or known.fingerprint != manifest.fingerprint:
        return
    plan = Plan.read(store, manifest.dataset_id, manifest.fingerprint)
    row = replace(embedded_row(known.listing, plan, manifest), gone=known.gone)
    collection = Collection.open(store, layout.collection_id)
    writer = CollectionWriter(store, layout, collection.configuration, lease, stored)
    writer.replace(stored.updated([row]))
    update_table(store, layout, collection.configuration, writer.catalogue, lease.check)
    if collection.state is CollectionState.READY:
        writer.ready()
