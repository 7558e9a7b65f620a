"""The steps as Prefect sees them: one thin module a step."""
