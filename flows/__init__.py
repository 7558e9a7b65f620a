"""Prefect flows: what a person, a schedule or a notification runs. Each module holds one flow."""
