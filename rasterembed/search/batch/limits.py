"""Defaults and limits of the questions about all tiles. This module does not import FAISS, which takes long."""

DEFAULT_NEIGHBOURS = 10
"""Default number of neighbours of a tile."""

MAX_NEIGHBOURS = 100
"""Largest number of neighbours of a tile."""

DEFAULT_THRESHOLD = 0.01
"""Default of the largest cosine distance between a tile and the tile that stands for it."""

DEFAULT_CLASSES = 12
"""Default number of classes."""

MAX_CLASSES = 1000
"""Largest number of classes."""

DEFAULT_SAMPLE = 50
"""Default number of chosen tiles."""

MAX_SAMPLE = 5000
"""Largest number of chosen tiles. Each takes a pass over all vectors."""

DEFAULT_VALID_FRACTION = 0.9
"""Default of the smallest share of valid pixels. Tiles at gaps in the data are far from all others, so many of them
would be chosen."""
