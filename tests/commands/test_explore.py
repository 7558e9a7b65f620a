"""The options of `rasterembed explore`. tests/explorer/test_serving.py runs the command as a process."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.explorer import serving


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPLORER_TOKEN", raising=False)


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Return the error of a command that must not start."""
    with pytest.raises(SystemExit) as stopped:
        run(app, ["explore", *options])
    error = capsys.readouterr().err
    assert stopped.value.code in (1, 2)
    assert error.count("\n") == 1
    return error


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        error = refused(capsys, "--root", str(tmp_path), "--port", port)
    assert f"cannot listen on 127.0.0.1 port {port}" in error
    assert "choose another --port" in error


def test_other_hosts_need_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        error = refused(capsys, "--root", str(tmp_path), "--host", host)
        assert "so a token is needed: give --token-file, or set EXPLORER_TOKEN" in error


def test_tokens_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    root = ("--root", str(tmp_path))
    assert "no such file" in refused(capsys, *root, "--token-file", str(token))
    token.write_text("\n")
    assert "is empty" in refused(capsys, *root, "--token-file", str(token))
    token.write_text("abc\n")
    assert "less than 16 letters" in refused(capsys, *root, "--token-file", str(token))
    for value in ("abc", "abc" + "\n" * 20):
        monkeypatch.setenv("EXPLORER_TOKEN", value)
        error = refused(capsys, *root)
        assert "less than 16 letters" in error
        assert "abc" not in error


def test_other_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ("--root", str(tmp_path))
    assert "there is no folder" in refused(capsys, "--root", str(tmp_path / "missing"))
    assert "--basemap" in refused(capsys, *root, "--basemap", "ftp://host/{z}/{x}/{y}")
    assert "without --basemap" in refused(capsys, *root, "--basemap-attribution", "© A")
    assert "--prefect-ui" in refused(capsys, *root, "--prefect-ui", "here")
    assert "--port" in refused(capsys, *root, "--port", "70000")


@pytest.fixture
def _same_signals() -> Iterator[None]:
    """Restore the handlers of signals. A command that was stopped keeps its own, which end the process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_same_signals")
def test_a_stop_at_the_start_promises_no_finished_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "serve", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stopped:
        run(app, ["explore", "--root", str(tmp_path)])
    assert (stopped.value.code, capsys.readouterr().err) == (130, "error: interrupted\n")
