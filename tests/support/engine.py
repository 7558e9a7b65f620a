"""Run a Docker engine for tests. If no image registry can be reached, make the base image from Debian's packages.

python -m tests.support.engine      starts an engine if none answers, makes the base image, and runs until Ctrl-C
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from tests.support.debian import InstallationError, can_install, install_packages
from tests.support.servers import ServerProcess

BASE_IMAGE = "python:3.11-slim-bookworm"
PACKAGES = ("docker.io", "debootstrap", "iptables")

WHEELS_PORT = 18765
"""Port of the wheel server. The port is part of a build argument. It is always the same, because a new value would make
the engine build the image again."""

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class EngineMissingError(Exception):
    """Raised if there is no Docker engine and none can be started. The message says why."""


def _run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )  # type: ignore[call-overload]
    if done.returncode:
        raise EngineMissingError(f"`{' '.join(command)[:200]}` ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done


def _answers() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def _install() -> None:
    if all(shutil.which(command) for command in ("dockerd", "debootstrap", "iptables")):
        return
    if not can_install():
        raise EngineMissingError("no Docker engine answers, and only root on Debian can install one here")
    _install_packages(*PACKAGES)


def _install_packages(*names: str) -> None:
    try:
        install_packages(*names)
    except InstallationError as error:
        raise EngineMissingError(str(error)) from error


@contextmanager
def docker_engine() -> Iterator[None]:
    """Provide a Docker engine with the base image. If the engine was started here, it is stopped afterwards.

    Raises:
        EngineMissingError: if there is no engine, and none can be started.
    """
    if _answers():
        _have_base_image()
        yield
        return
    _install()
    with tempfile.TemporaryDirectory(prefix="dockerd-") as folder:
        process = ServerProcess(["dockerd"], Path(folder) / "dockerd.log")
        try:
            deadline = time.monotonic() + 60
            while not _answers():
                process.check()
                if time.monotonic() > deadline:
                    raise EngineMissingError(f"dockerd does not answer:\n{process.last_output()}")
                time.sleep(0.5)
            _have_base_image()
            yield
        finally:
            process.end()


def _have_base_image() -> None:
    known = subprocess.run(["docker", "image", "inspect", BASE_IMAGE], capture_output=True, check=False)
    if known.returncode and subprocess.run(["docker", "pull", BASE_IMAGE], capture_output=True, check=False).returncode:
        _make_base_image()


def _make_base_image() -> None:
    """Make the base image from Debian's packages: CPython 3.11 with pip and venv, as slim as the public one."""
    _install()
    with tempfile.TemporaryDirectory(prefix="base-image-") as folder:
        root = Path(folder)
        packages = "python3,python3-pip,python3-venv,python-is-python3,ca-certificates"
        _run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", folder)
        # Copy this host's certificates, because a proxy before the package index may have a certificate of its own.
        shutil.copy(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"))
        (root / "etc/pip.conf").write_text(f"[global]\ncert = {_CERTIFICATES}\ndefault-timeout = 180\n")
        for unneeded in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache/apt"):
            shutil.rmtree(root / unneeded, ignore_errors=True)
        for mount in ("proc", "sys"):
            assert not os.path.ismount(root / mount)
        change = ("--change", 'CMD ["python3"]')
        _run("sh", "-c", 'tar -C "$0" -c . | docker import "$@"', folder, *change, "-", BASE_IMAGE)


def compose_command() -> str:
    """Return Docker's Compose command: the plugin, or Debian's older docker-compose, which root installs if needed.

    Raises:
        EngineMissingError: if there is neither, and it cannot be installed.
    """
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return "docker compose"
    if not shutil.which("docker-compose"):
        if not can_install():
            raise EngineMissingError("no Docker Compose here; as root on Debian: apt-get install docker-compose")
        _install_packages("docker-compose")
    return "docker-compose"


def bridge_address() -> str:
    """Return this host's address in the containers' network. A server for containers must listen on this address."""
    return next(each.address for each in psutil.net_if_addrs()["docker0"] if each.family is socket.AF_INET)


@contextmanager
def local_wheels() -> Iterator[dict[str, str]]:
    """Serve the wheels in pip's `find-links` folder of this host, such as PyTorch's CPU build, to an image build.

    Yields:
        Variables that prefect.yaml turns into build arguments. Empty if pip has no such folder.
    """
    found = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True, check=False
    )
    folder = Path(found.stdout.strip() or "/nowhere")
    if not folder.is_dir():
        yield {}
        return
    host = bridge_address()
    server = ThreadingHTTPServer((host, WHEELS_PORT), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {"PIP_FIND_LINKS": f"http://{host}:{WHEELS_PORT}/", "PIP_TRUSTED_HOST": host}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with docker_engine(), local_wheels() as variables:
            for name, value in variables.items():
                print(f"export {name}={value}", flush=True)
            print(f"# {BASE_IMAGE} is ready; Ctrl-C stops what was started", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    except EngineMissingError as error:
        sys.exit(str(error))
