"""Rasters: what is in a file, which windows are tiles, where they are on Earth, and their pixels."""
