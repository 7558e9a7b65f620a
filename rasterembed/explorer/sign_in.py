"""The sign-in: who may ask the service, if it has a token.

A person gives the token on the sign-in page, and gets a cookie. A program sends the token with every request. The
cookie does not hold the token: it holds a time of expiry and a code (HMAC) that only the owner of the token can
compute. A new token therefore ends all sign-ins, and a restart of the service ends none.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rasterembed.escape import escape_html
from rasterembed.explorer.problems import ProblemError, ProblemType
from rasterembed.explorer.settings import ExplorerSettings, is_loopback
from rasterembed.explorer.single_use import SingleUseCodes
from rasterembed.explorer.small_page import STYLE_SHEET, small_page

COOKIE = "rasterembed-explorer"
"""Beginning of the name of the cookie. Browsers share cookies between all ports of a host, so the port follows it."""

_DAYS = 7
_COOKIE_S = _DAYS * 86_400

_OPEN = frozenset({"/enter", "/health", "/sign-in", "/sign-out", f"/{STYLE_SHEET}"})
"""Addresses that need no sign-in."""

_IN_FRAMES = "; Path=/; HttpOnly; SameSite=None; Secure; Partitioned"
"""Attributes of the cookie for frames. Starlette writes `Partitioned` only with Python 3.14."""

_PAGE = "/"

_MAX_STATE_LETTERS = 8192
"""Longest state of the page that is kept during the sign-in."""

_FORM = """\
<form method="post" action="sign-in">
<p>The token was given when the explorer was started, by <code>--token-file</code> or <code>EXPLORER_TOKEN</code>.
In a notebook, run the cell again instead.</p>
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus{described}>
{problem}<input type="hidden" name="next" value="{state}">
<button type="submit">Sign in</button>
</form>"""

_USED = """\
<p>The address signs one browser in once, within ten minutes.
Run the cell of the notebook again for a new one.</p>"""


class SignIn:
    """Compares tokens, and gives and checks cookies.

    Args:
        settings: the settings of the service.
    """

    def __init__(self, settings: ExplorerSettings) -> None:
        self._token = None if settings.token is None else settings.token.get_secret_value().encode()
        self.cookie = f"{COOKIE}-{settings.port}"
        self.cookie_in_frames = f"{self.cookie}-framed"
        self._in_frames = bool(settings.frame_origins)
        self.codes = SingleUseCodes()

    def accepts(self, token: str) -> bool:
        """Return whether a token is the right one. The time of the comparison does not tell how much of it is right."""
        return self._token is None or hmac.compare_digest(token.encode(errors="surrogatepass"), self._token)

    def knows(self, headers: Headers) -> bool:
        """Return whether a request shows the token or a valid cookie."""
        if self._token is None:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.accepts(token.strip()):
            return True
        return any(self._is_valid(_cookie(headers, name)) for name in (self.cookie, self.cookie_in_frames))

    def give_cookies(self, request: Request, response: Response) -> None:
        """Add the cookies of a sign-in to a response. If the service has no token, add none."""
        if self._token is None:
            return
        expires = str(int(time.time()) + _COOKIE_S)
        value = f"{expires}.{self._code(expires)}"
        is_https = request.url.scheme == "https"
        response.set_cookie(self.cookie, value, max_age=_COOKIE_S, httponly=True, samesite="strict", secure=is_https)
        if self._in_frames and (is_https or is_loopback(request.url.hostname or "")):
            # A frame in a page of another site gets no strict cookie. The browser keeps this one for that site only,
            # and other pages cannot use it, because `CheckedSender` refuses what they send.
            response.headers.append("Set-Cookie", f"{self.cookie_in_frames}={value}; Max-Age={_COOKIE_S}{_IN_FRAMES}")

    def remove_cookies(self, response: Response) -> None:
        """Let a response remove the cookies of a sign-in."""
        response.delete_cookie(self.cookie, httponly=True, samesite="strict")
        if self._in_frames:
            response.headers.append("Set-Cookie", f"{self.cookie_in_frames}=; Max-Age=0{_IN_FRAMES}")

    def _is_valid(self, value: str) -> bool:
        expires, _, code = value.partition(".")
        if not hmac.compare_digest(code.encode(errors="surrogatepass"), self._code(expires).encode()):
            return False
        return int(expires) > time.time()  # The code is right, so the service wrote the number.

    def _code(self, expires: str) -> str:
        assert self._token is not None
        text = f"cookie of the explorer until {expires}".encode(errors="surrogatepass")
        return hmac.new(self._token, text, hashlib.sha256).hexdigest()


class SignedIn:
    """Refuses requests without a sign-in. A person who opens the page gets the sign-in page.

    Args:
        app: the application behind.
        sign_in: compares tokens and cookies.
    """

    def __init__(self, app: ASGIApp, sign_in: SignIn) -> None:
        self._app, self._sign_in = app, sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in _OPEN and not self._sign_in.knows(Headers(scope=scope)):
            await _refusal(scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refusal(scope: Scope) -> Response:
    if scope["path"] == _PAGE and scope["method"] in ("GET", "HEAD"):
        state = _clean(scope["query_string"].decode("ascii", errors="replace"))
        return Response(
            status_code=303, headers={"Location": f"sign-in?next={quote(f'?{state}')}" if state else "sign-in"}
        )
    return ProblemError(
        401,
        ProblemType.SIGN_IN,
        "the token is missing or wrong: sign in at /sign-in, or send the header `Authorization: Bearer TOKEN`",
        {"WWW-Authenticate": "Bearer"},
    ).response_to(scope)


def state_of(next: str) -> str:
    """Return the state of the page that a person wanted to open: the query of its address.

    Only the query is taken, and it is added to the address of the page. So no link leads a person elsewhere.

    Args:
        next: address of the page, as the page and this module give it to the sign-in page.
    """
    return _clean(next.partition("?")[2])


def sign_in_form(state: str, *, is_wrong: bool = False) -> Response:
    """Return the sign-in page.

    Args:
        state: the query of the page's address, which is kept during the sign-in.
        is_wrong: whether the person gave a wrong token.
    """
    problem = '<p class="problem" id="problem" role="alert">This token is wrong. Try again.</p>\n' if is_wrong else ""
    described = ' aria-invalid="true" aria-describedby="problem"' if is_wrong else ""
    form = _FORM.format(state=escape_html(f"?{state}"), problem=problem, described=described)
    return small_page("Sign in to the explorer", form, 401 if is_wrong else 200)


def answer_form(sign_in: SignIn, request: Request, body: bytes) -> Response:
    """Return the answer to a sent sign-in page: the page with a cookie, or the sign-in page again.

    Args:
        sign_in: compares the token.
        request: the request.
        body: the form, as `application/x-www-form-urlencoded`.
    """
    try:
        fields = parse_qs(body.decode("ascii", errors="replace"), max_num_fields=8)
    except ValueError:
        fields = {}
    state = state_of(fields.get("next", [""])[0])
    if not sign_in.accepts(fields.get("token", [""])[0].strip()):
        return sign_in_form(state, is_wrong=True)
    response = Response(status_code=303, headers={"Location": f"./?{state}" if state else "./"})
    sign_in.give_cookies(request, response)
    return response


def sign_out(sign_in: SignIn) -> Response:
    """Return the sign-in page, and remove the cookie."""
    response = Response(status_code=303, headers={"Location": "sign-in"})
    sign_in.remove_cookies(response)
    return response


def enter(sign_in: SignIn, request: Request, code: str, next: str) -> Response:
    """Return the page with a cookie for a code that was not used yet, or a page that says that it was used.

    A browser that is signed in gets the page also for a used code, so a notebook can be opened again.

    Args:
        sign_in: knows the codes.
        request: the request.
        code: the code.
        next: address of the page. See `state_of`.
    """
    is_new = sign_in.codes.take(code)
    if not is_new and not sign_in.knows(request.headers):
        return small_page("This address was used already", _USED, 401)
    response = Response(status_code=303, headers={"Location": f"./?{state_of(next)}"})
    if is_new:
        sign_in.give_cookies(request, response)
    return response


def _clean(state: str) -> str:
    """Return the query of the page's address, if it can be part of a header. Otherwise, the text is empty."""
    usable = len(state) <= _MAX_STATE_LETTERS and state.isascii() and state.isprintable() and " " not in state
    return state if usable else ""


def _cookie(headers: Headers, name: str) -> str:
    """Return the value of a cookie, or an empty text if the request does not have it."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value
