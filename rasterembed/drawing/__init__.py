"""Draw figures: the parts that the pictures of quality reports and of batched searches have in common.

`figure` has size, colours, title and caption of a figure. `raster_map` draws a map with a cell for each tile of a
raster. `place_map` draws a map in longitude and latitude.
"""
