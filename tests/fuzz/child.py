"""Run a function in a child process with limits of memory and time, and say how it ended."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import psutil

from rasterembed.errors import RasterEmbedError

MEMORY_BYTES = 2 * 2**30
"""Largest memory that a case may add to that of the process that starts it."""

ADDRESS_SPACE_BYTES = 4 * 2**30
"""Largest address space that a case may add. Above `MEMORY_BYTES`, because a reserved page need not be used."""

CPU_S, WALL_S = 20, 120
"""Longest processor time and longest time of a case. A busy machine must not make a hang of a slow case."""


class Outcome(StrEnum):
    """How a case ended. The last four are faults of the project or its libraries."""

    EMBEDDED = "embedded"
    READ = "read"
    REFUSED = "refused"
    UNEXPECTED = "unexpected exception"
    HANG = "hang"
    MEMORY = "over memory"
    CRASH = "crash"


BAD = (Outcome.UNEXPECTED, Outcome.HANG, Outcome.MEMORY, Outcome.CRASH)


@dataclass(frozen=True)
class Ending:
    """The outcome of a case."""

    outcome: Outcome
    text: str = ""
    """The error, in one line."""
    trace: str = ""
    """The traceback of an unexpected exception."""


def run_limited(function: Callable[[], Outcome]) -> Ending:
    """Call a function in a fork of this process.

    Args:
        function: Returns `EMBEDDED` or `READ`, or raises. A RasterEmbedError counts as `REFUSED`.
    """
    report, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(report)
        _run(function, send)
    os.close(send)
    data, ended = _receive(report, time.monotonic() + WALL_S)
    os.close(report)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return _judge(data, ended, os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)


def _receive(report: int, deadline: float) -> tuple[bytes, bool]:
    """Return all that the child sends, and whether it ended before the deadline."""
    data = b""
    while (left := deadline - time.monotonic()) > 0:
        if select.select([report], [], [], left)[0]:
            part = os.read(report, 65536)
            if not part:
                return data, True
            data += part
    return data, False


def _judge(data: bytes, ended: bool, code: int, peak_bytes: int) -> Ending:
    if not ended or -code == signal.SIGXCPU:
        return Ending(Outcome.HANG, f"more than {CPU_S} s of processor time, or {WALL_S} s")
    if code < 0 or not data:
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Ending(Outcome.CRASH, name)
    content = json.loads(data)
    ending = Ending(Outcome(content["outcome"]), content["text"], content["trace"])
    # A child starts with the pages of its parent, which count.
    if ending.text.startswith("MemoryError") or peak_bytes - psutil.Process().memory_info().rss > MEMORY_BYTES:
        return Ending(Outcome.MEMORY, f"{peak_bytes / 2**30:.1f} GiB; {ending.text}", ending.trace)
    return ending


def _run(function: Callable[[], Outcome], send: int) -> None:
    text = trace = ""
    try:
        faulthandler.disable()  # A crash is part of the result, and needs no text on the terminal.
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + CPU_S, int(used) + CPU_S + 5))
        space = psutil.Process().memory_info().vms + ADDRESS_SPACE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        outcome = function()
    except RasterEmbedError as error:
        text, outcome = str(error), Outcome.REFUSED
    except BaseException as error:
        text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        trace, outcome = traceback.format_exc(), Outcome.UNEXPECTED
    try:
        os.write(send, json.dumps({"outcome": outcome, "text": text[:2000], "trace": trace[-8000:]}).encode())
    finally:
        os._exit(0)
