"""Install Debian's packages that tests need."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

_LISTS = Path("/var/lib/apt/lists")


class InstallationError(Exception):
    """Raised if apt-get fails. The message has the last lines of its output."""


def can_install() -> bool:
    """Return whether packages can be installed: this is root, and the system is Debian or one like it."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_packages(*names: str) -> None:
    """Install packages, without the packages that these only recommend.

    Two suites of `.ci/run` may need packages at the same time. apt-get would fail while another apt-get works, so each
    process waits for the others here.

    Raises:
        InstallationError: if apt-get fails.
    """
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    lists = os.open(_LISTS, os.O_RDONLY)
    try:
        fcntl.flock(lists, fcntl.LOCK_EX)
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
            done = subprocess.run(
                ["apt-get", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                text=True,
                check=False,
            )
            if done.returncode:
                raise InstallationError(f"`apt-get {' '.join(words)}` failed:\n{done.stdout[-2000:]}")
    finally:
        os.close(lists)
