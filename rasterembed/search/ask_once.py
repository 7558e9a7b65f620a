"""Answer one question of a notebook: the method `search` of a dataset and of a collection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rasterembed.errors import UsageError, check_type, one_line
from rasterembed.search.answer import Answer
from rasterembed.search.query import DEFAULT_K, Query, Where

if TYPE_CHECKING:
    from rasterembed.search.collection_searcher import CollectionSearcher
    from rasterembed.search.searcher import Searcher


def ask_once(
    open_searcher: Callable[[], Searcher | CollectionSearcher],
    query: Query | None,
    where: Where | None,
    k: int | None,
    vector: ArrayLike | None,
) -> Answer:
    """Open a searcher, ask it for the tiles nearest to a query or a vector, and close it.

    Args:
        open_searcher: function that opens the searcher.
        query: an example. Give either `query` or `vector`.
        where: filters for the tiles of the answer. None means that every tile may be in the answer.
        k: number of tiles. None means `DEFAULT_K`.
        vector: a vector, shape (dimensions,).

    Raises:
        UsageError: if a parameter has a wrong type, or if not exactly one of `query` and `vector` is given.
    """
    if query is not None:
        check_type(query, Query, "query", 'a Query, such as Query(tile="r000000_c000000")')
    if where is not None:
        check_type(where, Where, "where", "a Where, such as Where(min_valid_fraction=0.9)")
    count = DEFAULT_K if k is None else k
    with open_searcher() as searcher:
        if query is None and vector is not None:
            try:
                values = np.asarray(vector)
            except ValueError as error:
                raise UsageError(f"the vector is no list of numbers: {one_line(error)}") from error
            return searcher.ask_vector(values, where or Where(), count)
        if query is not None and vector is None:
            return searcher.ask(query, where or Where(), count)
    raise UsageError("give a query or a vector to search for, and not both")
