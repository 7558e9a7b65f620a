"""Programs for people who deploy: run them from the repository root, as `python -m scripts.deploy`."""
