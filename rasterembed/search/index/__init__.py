"""The vector index of a dataset or of a collection's table: a folder with `index.json` and immutable segments."""
