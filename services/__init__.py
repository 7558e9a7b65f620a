"""Long-running processes beside Prefect's own."""
