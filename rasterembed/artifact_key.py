"""Keys of Prefect's artifacts about datasets and collections. Tasks write them, and the explorer links to them."""

from __future__ import annotations

import re


def artifact_key(kind: str, dataset_id: str) -> str:
    """Return the key of the artifact of a dataset or a collection. Prefect allows only a-z, 0-9 and dashes in a key.

    Args:
        kind: what the artifact shows.
        dataset_id: name of a dataset or a collection, or a pattern for names. The key for all datasets ends with `all`.

    Example:
        >>> artifact_key("dataset", "alps_2026")
        'dataset-alps-2026'
    """
    name = re.sub("[^a-z0-9]", "-", dataset_id.lower()).strip("-") or "all"
    return f"{kind}-{name}"
