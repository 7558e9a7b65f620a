"""The upload webhook: notifications of an S3 server start flow runs. `python -m services.webhook`; docs/uploads.md."""
