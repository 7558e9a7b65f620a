"""The limit for log lines that clients can cause."""

from __future__ import annotations

import logging

import pytest

from rasterembed.log_limit import LimitRepeats, limit_repeats


def test_only_some_warnings_of_each_kind_pass(caplog: pytest.LogCaptureFixture) -> None:
    name = "tests.limited"
    limit_repeats([name])
    limit_repeats([name])
    log = logging.getLogger(name)
    assert [type(one) for one in log.filters] == [LimitRepeats]
    with caplog.at_level(logging.INFO, logger=name):
        for number in range(50):
            log.warning("Invalid request %d", number)
            log.info("a line for people %d", number)
        log.error("something else")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"Invalid request {number}" for number in range(10)
    ]
    assert sum(record.levelno == logging.INFO for record in caplog.records) == 50
    assert caplog.records[-1].getMessage() == "something else"
