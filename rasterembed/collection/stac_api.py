"""Find Items by a search of a STAC API.

pystac-client knows the protocol: how a search is sent, and how the pages of the answer follow each other. Each of its
requests is sent by the source store's client, which checks every host and every redirect. Its own HTTP session is never
used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from rasterembed.collection.stac_search import StacSearch
from rasterembed.errors import DataError, RasterEmbedError, StoreError, UsageError, one_line
from rasterembed.store.https_url import canonical_url, is_https, joined_url, shown_url
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO


MAX_PAGE_BYTES = 64 * 2**20
"""Largest size of one answer of a STAC API. 250 Items have about 5 MB."""

MAX_ITEMS = 1_000_000
"""Largest number of Items that a search may find."""

MOST_EMPTY_PAGES = 10
"""Largest number of empty pages in a row. Some servers name a next page for ever."""

_OPERATORS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
"""Operators of CQL2 for those of the query extension."""


class _TooManyEmptyPagesError(Exception):
    """The server sent `MOST_EMPTY_PAGES` empty pages in a row, and named a next page."""


def search_items(store: ObjectStore, api: str, search: StacSearch) -> Generator[tuple[str, dict[str, Any]], None, bool]:
    """Yield the address and the content of each Item that a STAC API finds. Only one page is in memory at a time.

    Args:
        store: its source store lists the hosts that may be read.
        api: https:// address of the STAC API's first page.
        search: the search.

    Returns:
        Whether the search ended early: the server named a next page, but sent too many empty pages in a row.

    Raises:
        UsageError: if the API has no such search.
        DataError: if the address is no STAC API, or its answer cannot be read.
        StoreError: if a host may not be read, or the server refuses.
        StoreUnavailableError: if the server does not answer.
    """
    # This import takes half a second.
    from pystac_client import Client

    shown = shown_url(api)
    try:
        client = Client.open(api, stac_io=_checked_io(store, api))
    except RasterEmbedError:
        raise
    except Exception as error:  # pystac raises many kinds of errors for documents of another kind.
        raise DataError(f"{shown}: it is no STAC API ({one_line(error)}): give its first page") from error
    conditions = _conditions(client, api, search)
    count = 0
    try:
        pages = client.search(method=_method(client), limit=search.limit, **conditions).pages_as_dicts()
        for page in pages:
            for item in page["features"]:
                count += 1
                if count > MAX_ITEMS:
                    raise DataError(f"{shown}: the search finds more than {MAX_ITEMS} Items: divide it")
                yield _address(api, item), item if isinstance(item, dict) else {}
    except RasterEmbedError:
        raise
    except _TooManyEmptyPagesError:
        return True
    except Exception as error:
        raise DataError(f"{shown}: its answer is no page of STAC Items ({one_line(error)})") from error
    return False


def _conditions(client: Client, api: str, search: StacSearch) -> dict[str, Any]:
    """Return the parameters of the search in a form that this API understands.

    A server may ignore a parameter that it does not know, and would then find too much. So a condition is sent only to
    a server that declares the extension for it.
    """
    from pystac_client import ConformanceClasses

    values = search.parameters()
    if not client.conforms_to(ConformanceClasses.ITEM_SEARCH):
        raise DataError(f"{shown_url(api)}: it is a STAC catalog without a search: give the address of its document")
    can_filter = client.conforms_to(ConformanceClasses.FILTER)
    if "filter" in values and not can_filter:
        raise UsageError(f"{shown_url(api)}: this server has no filter extension: use `query` in place of `filter`")
    if "query" in values and not client.conforms_to(ConformanceClasses.QUERY):
        if not can_filter:
            raise UsageError(f"{shown_url(api)}: this server has neither the query extension nor the filter extension")
        both = [as_cql2(values.pop("query")), *([values["filter"]] if "filter" in values else [])]
        values["filter"] = both[0] if len(both) == 1 else {"op": "and", "args": both}
    if "filter" in values:
        values["filter_lang"] = "cql2-json"
    return values


def as_cql2(query: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return conditions of the STAC API query extension as CQL2 JSON.

    Source: STAC API query extension 1.0, and OGC Common Query Language 21-065r2.

    Args:
        query: operators and values by property.

    Raises:
        UsageError: if a text holds a wildcard of CQL2, which `startsWith`, `endsWith` and `contains` would mean.

    Example:
        >>> as_cql2({"eo:cloud_cover": {"lt": 10}})
        {'op': '<', 'args': [{'property': 'eo:cloud_cover'}, 10]}
    """
    found = [_condition(name, operator, value) for name, each in query.items() for operator, value in each.items()]
    return found[0] if len(found) == 1 else {"op": "and", "args": found}


