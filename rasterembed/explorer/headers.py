"""Headers of every answer, and checks of the headers of every request."""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rasterembed.explorer.problems import ProblemError, ProblemType, problem_of
from rasterembed.explorer.settings import ExplorerSettings, is_loopback, origin_of

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
"""A header Host: a name or an address, and perhaps a port."""

_PERMISSIONS = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"


def security_policy(settings: ExplorerSettings) -> str:
    """Return the Content-Security-Policy of the page: only files of this service, and the tiles of the base map."""
    basemap = settings.basemap_origin
    others = f" {basemap}" if basemap else ""
    frames = " ".join(["'self'", *settings.frame_origins])
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:{others}; "
        f"connect-src 'self'{others}; worker-src 'self'; font-src 'self'; manifest-src 'self'; form-action 'self'; "
        f"base-uri 'none'; frame-ancestors {frames}"
    )


class SecurityHeaders:
    """Adds the security headers to every answer, also to that of an unexpected error.

    Args:
        app: the application behind.
        settings: the settings of the service.
    """

    def __init__(self, app: ASGIApp, settings: ExplorerSettings) -> None:
        self._app = app
        self._headers = {
            "Content-Security-Policy": security_policy(settings),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": _PERMISSIONS,
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            return  # Nobody waits for an answer.
        except Exception as error:
            # Starlette's own answer to an unexpected error would lack the headers.
            if started:
                raise
            await problem_of(error).response_to(scope)(scope, receive, send_with_headers)


class CheckedSender:
    """Refuses requests for other hosts, and requests of pages of other origins.

    A page of another host can make the browser send requests to an address of this machine. With DNS rebinding, the
    host's name even points to this machine, so that the page may read the answers. The name is in the header Host.

    Args:
        app: the application behind.
        settings: the settings of the service.
    """

    def __init__(self, app: ASGIApp, settings: ExplorerSettings) -> None:
        self._app = app
        self._allowed = frozenset(name.lower() for name in settings.allowed_hosts)
        self._hosts = self._allowed | {settings.host.lower()}
        # With a token, another host's page can do nothing: browsers give the cookie only to the host that set it.
        self._any_host = settings.token is not None and not settings.allowed_hosts and not is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "http":
            problem = self._why_refused(scope["method"], scope["path"], Headers(scope=scope))
            if problem is not None:
                await problem.response_to(scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _why_refused(self, method: str, path: str, headers: Headers) -> ProblemError | None:
        host = headers.get("host", "")
        name = host_name(host)
        if name is None or not (self._any_host or is_loopback(name) or name in self._hosts):
            return ProblemError(
                421,
                ProblemType.WRONG_HOST,
                f"the host {host!r} is not served: use the address that `rasterembed explore` printed, or allow the "
                "name with --allowed-host",
            )
        if method in _SAFE_METHODS:
            return _why_not_read(path, headers)
        origin = headers.get("origin")
        if origin is None:
            # Programs send neither header. Every browser sends one of them.
            is_own = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        else:
            is_own = self._is_own(origin, host)
        if is_own:
            return None
        sender = "another origin" if origin is None else repr(origin)
        return ProblemError(
            403, ProblemType.WRONG_ORIGIN, f"a page of {sender} sent the request: only the explorer's page may send it"
        )

    def _is_own(self, origin: str, host: str) -> bool:
        """Return whether an origin is that of this service. A proxy with TLS has another scheme."""
        known = origin_of(origin)
        if known is None:
            return False
        authority = known.partition("://")[2].lower()
        return authority == host.lower() or host_name(authority) in self._allowed


def _why_not_read(path: str, headers: Headers) -> ProblemError | None:
    """Return why a request that changes nothing is refused, or None if it is not.

    A page of another site cannot read the answers. But its pictures and scripts could make the service draw for hours.
    Such a page may show a link to the explorer, and a notebook may show the page of the explorer in a frame.
    """
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):  # Programs do not send this header.
        return None
    is_opened = headers.get("sec-fetch-mode") == "navigate"
    if is_opened and (headers.get("sec-fetch-dest") == "document" or not path.startswith("/api")):
        return None
    return ProblemError(
        403, ProblemType.WRONG_ORIGIN, "a page of another origin sent the request: only the explorer's page may send it"
    )


def host_name(host: str) -> str | None:
    """Return the name in a header Host without its port, in lower case. None if the header is wrong.

    Example:
        >>> host_name("LocalHost:8765"), host_name("[::1]:8765"), host_name("a b")
        ('localhost', '[::1]', None)
    """
    found = _HOST.fullmatch(host)
    return None if found is None else found[1].lower().removesuffix(".")
