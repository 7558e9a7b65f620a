"""A command without a Prefect server: it finds errors first, and its own server ends with it, also after SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL

from examples.landscape import make_scene
from flows.command import run
from flows.embedded_server import EmbeddedServer
from flows.qa_report import qa_report
from flows.raster_embeddings import raster_embeddings
from flows.search_embeddings import search_embeddings
from tests.conftest import PROJECT

WRAPPER = PROJECT / "flows" / "ends_with_parent.py"


def _ends(process: psutil.Process, timeout: float = 120) -> bool:
    """Wait for the end of a process. If it does not end, kill it and return False."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:  # It ended. In a container, nobody may wait for orphans.
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    process.kill()
    return False


def test_a_process_ends_when_its_parent_is_killed() -> None:
    program = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-P", {str(WRAPPER)!r}, "http.server", "0", "--bind", "127.0.0.1"],
                         stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    parent.communicate()
    assert _ends(child)


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command of a flow, in a session as of a terminal, and return it when its run has begun."""
    scene = make_scene(tmp_path, width=512, height=512).raster
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    environment |= {"PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(PROJECT)}
    log = tmp_path / "log"
    command = subprocess.Popen(
        [sys.executable, "-m", "flows.raster_embeddings", str(scene), "--root", str(tmp_path / "store")],
        env=environment,
        cwd=tmp_path,
        stderr=log.open("w"),
        start_new_session=True,
    )
    try:
        while "Beginning flow run" not in log.read_text():  # The server answers then.
            assert command.poll() is None, log.read_text()
            time.sleep(0.1)
        yield command
    finally:
        command.kill()
        command.wait()


@pytest.mark.slow
def test_the_embedded_server_ends_when_its_command_is_killed(begun: subprocess.Popen[bytes]) -> None:
    (server,) = psutil.Process(begun.pid).children()
    arguments = server.cmdline()
    begun.kill()
    begun.wait()
    assert "prefect.server.api.server:create_app" in arguments
    assert _ends(server)


@pytest.mark.slow
def test_the_server_takes_the_end_of_a_run_that_ctrl_c_stops(begun: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to all processes of its foreground group."""
    (server,) = psutil.Process(begun.pid).children()
    os.killpg(begun.pid, signal.SIGINT)
    begun.wait(240)
    log = (tmp_path / "log").read_text()
    assert begun.returncode == 130, log
    for lost in ("Unable to connect", "connection attempts failed", "failed to process item"):
        assert lost not in log
    assert _ends(server)


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command end in an ImportError if it wants to start a Prefect server."""
    assert not PREFECT_API_URL.value()
    monkeypatch.setitem(sys.modules, "flows.embedded_server", None)


@pytest.mark.parametrize(
    ("flow", "arguments", "status", "reason"),
    [
        (raster_embeddings, ["nowhere.tif"], 1, "nowhere.tif: there is no such file"),
        (raster_embeddings, [__file__, "--root", "ftp://there"], 2, "the root is neither a folder nor s3://"),
        (raster_embeddings, [__file__, "--dataset-id", "../x"], 2, "dataset id '../x' is not allowed"),
        (qa_report, ["nowhere"], 2, "there is no dataset 'nowhere'"),
        (search_embeddings, ["nowhere", "--tile", "r000000_c000000"], 2, "there is no dataset 'nowhere'"),
        (search_embeddings, ["../x,y", "--tile", "r000000_c000000"], 2, "dataset id '../x' is not allowed"),
    ],
)
@pytest.mark.usefixtures("no_server")
def test_errors_are_found_before_a_server_starts_and_are_printed_once(
    flow: object,
    arguments: list[str],
    status: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        run(flow, arguments)  # type: ignore[arg-type]
    assert end.value.code == status
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reason in line


def test_a_server_that_does_not_start_in_time_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = make_scene(tmp_path, width=256, height=256).raster
    monkeypatch.setattr(EmbeddedServer, "start", partialmethod(EmbeddedServer.start, timeout=1e-9))
    with pytest.raises(
        SystemExit, match=r"^the command's own Prefect server did not start \(Timed out .*set PREFECT_API"
    ):
        run(raster_embeddings, [str(scene), "--root", str(tmp_path / "store")])
    commands = [child.cmdline() for child in psutil.Process().children()]
    assert not any("prefect.server.api.server:create_app" in command for command in commands)
