"""Benchmarks of the library. Their results are in docs/benchmarks.md."""
