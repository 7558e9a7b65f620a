"""Quality checks: measure an embedded dataset, and decide whether people may search it.

Start with `rasterembed.qa.run.run_qa`. The docstring of `rasterembed.qa.metrics` explains how to add a metric.
"""
