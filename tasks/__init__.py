"""The steps of the flows as Prefect sees them: retries, names, artifacts and progress around the library."""
