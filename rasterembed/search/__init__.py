"""Search in embedded datasets.

The steps of a search, and their modules:

- `query` has the two inputs. A `Query` holds example tiles, places or images. A `Where` holds filters for the answer.
- `searcher` runs the search. `examples`, `chip` and `tile_lookup` turn the examples into one vector. `areas` and
  `filters` apply the filters.
- `engines` has the search engines, which find the nearest vectors.
- `answer` has the answer. `output` and `contact_sheet` write the answer to files,
  and `answer_html` shows it in a notebook. `thumbnails` cuts tiles out of the raster.
- `datasets` chooses the datasets of a search. `not_searched` has the reasons why some are left out.
- `index` builds and opens a vector index, which makes searches in large datasets fast. `index_options` has its
  parameters, and `vector_files` the files from which it is built.
- `batch` answers questions about all tiles: neighbours, duplicates, classes, and a diverse sample.
"""
