"""Wait for a state, and not for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 180.0, every: float = 0.1) -> Any:
    """Call a function until it returns a true value, and return that value. The test fails if that takes too long.

    Args:
        condition: the function.
        what: name of the state that is waited for, for the failure of the test.
        timeout: seconds after which the test fails.
        every: seconds between two calls.
    """
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(every)
    return found
