"""Find out whether a flow run is in a container that a worker started."""

from __future__ import annotations

import os
from pathlib import Path

from prefect.runtime import deployment

_MARKS = ("/.dockerenv", "/run/.containerenv")
"""Files that Docker and Podman put into each container."""


def is_worker_container() -> bool:
    """Return whether a worker started this flow run in a container.

    The local files of such a container are lost when the run ends. In a container that a person started, folders of the
    host may be mounted, so that its local files can be kept.
    """
    in_container = "KUBERNETES_SERVICE_HOST" in os.environ or any(Path(mark).exists() for mark in _MARKS)
    return in_container and deployment.id is not None
