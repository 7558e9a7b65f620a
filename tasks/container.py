"""Find out whether a flow run is in a container that a worker started."""

from __future__ import annotations

import os
from pathlib import Path

from prefect.runtime import deployment

_MARKS = ("/.dockerenv", "/run/.containerenv")
"""Files that Docker and Podman put into each container."""


def is_worker_container() -> bool:
    """Return whether a worker started this flow run in a container.

    The local files of this container are lost when the run ends. If a person started the container, the answer is
    False, because folders of the host may be mounted, and files in these folders are kept.
    """
    in_container = "KUBERNETES_SERVICE_HOST" in os.environ or any(Path(mark).exists() for mark in _MARKS)
    return in_container and deployment.id is not None
