"""Damage files at random, read them in child processes with limits, and report what did not end well.

Every case has a number and is repeated by seed and number alone. The exit status is 1 if a case ended badly: with an
exception that is no RasterEmbedError, a hang, too much memory or a crash.

Example:
    python -m tests.fuzz --cases 600 --seed 1
    python -m tests.fuzz --seed 1 --first 417 --cases 1 --verbose    # repeats case 417
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random

import transformers

from tests.fuzz.child import BAD, Ending, Outcome, run_limited
from tests.fuzz.target import Target
from tests.fuzz.targets import make_targets

KINDS = ("raster", "dataset", "checkpoint", "area", "collection")


def run_case(target: Target, seed: int, number: int, folder: Path, keep: Path | None = None) -> Ending:
    """Damage a target's file and read the damaged file in a child process.

    Args:
        target: the file and its reader.
        seed: seed of the whole run.
        number: number of the case.
        folder: folder for temporary files.
        keep: folder in which a file that ends badly is kept.
    """
    random = Random(f"{seed}/{number}")
    data = target.damage(target.sound, random)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        ending = run_limited(lambda: target.read(data, Path(place), random))
    if keep is not None and ending.outcome in BAD:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{seed}-{number}").write_bytes(data)
    return ending


def run_cases(
    targets: Sequence[Target], seed: int, numbers: Iterator[int], folder: Path, keep: Path | None = None
) -> Iterator[tuple[int, Target, Ending]]:
    """Run cases, and yield the number, target and ending of each. The targets take turns."""
    for number in numbers:
        target = targets[number % len(targets)]
        yield number, target, run_case(target, seed, number, folder, keep)


def _numbers(first: int, cases: int | None, minutes: float | None) -> Iterator[int]:
    end = None if minutes is None else time.monotonic() + 60 * minutes
    for number in count(first):
        if (cases is not None and number >= first + cases) or (end is not None and time.monotonic() > end):
            return
        yield number


def table(counts: Counter[tuple[str, Outcome]]) -> str:
    """Return the number of cases by file and outcome, as a Markdown table."""
    names = list(dict.fromkeys(name for name, _ in counts))
    lines = [f"| file | cases | {' | '.join(Outcome)} |", "| --- |" + " ---: |" * (1 + len(Outcome))]
    for name in [*names, "all"]:
        found = [sum(n for (other, kind), n in counts.items() if name in (other, "all") and kind is outcome)
                 for outcome in Outcome]  # fmt: skip
        lines.append(f"| {name} | {sum(found)} | {' | '.join(map(str, found))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzzer, print the table and what ended badly, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of all chance")
    parser.add_argument("--cases", type=int, help="number of cases (default: 600, or until --minutes are over)")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", choices=KINDS, action="append", help="kind of file; may be repeated (default: all)")
    parser.add_argument("--keep", type=Path, help="folder in which files that end badly are kept")
    parser.add_argument("--verbose", action="store_true", help="print every case, and tracebacks")
    options = parser.parse_args(arguments)
    cases = 600 if options.cases is None and options.minutes is None else options.cases
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()

    counts: Counter[tuple[str, Outcome]] = Counter()
    bad = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        # A kind that is not chosen keeps its places, so a case has the same number with and without it. Only the
        # collection has no places if it is not chosen, because to write it takes seconds.
        targets = make_targets(folder, with_collection=not options.only or "collection" in options.only)
        numbers = (
            number
            for number in _numbers(options.first, cases, options.minutes)
            if not options.only or targets[number % len(targets)].kind in options.only
        )
        for number, target, ending in run_cases(targets, options.seed, numbers, folder, options.keep):
            counts[target.name, ending.outcome] += 1
            if ending.outcome in BAD:
                bad.append(number)
            if ending.outcome in BAD or options.verbose:
                print(f"{number}: {target.name}: {ending.outcome}: {ending.text}", flush=True)
                print(ending.trace if options.verbose else "", end="")
    print(table(counts))
    chosen = "".join(f" --only {kind}" for kind in options.only or ())
    for number in bad:
        print(f"again: python -m tests.fuzz --seed {options.seed} --first {number} --cases 1{chosen} --verbose")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
