"""A search for a STAC API is checked before it is sent, and every error names the key and the remedy."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from rasterembed.collection.stac_search import StacSearch, parse_search
from rasterembed.errors import UsageError
from rasterembed.store.known_collections import embed_command
from rasterembed.store.object_store import ObjectStore


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("2026", "2026-01-01T00:00:00Z/2026-12-31T23:59:59Z"),
        ("2028-02", "2028-02-01T00:00:00Z/2028-02-29T23:59:59Z"),
        ("2026-06/2026-08", "2026-06-01T00:00:00Z/2026-08-31T23:59:59Z"),
        ("2026-06-21", "2026-06-21T00:00:00Z/2026-06-21T23:59:59Z"),
        ("2026-06-21T12:30:00+03:00", "2026-06-21T09:30:00Z"),
        ("2026-06-21T09:30:00/..", "2026-06-21T09:30:00Z/.."),
        ("/2026", "../2026-12-31T23:59:59Z"),
    ],
)
def test_every_form_of_a_time_becomes_the_one_that_all_servers_read(given: str, sent: str) -> None:
    assert StacSearch(datetime=given).datetime == sent


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"bbox": [24, 61, 25, 60]}, "bbox: south 61 and north 60 are no range"),
        ({"bbox": [60, 24, 200, 25]}, "bbox: west and east are degrees"),
        ({"bbox": [24, 60, 25]}, "bbox: give four numbers"),
        ({"datetime": "2026-13"}, "datetime: '2026-13' is no time"),
        ({"datetime": "yesterday"}, "datetime: 'yesterday' is no time"),
        ({"datetime": "2026-W03"}, "datetime: '2026-W03' is no time"),
        ({"datetime": "2027/2026"}, "after its end"),
        ({"datetime": "../.."}, "both sides of the interval are open"),
        ({"datetime": "2025/2026/2027"}, "give one time, or two"),
        ({"collection": ["a"]}, "the key 'collection' is unknown: choose from collections, ids, bbox"),
        ({"collections": "a"}, "collections: give a list of names"),
        ({"query": {"eo:cloud_cover": 10}}, "query: give conditions such as"),
        ({"query": {"eo:cloud_cover": {"<": 10}}}, "query: the operator '<' is unknown: choose from eq, neq"),
        ({"filter": {"eo:cloud_cover": 10}}, "filter: it is no CQL2 JSON"),
        ({"intersects": {"type": "Feature"}}, "intersects: it is no GeoJSON geometry"),
        ({"intersects": {"type": "Point", "coordinates": "x"}}, "its coordinates cannot be read"),
        ({"bbox": [0, 0, 1, 1], "intersects": {"type": "Point", "coordinates": [0, 0]}}, "give bbox or intersects"),
        ({"limit": 10}, "the search is empty and would find everything"),
        ("{", "`search` is no JSON"),
        ("[]", '`search` is no JSON object: give an object such as {"collections"'),
        ("5", "`search` is no JSON object: give an object such as"),
        ({"limit": "x"}, "limit: give a whole number"),
        ({"limit": 0}, "limit: give 1 or more"),
    ],
)
def test_a_search_that_cannot_be_sent_is_refused_in_one_line(search: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_search(search)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_equal_searches_have_equal_addresses() -> None:
    one = parse_search('{"datetime": "2026-06", "collections": ["a"], "query": {"b": {"lt": 1, "gt": 0}}}')
    other = StacSearch(
        query={"b": {"gt": 0, "lt": 1}},
        collections=("a",),
        datetime="2026-06-01T00:00:00Z/2026-06-30T23:59:59Z",
        limit=10,
    )
    assert one is not None
    assert one.address("https://stac.example/v1/") == other.address("https://stac.example/v1")
    assert one.address("https://stac.example/v1").startswith('https://stac.example/v1#{"collections":["a"],"datetime":')
    far = {"type": "MultiPoint", "coordinates": [[number / 100, 0] for number in range(1000)]}
    assert len(StacSearch(intersects=far).address("https://stac.example/v1")) < 120
    assert parse_search(None) is parse_search("") is None


def test_the_command_that_goes_on_with_a_collection_has_the_search(tmp_path: Path) -> None:
    def words(listing: str) -> list[str]:
        return shlex.split(embed_command(ObjectStore(root=str(tmp_path)), "survey", listing))[3:]

    api, end = "https://stac.example.org/v1", ["--collection", "survey", "--root", str(tmp_path)]
    address = StacSearch(collections=("it's",), datetime="2026-06/2026-08", bbox=(24, 60, 25, 61)).address(api)
    scenes, option, search, *rest = words(address)
    assert (scenes, option, rest) == (api, "--search", end)
    wanted = parse_search(search)
    assert wanted is not None
    assert wanted.address(api) == address
    assert words(StacSearch(ids=tuple(f"scene-{number}" for number in range(200))).address(api)) == [
        api, "--search", "SEARCH", *end,
    ]  # fmt: skip
    assert words("/data/scenes #1/") == ["/data/scenes #1/", *end]