def _condition(name: str, operator: str, value: Any) -> dict[str, Any]:
    left = {"property": name}
    if operator in _OPERATORS:
        return {"op": _OPERATORS[operator], "args": [left, value]}
    if operator == "in":
        return {"op": "in", "args": [left, value]}
    if any(mark in str(value) for mark in "%_\\"):
        raise UsageError(f"`search`: {operator} {str(value)[:40]!r} has a wildcard (%, _ or \\): use `filter` instead")
    pattern = {"startsWith": f"{value}%", "endsWith": f"%{value}", "contains": f"%{value}%"}[operator]
    return {"op": "like", "args": [left, pattern]}


def _method(client: Client) -> str:
    """Return POST if the API offers it, else GET."""
    links = [link for link in client.links if link.rel == "search"]
    offered = {str(link.extra_fields.get("method", "GET")).upper() for link in links}
    return "POST" if "POST" in offered else "GET"


def _address(api: str, item: Any) -> str:
    """Return the address of an Item: that of its link `self`, else the place where an API keeps it."""
    links = item.get("links") if isinstance(item, dict) else None
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "self" and is_https(str(link.get("href"))):
            try:
                return canonical_url(str(link["href"]))
            except UsageError:
                break
    name, collection = (
        quote(str(item.get(field))[:1000] if isinstance(item, dict) else "", safe="", errors="replace")
        for field in ("id", "collection")
    )
    return f"{api.rstrip('/')}/collections/{collection}/items/{name}"


def _checked_io(store: ObjectStore, api: str) -> StacApiIO:
    """Return the input and output of pystac-client, which sends every request by the source store's client.

    Args:
        store: its source store lists the hosts that may be read.
        api: https:// address of the STAC API's first page.
    """
    from pystac import Link
    from pystac_client.stac_api_io import StacApiIO

    class CheckedIO(StacApiIO):
        def __init__(self) -> None:
            super().__init__(max_retries=None)
            self._sent: set[bytes] = set()

        def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
            # The base class would open a text that is no URL as a local file.
            if isinstance(source, Link):
                return super().read_text(source, *args, **kwargs)
            return self.request(str(source), *args, **kwargs)

        def request(
            self,
            href: str,
            method: str | None = None,
            headers: dict[str, str] | None = None,
            parameters: dict[str, Any] | None = None,
        ) -> str:
            # Headers that a link asks for are not sent: a server must not choose them.
            url = joined_url(f"{api.rstrip('/')}/", href)
            body = None
            if method == "POST":
                body = json.dumps(parameters or {}).encode()
            elif parameters:
                url += ("&" if urlsplit(url).query else "?") + urlencode(parameters)
            digest = hashlib.sha256(url.encode(errors="surrogatepass") + b"\0" + (body or b"")).digest()
            if digest in self._sent:
                raise DataError(f"{shown_url(api)}: the pages of its answer are a circle")
            self._sent.add(digest)
            return _fetch(store, url, body)

        def get_pages(
            self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
        ) -> Iterator[dict[str, Any]]:
            # The base class ends at the first empty page. Some servers cut the answer into pages and filter each page
            # afterwards, so a page in the middle can be empty. The scenes on later pages would then be called gone.
            page, empty = self.read_json(url, method=method, parameters=parameters), 0
            while True:
                empty = 0 if page.get("features") else empty + 1
                if not empty:
                    yield page
                following = next((link for link in page.get("links", []) if link["rel"] == "next"), None)
                if following is None:
                    return
                if empty == MOST_EMPTY_PAGES:
                    raise _TooManyEmptyPagesError
                page = self.read_json(Link.from_dict(following), parameters=parameters)

    return CheckedIO()


def _fetch(store: ObjectStore, url: str, body: bytes | None) -> str:
    from rasterembed.store.https_answer import decoded

    headers = {"Accept": "application/geo+json, application/json", "Accept-Encoding": "gzip"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    answer = store.https.request(url, headers=headers, body=body, most=MAX_PAGE_BYTES)
    if not answer.complete:
        raise StoreError(
            f"{shown_url(url)}: the answer has more than {MAX_PAGE_BYTES // 2**20} MiB: use a lower `limit`"
        )
    try:
        return decoded(answer, MAX_PAGE_BYTES).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{shown_url(url)}: the answer is not UTF-8") from error
