"""Rasters: headers, tiles, pixels, and places on Earth.

The modules in the order of a run:

1. `source` identifies a raster. `tiff_file` and `crs_files` check its file. `drivers` opens it with GDAL, and
   `georeference_warning` hides a warning of rasterio.
2. `profile` reads the header, with `acquisition_time` and `place_on_earth`. `validity` adds what a person declared.
3. `grid` divides the raster into tiles. `sharding` divides the tiles into shards.
4. `radiometry` chooses how pixel values become colours. `stretch_check` warns if black and white do not fit the pixels.
   `resembling` finds rasters that become nearly the same colours.
5. `shard_reader` reads the tiles of a shard in batches, with `pixels` and `tile_batch`. `read_ahead` runs it in a
   separate thread. `jpeg_damage` turns damaged JPEG blocks into errors. `skip_reason` names the reasons why a tile is
   skipped.
6. `georeference` converts pixel positions to longitude and latitude, with `map_domain`. `footprints` computes the
   outlines of tiles on the ground, with `outlines` and `rings`.
"""
