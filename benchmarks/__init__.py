"""Benchmarks of the library. docs/benchmarks.md has the results."""
