"""Run a PostgreSQL server on loopback, from Debian's package, for tests whose load is too much for SQLite."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.debian import can_install, install_packages
from tests.support.servers import HOST, ServerProcess, free_port
from tests.support.waiting import wait_for


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def install_postgres() -> Path:
    """Return the folder of PostgreSQL's programs. If they are missing and the user is root, install the package first.

    Without PostgreSQL the test is skipped, or fails in CI.
    """
    if not (folder := _binaries()) and can_install():
        install_packages("postgresql")
        folder = _binaries()
    if not folder:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no PostgreSQL: apt-get install postgresql")
    return folder


@contextmanager
def postgres() -> Iterator[str]:
    """Run a new, empty server, and yield the URL of a database for Prefect."""
    programs, port = install_postgres(), free_port()
    # PostgreSQL refuses to run as root.
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def run(program: str, *arguments: str) -> Sequence[str]:
        return [*user, str(programs / program), *arguments]

    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir()
        if user:
            shutil.chown(data, "postgres", "postgres")
        initialise = run("initdb", "--pgdata", str(data), "--username", "prefect", "--auth", "trust", "--no-sync")
        subprocess.run(initialise, cwd=data, check=True, capture_output=True)
        options = ["-D", str(data), "-h", HOST, "-p", str(port), "-k", str(data), "-F"]
        server = ServerProcess(run("postgres", *options), folder / "postgres.log")
        try:
            ask = run("psql", "--host", HOST, "--port", str(port), "--username", "prefect", "--dbname", "postgres")
            create = [*ask, "--command", "create database prefect"]
            wait_for(lambda: subprocess.run(create, cwd=data, capture_output=True).returncode == 0, "PostgreSQL")
            yield f"postgresql+asyncpg://prefect@{HOST}:{port}/prefect"
        finally:
            server.end()
