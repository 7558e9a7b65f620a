"""Measurements of the library; see docs/performance.md."""
