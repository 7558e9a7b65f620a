"""Types of the arrays that a scene is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
Shape = tuple[int, int]
Colour = Sequence[float]


def clip(values: npt.NDArray[np.floating[Any]], low: float, high: float) -> F32:
    """Return `np.clip` of float32 values, typed as float32. NumPy's type annotations wrongly say float64."""
    clipped: F32 = np.clip(values, low, high)
    return clipped
