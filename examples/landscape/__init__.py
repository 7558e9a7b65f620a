"""Generate a landscape as a georeferenced raster, for the demo, the tests and the benchmarks.

A scene is built in the same order as a real landscape:

1. relief, with lakes in low places, and a river (`terrain.py`);
2. districts between roads, and their parcels and street blocks (`districts.py`);
3. a class for every pixel (`land_use.py`);
4. colour and height of the ground for each class (`ground.py`), and trees (`crowns.py`);
5. a photograph: one sun lights the height model, so that shading and cast shadows agree (`landscape.py`, `light.py`).

`files.py` writes the scene and its classes as Cloud Optimized GeoTIFFs. `second_date.py` writes a part of the scene as
a second scene, with some changed ground.
"""

from examples.landscape.classes import CLASSES
from examples.landscape.files import Scene, make_scene
from examples.landscape.second_date import make_second_date

__all__ = ["CLASSES", "Scene", "make_scene", "make_second_date"]
