"""A sound file that the fuzzer damages, and a reader for its damaged copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz.child import Outcome


@dataclass(frozen=True)
class Target:
    """A sound file, and a reader for damaged copies of it."""

    kind: str
    name: str
    sound: bytes
    damage: Callable[[bytes, Random], bytes]
    read: Callable[[bytes, Path, Random], Outcome]
    """Reads a damaged copy. Arguments: its bytes, an empty folder, the generator of the case."""
