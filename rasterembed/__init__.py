"""From any georeferenced raster to a searchable table of DINOv3 tile embeddings."""
