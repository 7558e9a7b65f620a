"""Find out whether the scenes of a run get different black and white, so that their vectors cannot be compared."""

from __future__ import annotations

import threading

from rasterembed.dataset.plan import Plan
from rasterembed.raster.radiometry import PRESETS
from rasterembed.raster.resembling import RasterColours


class ComparedColours:
    """Compares the radiometry of scenes with that of the first one. Several threads may use one object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: tuple[str, RasterColours] | None = None
        self._said = False

    def warning(self, plan: Plan) -> str | None:
        """Return a warning if this scene is the first one that differs from the first scene, else None.

        The preset of a sensor gives the same reflectance black and white in all scenes, so such scenes do not differ.

        Args:
            plan: the plan of the scene.
        """
        uri, colours = plan.source.uri, RasterColours.of(plan.profile, plan.radiometry)
        with self._lock:
            if self._first is None:
                self._first = uri, colours
            other, known = self._first
            method = known.radiometry.method
            same_preset = colours.radiometry.method == method and method in PRESETS
            if self._said or same_preset or known.resembles(colours):
                return None
            self._said = True
        what, advice = "black and white", "the `range` of values or the `scale` of the sensor, or with `stretch_of`"
        if not known.has_channels_of(colours):
            what, advice = "bands as colours", "`bands`, or leave out the scenes without these bands"
        return (
            f"the scenes have different {what}, so the same ground has different colours and vectors in them: "
            f"{other} has {known.radiometry.describe()}, and {uri} has {plan.radiometry.describe()}. To compare "
            f"scenes, embed a new collection with {advice}"
        )
