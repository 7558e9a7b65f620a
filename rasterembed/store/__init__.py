"""The store: it keeps objects under keys. This package also holds leases, and lets GDAL and DuckDB read a store."""
