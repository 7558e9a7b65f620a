"""Search in embedded datasets.

The steps of a search, and their modules:

- `query` has the two inputs. A `Query` holds example tiles, places or images. A `Where` holds filters for the answer.
- `searcher` runs the search in datasets, and `collection_searcher` in the table of a collection. `open_searcher` opens
  the one or the other. `examples`, `chip`, `tile_lookup` and `table_tiles` turn the examples into one vector.
- `filters` has the filters for the tiles of a dataset, and `table_filters` those for a collection. `areas` and
  `class_tiles` read the files that filters name. `filter_columns` finds the rows of a vector index that pass, and
  `row_selection` holds them.
- `engines` has the search engines, which find the nearest vectors. `indexed_search` chooses between vector index and
  exact scan. `rerank` computes the distances of the answer.
- `answer` has the answer. `output` and `contact_sheet` write the answer to files, and `answer_html` shows it in a
  notebook. `thumbnails` cuts tiles out of the raster, and `picture_sheet` draws them with captions. `why_no_scene` and
  `why_no_tile` say which filters left an answer empty.
- `datasets` chooses the datasets of a search. `not_searched` has the reasons why some are left out. `newest` opens what
  a run replaces at the same time. `radiometry_groups` warns of datasets that were stretched differently.
- `next_search` gives the command that searches a new dataset or collection.
- `index` builds and opens a vector index, which makes searches in large datasets fast. `index_options` has its
  parameters, and `vector_files` the files from which it is built.
- `batch` answers questions about all tiles: neighbours, duplicates, classes, and a diverse sample.
"""
