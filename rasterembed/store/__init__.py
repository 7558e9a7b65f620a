"""The store: where objects are, their keys, leases on datasets, and how GDAL and DuckDB read from it."""
