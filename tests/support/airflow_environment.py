"""Make an environment with Airflow. The tests of Airflow use it, and `.ci/run` makes it beside other tests."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
SOURCES = PROJECT / "airflow"


def airflow_environment() -> Path:
    """Return the Python of an environment with Airflow as airflow/constraints.txt pins it. Later runs use it again."""
    requirements, pins = SOURCES / "requirements.txt", SOURCES / "constraints.txt"
    folder = PROJECT / ".venv-airflow"
    python, stamp = folder / "bin" / "python", folder / "installed"
    digest = hashlib.sha256(requirements.read_bytes() + pins.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", pins, "--requirement", requirements]
        subprocess.run(install, check=True, timeout=900)
        stamp.write_text(digest)
    return python


if __name__ == "__main__":
    airflow_environment()
