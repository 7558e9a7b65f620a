"""Wrong options in Python: one line that names the option, the remedy and the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import rasterembed
from rasterembed import (
    CollectionOptions,
    Dinov3,
    EmbedOptions,
    Grid,
    ObjectStore,
    Query,
    Selection,
    SourceStore,
    StacSearch,
    UsageError,
    Where,
)
from rasterembed.options_model import OptionsModel

WRONG: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: Query(lonlat=(200, 100)),
        "Query: `lonlat`: give longitude (-360 to 360), then latitude (-90 to 90), in degrees, not (200, 100)",
    ),
    (lambda: Query(til="r000000_c000000"), "Query has no option `til`: it has tile, ..."),  # type: ignore[call-arg]
    (lambda: Query(tile=5), "Query: `tile`: give a text, not 5"),  # type: ignore[arg-type]
    (
        lambda: Query(tile="r000000_c000000", lonlat=(1, 2)),
        "Query: give only one of `tile`, `lonlat` and `image`",
    ),
    (lambda: Where(bbox=(1, 2, 3)), "Where: `bbox`: give 4 values"),  # type: ignore[arg-type]
    (lambda: Where(start="2024"), "Where has no option `start`: it has since, ..."),  # type: ignore[call-arg]
    (lambda: Where(end="2024"), "Where has no option `end`: it has until, ..."),  # type: ignore[call-arg]
    (
        lambda: Where(since="yesterday"),  # type: ignore[arg-type]
        "Where: `since`: give a year, a month, a day or a time, such as 2024, 2024-06, 2024-06-01 or "
        "2024-06-01T12:00:00Z, not 'yesterday'",
    ),
    (lambda: Grid(size=20), "Grid: `size`: give a multiple of 16, not 20"),
    (lambda: Grid(size=1.5), "Grid: `size`: give a whole number, not 1.5"),  # type: ignore[arg-type]
    (lambda: Grid(edge="cut"), "Grid: `edge`: give 'pad', 'shift' or 'drop', not 'cut'"),  # type: ignore[arg-type]
    (lambda: Dinov3(model=""), "Dinov3: `model`: give a longer text, of at least 1 letters, not ''"),
    (
        lambda: Selection(vector_dtype="int4"),  # type: ignore[arg-type]
        "Selection: `vector_dtype`: give ",
    ),
    (lambda: EmbedOptions(grid=5), "EmbedOptions: `grid`: give Grid(…), not 5"),  # type: ignore[arg-type]
    (
        lambda: EmbedOptions(grid={"size": 5}),  # type: ignore[arg-type]
        "EmbedOptions: `grid.size`: give a multiple of 16, not 5",
    ),
    (
        lambda: EmbedOptions(grid={"sise": 64}),  # type: ignore[arg-type]
        "Grid has no option `sise`: it has size",
    ),
    (
        lambda: EmbedOptions(size=64),  # type: ignore[call-arg]
        "EmbedOptions has no option `size`: write EmbedOptions(grid=Grid(size=64))",
    ),
    (
        lambda: CollectionOptions(size=64),  # type: ignore[call-arg]
        "CollectionOptions has no option `size`: write CollectionOptions(settings=PlanSettings(grid=Grid(size=64)))",
    ),
    (
        lambda: EmbedOptions(percentiles=(1, 2)),  # type: ignore[call-arg]
        "EmbedOptions has no option `percentiles`: did you mean EmbedOptions(radiometry=Radiometry(percentile=…))?",
    ),
    (
        lambda: Query(since="2024"),  # type: ignore[call-arg]
        "Query has no option `since`: it is an option of Where",
    ),
    (
        lambda: ObjectStore(root="results", endpoint="http://127.0.0.1"),  # type: ignore[call-arg]
        "ObjectStore has no option `endpoint`: it has endpoint_url, ...",
    ),
    (
        lambda: ObjectStore(root="results", https_hosts=("example.com",)),  # type: ignore[call-arg]
        "ObjectStore has no option `https_hosts`: write ObjectStore(source_store=SourceStore(https_hosts=…))",
    ),
    (
        lambda: SourceStore(secret="abc"),  # type: ignore[call-arg]
        "SourceStore has no option `secret`: it has secret_key, ...",
    ),
    (
        lambda: ObjectStore(),  # type: ignore[call-arg]
        "ObjectStore: `root` is missing: write ObjectStore(root=…). A folder, or s3://bucket/prefix.",
    ),
    *(
        (call, "Query: give an example of what to look for: `tile`, `lonlat`, `image` or `like`")
        for call in (
            lambda: Query(),
            lambda: Query(include_query=True),
            lambda: Query(unlike=("r000000_c000000",)),
            lambda: Query(like=()),
        )
    ),
    (lambda: ObjectStore("results"), "ObjectStore takes its values by name: write ObjectStore("),  # type: ignore[call-arg]
]


@pytest.mark.parametrize(("call", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_a_wrong_option_ends_in_one_line_with_its_name_the_remedy_and_the_value(
    call: Callable[[], Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        call()

    text = str(caught.value)
    assert text.startswith(said)
    assert "\n" not in text
    assert "pydantic" not in text


def test_every_public_model_with_options_raises_an_error_of_one_line() -> None:
    """Options are the public models that a person makes. The other public models come out of the library."""
    results = {"Answer", "CollectionReport", "Manifest", "QaReport"}

    for name in rasterembed.__all__:
        kind = getattr(rasterembed, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and name not in results:
            with pytest.raises(UsageError):
                kind("no value is given by position")  # type: ignore[call-arg]


def test_a_value_that_the_text_of_a_check_shows_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        Query(like=("r000000_c000000", "zzz"))
    assert str(caught.value).startswith("Query: `like`: 'zzz' is not a tile id: ")
    assert str(caught.value).count("zzz") == 1
    assert "commas" not in str(caught.value)
    with pytest.raises(UsageError, match="put commas between several tile ids"):
        Query(like=("r000000_c000000 r000000_c000001",))
    with pytest.raises(UsageError) as caught:
        StacSearch(bbox=(24, 61, 25, 60))
    assert str(caught.value).endswith("the order is west, south, east, north")


def test_the_repr_of_options_shows_what_differs_from_the_defaults() -> None:
    options = EmbedOptions(dataset_id="a", grid=Grid(size=112))
    assert repr(options) == "EmbedOptions(grid=Grid(size=112), dataset_id='a')"
    assert eval(repr(options)) == options
    assert [repr(kind()) for kind in (Grid, Where, EmbedOptions)] == ["Grid()", "Where()", "EmbedOptions()"]


def test_no_secret_is_in_the_error() -> None:
    with pytest.raises(UsageError) as caught:
        SourceStore(access_key=["verysecret"], secret_key="alsosecret")  # type: ignore[arg-type]

    assert "`access_key`" in str(caught.value)
    assert "secret" not in str(caught.value).replace("access_key", "")


def test_a_stored_value_and_a_form_still_get_the_error_of_pydantic() -> None:
    """Their readers name the file or the form. Models that hold options collect the errors of all of them."""

    class Form(BaseModel):
        grid: Grid
        query: Query

    with pytest.raises(ValidationError):
        Grid.model_validate({"size": 20})
    with pytest.raises(ValidationError) as caught:
        Form.model_validate({"grid": {"size": 20}, "query": {"tile": "x"}})
    assert [error["loc"] for error in caught.value.errors()] == [("grid", "size"), ("query", "tile")]


def test_options_cannot_be_changed() -> None:
    assert OptionsModel.model_config["frozen"]
    with pytest.raises(ValidationError, match="frozen"):
        Grid().size = 64  # type: ignore[misc]
