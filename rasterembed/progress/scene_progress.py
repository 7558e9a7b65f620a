"""The progress of a run over many scenes: finished scenes, tiles, rate and time left."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rasterembed.dataset.embedding import Progress
from rasterembed.number_text import counted
from rasterembed.progress.pace import Pace


class SceneProgress:
    """Counts the scenes and the tiles of a run. Several threads may use it.

    Args:
        scenes: number of scenes that the run embeds.
        on_change: function that is called, from one thread at a time, with the change of the finished part of the run,
            in scenes. A scene with half of its tiles counts as half a scene.
    """

    def __init__(self, scenes: int, on_change: Callable[[float], object] = lambda _: None) -> None:
        self._scenes, self._begun, self._ended = scenes, 0, 0
        self.failed = 0
        """Number of scenes that failed so far."""
        self._on_change = on_change
        self._shown = 0.0
        self._parts: dict[str, float] = {}
        self._opened: set[str] = set()
        self._tiles = Progress(0)
        self._pace = Pace()
        self._lock = threading.Lock()

    def begin(self, dataset_id: str, progress: Progress) -> None:
        """Follow the tiles of a scene that is about to be computed.

        Args:
            dataset_id: id of the scene's dataset.
            progress: the progress of the scene. Nothing else may use its `on_change`.
        """
        with self._lock:
            self._begun += 1
            self._opened.add(dataset_id)
            self._tiles.total += progress.total
        computed = 0

        def changed(tiles: int) -> None:
            nonlocal computed
            # Tiles that an earlier run computed do not change this number.
            found = progress.computed == computed
            computed = progress.computed
            self._tiles.add(tiles, found=found)
            with self._lock:
                self._parts[dataset_id] = progress.shown / max(progress.total, 1)
                self._tell()

        progress.on_change = changed

    def end(self, dataset_id: str, *, failed: bool = False) -> None:
        """Count a scene that is embedded or failed.

        Args:
            dataset_id: id of the scene's dataset.
            failed: whether the scene failed.
        """
        with self._lock:
            self._ended += 1
            self.failed += failed
            self._parts.pop(dataset_id, None)
            self._tell()
            self._opened.add(dataset_id)  # A scene that was already complete, or cannot be read, was never begun.

    def _tell(self) -> None:
        """Call `on_change`, if the finished part has changed. The caller holds the lock."""
        shown = self._ended + sum(self._parts.values())
        change, self._shown = shown - self._shown, shown
        if change:
            self._on_change(change)

    def describe(self, now: float) -> str:
        """Return numbers of scenes and tiles, the rate and the time left, as text for people.

        The number of tiles of a scene is known as soon as the scene is opened. Each of the other scenes counts as the
        mean of the scenes that were begun.

        Args:
            now: time of a monotonic clock in seconds, later than in the call before.
        """
        with self._lock:
            text = f"{self._ended:,} of {counted(self._scenes, 'scene')}"
            if self.failed:
                text += f", {self.failed:,} failed"
            if not self._begun:
                return text
            waiting = self._scenes - len(self._opened)
            total = self._tiles.total + round(self._tiles.total * waiting / self._begun)
        tiles = Progress(total, done=self._tiles.done, computed=self._tiles.computed)
        guessed = f" (estimated for {waiting:,} of {counted(self._scenes, 'scene')})" if waiting else ""
        return f"{text}, {self._pace.describe(tiles, now)}{guessed}"
