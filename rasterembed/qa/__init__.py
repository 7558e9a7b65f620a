"""Quality checks: measure an embedded dataset, and decide whether people may search it.

`rasterembed.qa.run.run_qa` is the entry point. To add a metric, see `rasterembed.qa.metrics`.
"""
