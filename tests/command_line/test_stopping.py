"""Signals at any time, and outputs that nobody reads: no traceback, one line about what stands, an exit status."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rasterembed.command_line.outputs import CLOSED_PIPE
from rasterembed.command_line.quick_stop import INTERRUPTED
from rasterembed.number_text import part_of
from tests.conftest import PROJECT
from tests.support.runs import SHARDS, write_raster
from tests.support.scenes import write_scene

SIGNAL_AT_IMPORT = """
import os, runpy, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == {name!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder)
sys.argv[0] = "rasterembed"
runpy.run_module("rasterembed", run_name="__main__")
"""

SIGNAL_AT_CHANGE = """
import os, signal, sys
from rasterembed.commands.main import main
from tests.support.pictures import draw_plain_pictures
from tests.support.runs import on_change
draw_plain_pictures()
on_change({number}, lambda: os.kill(os.getpid(), signal.SIGINT))
main()
"""

COMMAND = """
import atexit, os, signal, sys
from rasterembed.command_line.command_app import command_app
from rasterembed.command_line.outputs import print_message, print_result
from rasterembed.command_line.quick_stop import stop_at_once
from rasterembed.command_line.run import run
{before}
def command(number: int = 1) -> str:
    {body}
stop_at_once()
print_result(run(command_app("command", command), sys.argv[1:]))
"""


def _error_line(errors: str) -> str:
    """Return the only line of an error. On a busy machine, the notice about a second signal may be before it."""
    (line,) = (line for line in errors.splitlines() if not line.startswith("stopping: "))
    return line


def _python(program: str, *arguments: str, folder: Path | None = None) -> tuple[int, str, str]:
    """Run a program, and return its exit status and its outputs."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", ["cyclopts", "rasterembed.commands.datasets", "rasterembed.dataset.listing"])
def test_a_signal_in_an_import_is_one_line(name: str, tmp_path: Path) -> None:
    program = SIGNAL_AT_IMPORT.format(name=name)
    status, output, errors = _python(program, "datasets", "list", "--root", str(tmp_path))
    assert (status, output, errors) == (INTERRUPTED, "", "error: interrupted\n")


CASES = {
    "at the end of the process": (
        "atexit.register(signal.raise_signal, signal.SIGINT)",
        'return "the result"',
        ("the result\n", "error: interrupted\n"),
    ),
    "twice, as timeout sends it": (
        "",
        "\n    try:\n        signal.raise_signal(signal.SIGINT)\n    finally:\n"
        "        signal.raise_signal(signal.SIGINT)",
        ("", "error: interrupted: finished work stays in the store; to continue, run the same command again: "),
    ),
    "in a library that raises another error": (
        "",
        "\n    try:\n        signal.raise_signal(signal.SIGINT)\n    except KeyboardInterrupt:\n"
        '        raise ImportError("it is imported in part")',
        ("", "error: interrupted: finished work stays in the store; "),
    ),
    "in a finaliser": (
        "class Closed:\n    def __del__(self):\n        signal.raise_signal(signal.SIGINT)",
        "\n    Closed()\n    signal.pause()",
        ("", "error: interrupted: finished work stays in the store; "),
    ),
    "in another thread, while the main thread waits": (
        """
import threading, time
def send():
    frame = sys._current_frames()[threading.main_thread().ident]
    if frame.f_code is not threading.Condition.wait.__code__:
        return threading.Timer(0.1, send).start()
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
""",
        "\n    threading.Timer(0.1, send).start()\n    threading.Event().wait()",
        ("", "error: interrupted: finished work stays in the store; "),
    ),
    "in code that a library runs": (
        """
import ctypes
run_text = ctypes.pythonapi.PyRun_String
run_text.restype, run_text.argtypes = ctypes.py_object, [ctypes.c_char_p, ctypes.c_int, *[ctypes.py_object] * 2]
""",
        'run_text(b"import signal; signal.raise_signal(signal.SIGINT)", 257, {}, {})',
        ("", "error: interrupted: finished work stays in the store; "),
    ),
}


