"""Make environments for programs that need other packages than the project. `.ci/run` makes them beside other tests.

python -m tests.support.environments airflow stac
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]

SOURCES = {"airflow": PROJECT / "airflow", "stac": PROJECT / "tests" / "stac"}
"""Folders of requirements.txt and constraints.txt, by the name of the environment."""


def environment(name: str) -> Path:
    """Return the Python of an environment, with the versions in its constraints.txt. Later runs use it again."""
    requirements, pins = SOURCES[name] / "requirements.txt", SOURCES[name] / "constraints.txt"
    folder = PROJECT / f".venv-{name}"
    python, stamp = folder / "bin" / "python", folder / "installed"
    digest = hashlib.sha256(requirements.read_bytes() + pins.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", pins, "--requirement", requirements]
        subprocess.run(install, check=True, timeout=900)
        stamp.write_text(digest)
    return python


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        environment(argument)
