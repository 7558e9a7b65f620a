"""The steps of the flows as Prefect tasks: the library's functions with retries, names, artifacts and progress."""
