"""Run this project and other packages that embed rasters with DINOv3, to compare them.

Each of the other packages has its own environment. Each package has its own process. The process loads the package
once, and then runs a case each time the benchmark asks for it. The folder benchmarks/peers/ has a script and pinned
requirements for each package.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(__file__).parent / "peers"
VENVS = ROOT / ".venv-peers"


@dataclass(frozen=True)
class Way:
    """A way to embed a raster: a package with its settings. The report compares several ways."""

    script: str
    """Name of the script in benchmarks/peers/, without its suffix."""
    label: str
    """Name in tables and pictures."""
    tuned: bool = False
    """True: the package computes in bfloat16, with its fastest settings.

    False: the package computes in float32, with the settings of its documentation.
    """
    batch: int = 32
    """Number of tiles in a batch."""
    own: bool = False
    """Whether the script runs in this project's environment."""
    exact: bool = True
    """Whether the vectors must equal the reference's vectors.

    They must if tiles are prepared as for the reference, and if the vector is the CLS token.
    """

    @property
    def dtype(self) -> str:
        """Dtype of the model's computation."""
        return "bfloat16" if self.tuned else "float32"


OURS = {
    "ours_float32": Way("ours", "this project, float32", own=True),
    "ours_bfloat16": Way("ours", "this project, bfloat16", tuned=True, own=True),
}
MODELS = {
    "transformers_float32": Way("in_memory", "transformers' model, float32", own=True),
    "transformers_bfloat16": Way("in_memory", "transformers' model, bfloat16", tuned=True, own=True),
}
PEERS = {
    "plain_loop_batch_1": Way("plain_loop", "plain loop, a tile at a time", batch=1),
    "plain_loop": Way("plain_loop", "plain loop, batches"),
    "plain_loop_tuned": Way("plain_loop", "plain loop, tuned", tuned=True),
    "torchgeo": Way("with_torchgeo", "TorchGeo"),
    "torchgeo_tuned": Way("with_torchgeo", "TorchGeo, tuned", tuned=True),
    "terratorch": Way("with_terratorch", "terratorch", exact=False),
    "terratorch_tuned": Way("with_terratorch", "terratorch, tuned", tuned=True, exact=False),
    "geoai": Way("with_geoai", "geoai", batch=1, exact=False),
    "geoai_tuned": Way("with_geoai", "geoai, tuned", tuned=True, batch=1, exact=False),
}


class Unavailable(Exception):  # noqa: N818 - the report names it and goes on
    """A package cannot be installed or started on this machine. The text says why in one line."""


def python_of(script: str, venvs: Path = VENVS) -> Path:
    """Return the Python of a package's environment. The environment is created if its requirements have changed.

    Args:
        script: name of the script in benchmarks/peers/.
        venvs: folder of the environments.

    Raises:
        Unavailable: if the packages of the environment do not install.
    """
    requirements, folder = SCRIPTS / f"{script}.txt", venvs / script
    stamp, digest = folder / "installed", hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"installing {script} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        options = ["--quiet", "--disable-pip-version-check"]
        command = [str(python), "-m", "pip", "install", *options, "-r", str(requirements)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"its packages do not install: {_last_line(done.stderr)}")
        stamp.write_text(digest)
    return python


class Worker:
    """A process with a loaded package that waits for its turns.

    Args:
        way: what the process runs.
        python: Python of the package's environment.
        arguments: arguments of the script.
        log: file for all output of the process except its answers.

    Raises:
        Unavailable: if the process does not start.
    """

    def __init__(self, way: Way, python: Path, arguments: Sequence[object], log: Path) -> None:
        self._log = log
        command = [python, SCRIPTS / f"{way.script}.py", *arguments, "--batch", way.batch]
        # Scripts of this project import the harness. All other scripts must import only from their own environment.
        path = {"PYTHONPATH": str(ROOT)} if way.own else {}
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [*map(str, command), *(["--tuned"] if way.tuned else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env=plain | path,
            )
        self.about = self._answer()
        """Versions of the packages, seconds for loading, and a note."""

    def turn(self, case: str, vectors: Path | None = None) -> dict[str, float]:
        """Run a case once.

        Args:
            case: name of the case.
            vectors: file for the vectors, or None.

        Returns:
            Total seconds, seconds of the model alone, and peak memory in MiB.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{case} {vectors}\n" if vectors else f"{case}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise Unavailable(f"it ends with status {self._process.returncode}: {_last_line(self._log.read_text())}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def cosine(vectors: Path, reference: Path) -> float:
    """Return the smallest cosine similarity between a tile's vector and the reference's vector of the same tile.

    Args:
        vectors: file with vectors, written by `Worker.turn`.
        reference: file with the reference's vectors of the same tiles.
    """
    with np.load(vectors) as ours, np.load(reference) as theirs:
        np.testing.assert_array_equal(ours["tiles"], theirs["tiles"])
        a, b = (each["vectors"].astype(np.float64) for each in (ours, theirs))
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it says nothing"
