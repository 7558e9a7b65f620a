"""A listing and a catalogue are compared by the size and the version of each file."""

from __future__ import annotations

from dataclasses import replace

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.comparison import compare
from rasterembed.collection.found_scene import FoundScene, listing_of
from tests.collection.test_catalogue import FAILED, row


def scene(number: int, **changes: str | int) -> FoundScene:
    known = row(number)
    found = FoundScene(known.source, size=known.source_size, version=known.source_version)
    return replace(found, **changes)  # type: ignore[arg-type]


def everything(uri: str) -> bool:
    return True


def nothing(uri: str) -> bool:
    return False


def test_each_scene_is_new_changed_tried_again_or_unchanged() -> None:
    catalogue = Catalogue.of([row(0), row(1), row(2), row(3, **FAILED), row(4, **FAILED)])
    listed = [scene(0), scene(1, size=7), scene(2, version="w"), scene(3), scene(4, version="w"), scene(9)]
    found = compare(catalogue, listing_of("s3://rasters", listed), everything)
    assert found.new == (scene(9),)
    assert found.changed == (scene(1, size=7), scene(2, version="w"), scene(4, version="w"))
    assert found.again == (scene(3),)
    assert found.unchanged == (scene(0),)
    assert (found.found_again, found.gone, found.to_embed_count) == ((), (), 5)
    assert list(found.to_embed) == [*found.new, *found.changed, *found.again]


def test_only_a_scene_from_the_same_listing_is_gone() -> None:
    catalogue = Catalogue.of([row(0), row(1), row(2, listing="/elsewhere"), row(3, gone=True), row(4, gone=True)])
    found = compare(catalogue, listing_of("s3://rasters", [scene(0), scene(4)]), everything)
    assert found.gone == ("survey--000001", "survey--000003")
    assert found.found_again == ("survey--000004",)


def test_after_a_listing_that_ended_early_no_scene_is_gone() -> None:
    listing = replace(listing_of("s3://rasters", [scene(0)]), ended_early=True)
    assert compare(Catalogue.of([row(0), row(1)]), listing, nothing).gone == ()


def test_a_scene_that_another_listing_finds_takes_its_address() -> None:
    catalogue = Catalogue.of([row(0, listing="/elsewhere")])
    assert compare(catalogue, listing_of("s3://rasters", [scene(0)]), everything).found_again == ("survey--000000",)


def test_a_scene_that_is_listed_twice_is_one_scene() -> None:
    listing = listing_of("s3://rasters", [scene(1), scene(0), scene(1, size=3)])
    assert listing.scenes == (scene(0), scene(1))
    assert listing.repeated == (scene(1).uri,)


def test_a_scene_whose_file_lies_at_the_address_and_is_lost_is_gone_whichever_run_found_it() -> None:
    rows = [
        row(0, listing="s3://rasters/scene 0.tif"),
        row(1, listing="/lists/scenes.txt"),
        row(2, listing="s3://rasters/scene 2.tif", gone=True),
        row(3, listing="s3://elsewhere", source="s3://elsewhere/3.tif"),
        row(4, listing="/stac/items.json", source="s3://rasters/items.json#4", **FAILED | {"item": "4"}),
    ]
    for address in ("s3://rasters", "s3://rasters/*.tif", "s3://rasters/**"):
        found = compare(Catalogue.of(rows), listing_of(address, []), nothing)
        assert found.gone == ("survey--000000", "survey--000001", "survey--000002")
        assert found.newly_gone == ("survey--000000", "survey--000001")
        assert compare(Catalogue.of(rows), listing_of(address, []), everything).gone == ()
    for address in ("s3://rasters/2026", "s3://raster", "s3://rasters/*.jp2", "s3://rasters/scenes.txt"):
        assert compare(Catalogue.of(rows), listing_of(address, []), nothing).gone == ()
