"""The upload webhook: notifications of an S3 server start flow runs. `app` is the service; docs/uploads.md."""
