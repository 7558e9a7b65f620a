"""Programs for deployment. Run them in the repository root, for example `python -m scripts.deploy`."""
