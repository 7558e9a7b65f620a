"""Search engines. An engine finds the vectors of a dataset that are nearest to a query.

Each engine is one module with one class. The class implements `rasterembed.search.engines.engine.SearchEngine`.
`rasterembed.search.engines.index_first` chooses the engine of a query.
"""
