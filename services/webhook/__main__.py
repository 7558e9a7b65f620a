"""Run the upload webhook:

    UPLOAD_WEBHOOK_TOKEN=... UPLOAD_WEBHOOK_ROOT=s3://... PREFECT_API_URL=... python -m services.webhook

docs/uploads.md lists the settings.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import cast

import cyclopts
import uvicorn

from rasterembed.http_connections import Connections, GuardedProtocol, fit_descriptors
from rasterembed.log_limit import limit_repeats
from services.webhook.app import create_app
from services.webhook.settings import Settings, SettingsError


def serve(*, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Start flow runs for the uploads that an S3 server announces, until the process is stopped.

    Args:
        host: Address to listen on. 0.0.0.0 listens on all addresses of the machine.
        port: Port to listen on.
    """
    try:
        settings = Settings.read()
    except SettingsError as error:
        print(f"error: wrong settings: {error}", file=sys.stderr)
        sys.exit(2)
    limit, backlog = fit_descriptors(settings.max_connections)
    connections = Connections(limit, settings.head_timeout_s, settings.body_timeout_s)
    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        loop="asyncio",
        http=cast(type[asyncio.Protocol], partial(GuardedProtocol, connections=connections)),
        ws="none",
        backlog=backlog,
        # The metrics count requests. A line for each request would let anyone fill the disk.
        access_log=False,
    )
    # `Config` has set up uvicorn's loggers. Asyncio's logger reports connections that could not be accepted.
    limit_repeats(("uvicorn.error", "asyncio"))
    uvicorn.Server(config).run()


if __name__ == "__main__":
    cyclopts.run(serve)
