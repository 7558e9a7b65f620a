"""Find out whether the black and white that a person gave fit the scenes of a run."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from rasterembed.dataset.plan import Plan
from rasterembed.raster.stretch_check import StretchProblem, doubtful_stretch
from rasterembed.store.object_store import ObjectStore

CHECKED_SCENES = 20
"""Largest number of scenes that are checked. Each check reads a sample of the scene's pixels. Black and white that are
wrong for a sensor fit none of its scenes, so the first scenes tell it."""


class CheckedStretches:
    """Counts the scenes whose pixels black and white do not fit. Several threads may use one object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = self._ended = 0
        self._problems: Counter[StretchProblem] = Counter()

    def warning(self, store: ObjectStore, plan: Plan) -> str | None:
        """Return a warning if this scene is the first one with its problem, else None.

        Args:
            store: gives the credentials for a scene on S3.
            plan: the plan of the scene. A person gave its black and white.
        """
        with self._lock:
            if self._begun == CHECKED_SCENES:
                return None
            self._begun += 1
        doubt = doubtful_stretch(store, plan.source.uri, plan.profile.original, plan.radiometry)
        with self._lock:
            self._ended += 1
            if doubt is None:
                return None
            self._problems[doubt.problem] += 1
            return doubt.text if self._problems[doubt.problem] == 1 else None

    def counts(self) -> Iterator[str]:
        """Yield a sentence for each problem that several scenes have. Call this after the last scene."""
        for problem, count in self._problems.items():
            if count > 1:
                yield f"black and white {problem} in {count} of the {self._ended} scenes that were checked"
