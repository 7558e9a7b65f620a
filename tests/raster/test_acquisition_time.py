"""Times of acquisition, against the standard library's `datetime`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasterembed.raster.acquisition_time import acquisition_time, parse_time

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2026-06-01T12:00:00+02:00", datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))),
        ("2026-06-01T12:00:00+0200", datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))),
        ("2026-06-01 12:00:00 -09:30", datetime(2026, 6, 1, 12, tzinfo=timezone(-timedelta(hours=9.5)))),
        ("2026-06-01T12:00:00Z", NOON),
        ("2026-06-01 12:00:00 UTC", NOON),
        ("2026:06:01 12:00:00", NOON),
        (" 2026:06:01 12:00:00\0", NOON),
        ("2026:06:01 12:00:00+02:00", NOON - timedelta(hours=2)),
        ("2026-06-01T12:00:00.25Z", NOON + timedelta(milliseconds=250)),
        ("2026-06-01T12:00:00,5+01:00", NOON - timedelta(hours=1) + timedelta(milliseconds=500)),
        ("2026-06-01T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ("2026-06-01", datetime(2026, 6, 1, tzinfo=UTC)),
        ("2026:06:01", datetime(2026, 6, 1, tzinfo=UTC)),
        ("2026-06-01T12:00", NOON),
        ("", None),
        ("last summer", None),
        ("2026:06:31 12:00:00", None),
        ("2026-06-01T25:00:00", None),
        ("2026-06-01T12:00:00+99:00", None),
        ("0001-01-01T00:00:00+02:00", None),
        ("2026:06:01 12:00:00 and more", None),
    ],
)
def test_times(text: str, when: datetime | None) -> None:
    found = parse_time(text)
    assert found == when
    assert found is None or found.utcoffset() == timedelta(0)


@given(
    when=st.datetimes(min_value=datetime(1900, 1, 1)),
    offset=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_every_time_with_an_offset(when: datetime, offset: timezone) -> None:
    local = when.replace(tzinfo=offset, year=min(when.year, 9998))
    assert parse_time(local.isoformat()) == local


@given(st.text(max_size=40))
def test_no_text_raises(text: str) -> None:
    parse_time(text)


def test_a_broken_tag_leaves_the_next_one() -> None:
    assert acquisition_time({"ACQUISITIONDATETIME": "soon", "TIFFTAG_DATETIME": "2026:06:01 12:00:00"}) == NOON
    assert acquisition_time({}) is None
