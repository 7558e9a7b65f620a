"""A made-up landscape as a georeferenced raster, for the demo, the tests and the benchmarks.

The scene is built as a landscape is: relief first, water where it is low, then land use in parcels
and street blocks, then what stands on the ground (crowns, roofs, rock steps) as a height model.
One sun lights that height model, so that shading and cast shadows agree everywhere.
"""

from examples.landscape.classes import CLASSES
from examples.landscape.files import Scene, make_scene

__all__ = ["CLASSES", "Scene", "make_scene"]
