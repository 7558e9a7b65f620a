"""Ask searches, or build indexes, in a process that may end in any way.

A native library that reads a tampered file can end its process. A test therefore asks in a process of its own. One
process answers many cases, because its imports take a second. If it ends early, a new process does the other cases.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

MEMORY_BYTES = 6 * 2**30
"""Address space of a process. Mapped files and the libraries' stacks are part of it."""

_TIMEOUT_S = 600


@dataclass(frozen=True)
class Case:
    """A search of one dataset, or the build of its index."""

    name: str
    root: str
    engine: str
    vector: tuple[float, ...] = ()
    """The query. Empty: build the index."""
    dataset: str = "known"
    k: int = 10
    box: tuple[float, float, float, float] | None = None
    kill_at: int = 0
    """Kill the build before it opens, renames, links or removes a file below `root` for the n-th time. 0: never."""
    file_limit: int | None = None
    """Largest size of a file that the build may write, in bytes."""


@dataclass(frozen=True)
class Ended:
    """How a case ended."""

    crash: str = ""
    """How the process ended, with the end of its standard error. Empty if it did not end."""
    error: str = ""
    """Text of an error of the library, which a person would see."""
    unexpected: str = ""
    """Any other error, which a person would see as a traceback."""
    found: tuple[tuple[str, float], ...] = ()
    """Ids and distances of the tiles."""
    engine: str = ""
    """Engine that answered."""
    reason: str = ""
    """Reason why the index was not used, as a `NoIndexReason`. For a build: the outcome, as a `BuildOutcome`."""
    said: str = ""
    """What the process wrote to standard error during the case."""


def run_cases(cases: Sequence[Case], environment: dict[str, str]) -> dict[str, Ended]:
    """Do all cases, and return how each ended, by name."""
    ended: dict[str, Ended] = {}
    rest = list(cases)
    while rest:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.search_child"],
            input=json.dumps([asdict(case) for case in rest]),
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_TIMEOUT_S,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        said = _said_by_case(done.stderr)
        for line in lines:
            found = tuple((str(tile), float(distance)) for tile, distance in line.pop("found", ()))
            name = line.pop("name")
            ended[name] = Ended(**line, found=found, said=said.get(name, ""))
        rest = rest[len(lines) :]
        if rest and done.returncode == 0:
            raise AssertionError(f"the process left cases out: {done.stderr[-2000:]}")
        if rest:
            ended[rest[0].name] = Ended(crash=f"exit status {done.returncode}: {done.stderr[-1500:]}")
            del rest[0]
    return ended


def _said_by_case(text: str) -> dict[str, str]:
    """Cut standard error at the lines that begin a case."""
    said: dict[str, str] = {}
    for part in text.split("\n@case ")[1:]:
        name, _, rest = part.partition("\n")
        said[name] = rest.strip()
    return said


def _ask(case: Case) -> dict[str, Any]:
    import numpy as np

    from rasterembed.search.query import Where
    from rasterembed.search.searcher import Searcher
    from rasterembed.store.object_store import ObjectStore

    engine: Any = case.engine
    with Searcher(ObjectStore(root=case.root), [case.dataset], engine=engine) as searcher:
        answer = searcher.ask_vector(np.array(case.vector), Where(bbox=case.box), case.k)
    (used,) = answer.engines
    reason = "" if used.no_index is None else str(used.no_index)
    found = [(hit.tile_id, hit.distance) for hit in answer.hits]
    # The files of an answer are made of the same values, footprints among them.
    assert all(hit.geometry for hit in answer.hits)
    return {"found": found, "engine": used.name, "reason": reason}


def _build(case: Case) -> dict[str, Any]:
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.search.index.building import build_vector_index
    from rasterembed.search.index_options import VectorIndexOptions
    from rasterembed.search.vector_files import VectorFiles
    from rasterembed.store.object_store import ObjectStore

    engine: Any = case.engine
    files = VectorFiles.of_dataset(Dataset.open(ObjectStore(root=case.root), case.dataset))
    result = build_vector_index(files, VectorIndexOptions(index="always", index_engine=engine))
    return {"reason": str(result.outcome), "engine": "" if result.index is None else result.index.engine}


_FILE_EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate")
"""Events of Python's audit hooks that a build causes when it works with files."""


def _build_in_fork(case: Case) -> dict[str, Any]:
    """Build in a copy of this process, so that the build can be killed, and starts no thread here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        if case.kill_at:
            _kill_at(case)
        if case.file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.file_limit, case.file_limit))
        with os.fdopen(writer, "w") as pipe:
            json.dump(_ended(case), pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        killed = case.kill_at and os.WTERMSIG(status) == signal.SIGKILL
        return {"reason": "killed"} if killed else {"crash": f"signal {os.WTERMSIG(status)}"}
    result: dict[str, Any] = json.loads(text)
    return result


def _kill_at(case: Case) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in _FILE_EVENTS and any(str(part).startswith(case.root) for part in arguments):
            seen += 1
            if seen == case.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _ended(case: Case) -> dict[str, Any]:
    """Search or build, and return the result or the error."""
    from rasterembed.errors import RasterEmbedError

    try:
        return _ask(case) if case.vector else _build(case)
    except RasterEmbedError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"unexpected": f"{type(error).__name__}: {error}"[:2000]}


def main() -> None:
    """Read cases from standard input, and write a line for each."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cases = [
        Case(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
        for values in json.load(sys.stdin)
    ]
    if any(not case.vector for case in cases):
        for module in ("faiss", "rasterembed.search.index.building"):
            import_module(module)  # Each fork would import it again.
    for case in cases:
        print(f"\n@case {case.name}", file=sys.stderr, flush=True)
        result = _ended(case) if case.vector else _build_in_fork(case)
        print(json.dumps({"name": case.name, **result}), flush=True)


if __name__ == "__main__":
    main()
