"""Datasets: the plan, the shards, the tile index, the manifest and the STAC Item."""
