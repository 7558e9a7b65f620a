"""Prefect flows. A person, a schedule or a notification starts them. Each module holds one flow."""
