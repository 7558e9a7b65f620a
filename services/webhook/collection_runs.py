"""Let many notifications of uploads into a collection share one question to Prefect."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from rasterembed.store.collection_rules import CollectionRule
from services.webhook.prefect_api import PrefectApi

_Answer = asyncio.Task[tuple[str, bool]]


class CollectionRuns:
    """Starts the runs of collections.

    A burst of uploads brings hundreds of notifications in seconds. Each of them needs a run that begins later than the
    notification. All notifications that arrive while a question is under way share the next question.
    """

    def __init__(self, prefect: PrefectApi) -> None:
        self._prefect = prefect
        self._current: dict[CollectionRule, _Answer] = {}
        self._next: dict[CollectionRule, _Answer] = {}

    async def start(self, rule: CollectionRule) -> tuple[str, bool]:
        """Return the id of a run that lists the rule's prefix later than now, and whether this call created the run.

        Raises:
            HopelessRecordError: if the deployment refuses the parameters.
            PrefectUnavailableError: if Prefect does not answer, or if the deployment does not exist.
        """
        shared = self._next.get(rule)
        if shared is not None:
            return (await asyncio.shield(shared))[0], False
        asked = asyncio.create_task(self._ask(rule, self._current.get(rule)))
        self._next[rule] = asked
        return await asyncio.shield(asked)

    async def _ask(self, rule: CollectionRule, before: _Answer | None) -> tuple[str, bool]:
        """Ask Prefect when the question before has been answered."""
        if before is not None:
            with suppress(Exception):  # Those who asked it get the error.
                await before
        # From here on, a notification might be later than the answer. It must ask anew.
        self._current[rule] = self._next.pop(rule)
        return await self._prefect.start_for_collection(rule)
