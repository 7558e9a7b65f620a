"""The tiles of a dataset or a collection as map tiles of flat colours, as outlines, and as a list at a place."""
