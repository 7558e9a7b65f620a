"""Rasters: what is in a file, which windows are tiles, where they are on Earth, and their pixels.

In the order of a run: `source` identifies a raster, `drivers` opens it, `profile` reads its header (with `crs_files`,
`place_on_earth` and `acquisition_time`). `grid` says which windows are tiles and `sharding` deals them to shards.
`radiometry` chooses how values become colour. `shard_reader` reads the tiles of a shard (`pixels`) in batches
(`tile_batch`), in a thread of its own (`read_ahead`), and says which tiles it skipped (`skip_reason`). `georeference`
turns pixel positions into longitude and latitude, and `footprints` computes the outlines of tiles from it (`rings`).
"""
