"""Measurements of the library; see docs/benchmarks.md."""
