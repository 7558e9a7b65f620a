"""Search engines. An engine finds the vectors of a dataset that are nearest to a query.

Each engine is one module: `scan`, `flat`, `ivf` and `vss`. `engine` holds their protocols. `codes` writes and opens the
compressed vectors of `flat` and `ivf`.
"""
