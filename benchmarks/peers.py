"""Others that embed rasters with DINOv3, each in an environment of its own, held ready in a process to take its turns.

What runs in such a process is in the folder benchmarks/peers/: a script and a file of pinned requirements each.
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
    """A way to embed a raster that the report compares."""

    script: str
    """In benchmarks/peers/, without its ending."""
    label: str
    """For tables and pictures."""
    tuned: bool = False
    """In bfloat16 and set up as well as the package can be; else as its own documentation shows it, in float32."""
    batch: int = 32
    own: bool = False
    """Runs in this project's environment."""
    exact: bool = True
    """Prepares tiles as the reference does and takes the CLS token, so that its vectors must be the reference's."""

    @property
    def dtype(self) -> str:
        """Type the model computes in."""
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


class Unavailable(Exception):  # noqa: N818  # no error of ours: a report says so and goes on
    """A peer that does not install or start here; says why in one line."""


def python_of(script: str, venvs: Path = VENVS) -> Path:
    """The Python of a peer's environment, which is made, or made anew if its requirements have changed.

    Raises:
        Unavailable: if its packages do not install.
    """
    requirements, folder = SCRIPTS / f"{script}.txt", venvs / script
    stamp, digest = folder / "installed", hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"installing {script} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"its packages do not install: {_last_line(done.stderr)}")
        stamp.write_text(digest)
    return python


class Worker:
    """A loaded peer that waits for its turns.

    Args:
        way: which.
        python: of its environment.
        arguments: for its script.
        log: file for what it prints otherwise.

    Raises:
        Unavailable: if it does not start.
    """

    def __init__(self, way: Way, python: Path, arguments: Sequence[object], log: Path) -> None:
        self._log = log
        command = [python, SCRIPTS / f"{way.script}.py", *arguments, "--batch", way.batch]
        # ours finds the harness, and nobody's own packages get in a peer's way
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
        """Versions of its packages, seconds until it was loaded, and a note."""

    def turn(self, case: str, vectors: Path | None = None) -> dict[str, float]:
        """Seconds, those of the model alone, and peak memory of one run, whose vectors may be wanted."""
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
    """The smallest cosine of a tile's vector to the reference's; both must be of the same tiles."""
    with np.load(vectors) as ours, np.load(reference) as theirs:
        np.testing.assert_array_equal(ours["tiles"], theirs["tiles"])
        a, b = (each["vectors"].astype(np.float64) for each in (ours, theirs))
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it says nothing"