def test_no_alarm_comes_after_the_end_of_an_interrupted_command() -> None:
    program = """
import signal, time
from rasterembed.command_line.stopping import stoppable
for _ in range(50):
    try:
        with stoppable():
            signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        pass
    signal.signal(signal.SIGALRM, lambda *_: print("an alarm"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
time.sleep(0.2)
"""
    assert _python(program) == (0, "", "")


def test_the_end_of_a_command_does_not_wait_for_a_child_of_the_process() -> None:
    body = """
    reading, writing = os.pipe()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # The child ends when its parent has ended.
        os.write(writing, b"1")
        signal.pause()
    os.read(reading, 1)
    return "the result"
"""
    assert _python(COMMAND.format(before="import ctypes", body=body)) == (0, "the result\n", "")


@pytest.mark.parametrize(("before", "body", "told"), CASES.values(), ids=CASES)
def test_a_signal_is_one_line_and_a_status(before: str, body: str, told: tuple[str, str]) -> None:
    status, output, errors = _python(COMMAND.format(before=before, body=body), "--number", "2")
    assert status == INTERRUPTED
    assert output == told[0]
    assert _error_line(errors).startswith(told[1].removesuffix("\n"))


@pytest.mark.parametrize("both", [False, True])
def test_a_result_that_nobody_reads_ends_the_command_quietly(both: bool, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "rasterembed", "datasets", "list", "--root", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=writing,
        stderr=subprocess.STDOUT if both else subprocess.PIPE,
        text=True,
        timeout=240,
    )
    os.close(writing)
    assert done.returncode == CLOSED_PIPE
    assert not done.stderr


def test_a_command_goes_on_if_nobody_reads_its_messages(tmp_path: Path) -> None:
    body = '\n    [print_message("x" * 100_000) for _ in range(3)]\n    open("done", "w").close()\n    return ""'
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format(before="", body=body)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=writing,
        stderr=writing,
        timeout=240,
    )
    os.close(writing)
    assert done.returncode == CLOSED_PIPE
    assert (tmp_path / "done").exists()


SETTINGS = ("--size", "32", "--device", "cpu", "--shard-tiles", "16", "--batch-size", "4", "--shard-threads", "1")


@pytest.mark.parametrize("number", [4, 11])
def test_an_interrupted_embedding_tells_what_stands_and_the_command_to_continue(
    number: int, tmp_path: Path, tiny_vit: Path
) -> None:
    write_raster(tmp_path / "scene.tif")
    words = ["embed", "scene.tif", "--root", "store", "--dataset-id", "scene", "--model", str(tiny_vit), *SETTINGS]
    status, output, errors = _python(SIGNAL_AT_CHANGE.format(number=number), *words, folder=tmp_path)
    assert (status, output) == (INTERRUPTED, "")
    line = _error_line(errors)
    told = re.fullmatch(r"error: interrupted: (.*); to continue, run the same command again: `(.*)`", line)
    assert told is not None
    written = len(list((tmp_path / "store/embeddings/scene").glob("*.parquet")))
    if (tmp_path / "store/datasets/scene/manifest.json").exists():
        assert told[1].startswith("dataset 'scene' has all its shards, and its quality checks or its vector index are ")
    else:
        assert told[1] == f"dataset 'scene' is unfinished: {part_of(written, SHARDS, 'shard')} written"
        assert written < SHARDS
    again = shlex.split(told[2])
    assert again[-len(words) :] == words


def test_an_interrupted_collection_tells_what_stands(tmp_path: Path, tiny_vit: Path) -> None:
    for number in range(3):
        write_scene(tmp_path / "scenes" / f"{number}.tif", number)
    words = ["collection", "embed", "scenes", "--collection", "survey", "--root", "store", "--model", str(tiny_vit)]
    status, _, errors = _python(SIGNAL_AT_CHANGE.format(number=16), *words, *SETTINGS, folder=tmp_path)
    assert status == INTERRUPTED
    line = _error_line(errors)
    assert re.match(
        r"error: interrupted: collection 'survey' is unfinished: [012] of 3 scenes of this run (is|are) d", line
    )
    assert "to continue, run the same command again: `" in line
