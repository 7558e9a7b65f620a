"""The store, which keeps objects in a folder or on S3. Leases on datasets. Access to a store for GDAL and DuckDB."""
