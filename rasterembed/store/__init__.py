"""Where datasets live: the object store, its layout, leases, and reading it with GDAL and DuckDB."""
