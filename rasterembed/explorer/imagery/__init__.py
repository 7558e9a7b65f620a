"""The rasters of datasets as map tiles and thumbnails, in the colours of the model's input."""
