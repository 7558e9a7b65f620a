"""Search in embedded datasets.

A `Query` shows examples of what to look for, and a `Where` says which tiles may answer (`query`). The `searcher` turns
the examples into one vector (`examples`, `chip`, `tile_lookup`) and `Where` into filters (`areas`, `filters`). It asks
a search engine for the nearest vectors (`engines`) and returns an answer (`answer`), which `output` and `contact_sheet`
write to files. `vector_index` builds the index that makes search in large datasets fast, and `index_file` finds it.
"""
