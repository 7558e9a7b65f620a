"""Search engines: ways to find the vectors of a dataset that are nearest to a query.

Each engine is one module with one class that fulfils `rasterembed.search.engines.engine.SearchEngine`.
"""
