"""Store the records that can never become a run.

If the webhook refused these records, they would block the S3 server's ordered queue. If it dropped them, they would be
lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from rasterembed.store.layout import dead_letter
from rasterembed.store.object_store import ObjectStore


async def bury(store: ObjectStore, record: dict[str, Any], reason: str) -> str:
    """Store a record with the reason, and return its URI. Equal records share one object.

    Raises:
        StoreError: if the store refuses the record.
    """
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    key = dead_letter(digest)
    letter = {"reason": reason, "received": datetime.now(UTC).isoformat(), "record": record}
    await asyncio.to_thread(store.write, key, json.dumps(letter, indent=1).encode())
    return store.uri(key)
