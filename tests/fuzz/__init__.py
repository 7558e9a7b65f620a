"""Damage files at random and see how the project takes it: `python -m tests.fuzz`. See `docs/development.md`."""
