"""The fuzzer: a short run of it finds nothing, it names each way in which a case can end, and it repeats its cases."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from random import Random
from typing import NoReturn

import pytest

from rasterembed.errors import DataError
from tests.conftest import PROJECT
from tests.fuzz.child import Outcome, run_limited
from tests.fuzz.mutations import damage_bytes, damage_json


@pytest.mark.parametrize("cases", [12, pytest.param(40, marks=pytest.mark.slow)])
def test_a_short_run_finds_nothing(cases: int) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "7", "--cases", str(cases)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| all | {cases} |" in done.stdout


def _fail(error: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        (lambda: Outcome.READ, Outcome.READ),
        (_fail(DataError("scene.tif: broken: upload it again")), Outcome.REFUSED),
        (_fail(ValueError("from a library")), Outcome.UNEXPECTED),
        (_fail(RecursionError()), Outcome.UNEXPECTED),
        (lambda: bytearray(2**43), Outcome.MEMORY),
        (os.abort, Outcome.CRASH),
        (lambda: os._exit(3), Outcome.CRASH),
    ],
)
def test_each_way_to_end_has_its_name(case: Callable[[], Outcome], outcome: Outcome) -> None:
    assert run_limited(case).outcome is outcome


def test_a_case_that_does_not_end_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.child.WALL_S", 0.2)
    read, write = os.pipe()
    assert run_limited(lambda: os.read(read, 1) and Outcome.READ).outcome is Outcome.HANG
    os.close(read), os.close(write)


SOUND_JSON = b'{"a": [1, null]}'


@pytest.mark.parametrize(("damage", "sound"), [(damage_bytes, bytes(range(256)) * 4), (damage_json, SOUND_JSON)])
def test_a_seed_repeats_the_damage(damage: Callable[[bytes, Random], bytes], sound: bytes) -> None:
    first, again = ([damage(sound, Random(f"1/{number}")) for number in range(100)] for _ in range(2))
    assert first == again
    assert len(set(first)) > 20
