"""A browser for tests of pages: Debian's Chromium with Playwright. Each page records everything that goes wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, sync_playwright

from tests.support.explorer import install

DESKTOP = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 844}
"""Size of the window in CSS px, of a small desktop and of a phone."""

_FLAGS = (
    "--no-sandbox",  # The sandbox does not start as root.
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card.
    "--hide-scrollbars",
)

_IN_SOFTWARE = ("--disable-gpu-compositing",)
_BY_SWIFTSHADER = ("--use-angle=swiftshader", "--ignore-gpu-blocklist")

_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
    console.error(`CSP violation: ${event.violatedDirective} refused ${event.blockedURI}`));
"""


@contextmanager
def chromium(*, for_pictures: bool = False) -> Iterator[Browser]:
    """Run headless Chromium. It is installed from Debian's packages if it is missing and this is root.

    Args:
        for_pictures: Let SwiftShader, a graphics card in software, compose the pages. Each frame then takes 100 to
            200 ms. Otherwise, Chromium composes them as it does without a graphics card. With two device pixels for
            each CSS pixel, it then leaves a band of a WebGL canvas empty.
    """
    command = install("chromium", "chromium")
    flags = [*_FLAGS, *(_BY_SWIFTSHADER if for_pictures else _IN_SOFTWARE)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watch:
    """Everything that went wrong in the pages of one test."""

    origin: str
    """Address of the service. A request to another host is a problem."""
    problems: list[str] = field(default_factory=list)
    _expected: list[re.Pattern[str]] = field(default_factory=list)

    def expect(self, *patterns: str) -> None:
        """Allow problems that match one of these regular expressions, because the test causes them."""
        self._expected += [re.compile(pattern) for pattern in patterns]

    def unexpected(self) -> list[str]:
        """Return the problems that the test did not expect."""
        return [text for text in self.problems if not any(known.search(text) for known in self._expected)]

    def attach(self, context: BrowserContext) -> None:
        """Record the problems of all pages of a context."""
        context.add_init_script(_REPORT_VIOLATIONS)
        context.on("page", self._watch_page)
        context.on("request", self._on_request)
        context.on("requestfailed", self._on_failed)
        context.on("response", self._on_response)

    def _watch_page(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.problems.append(f"error in the page: {error}"))
        page.on("crash", lambda _: self.problems.append("the page crashed"))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "GPU stall due to ReadPixels" not in message.text:
            self.problems.append(f"console {message.type}: {message.text} ({message.location.get('url', '')})")

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("blob", "data") and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.problems.append(f"request to another host: {request.url}")

    def _on_failed(self, request: Request) -> None:
        # The page itself cancels a request whose answer it does not need any more.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"request failed: {request.method} {request.url}: {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"status {response.status}: {response.request.method} {response.url}")


@contextmanager
def watched_page(browser: Browser, origin: str, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """Open a page in a new profile. At the end, fail if something went wrong that the test did not expect.

    Args:
        browser: the browser.
        origin: address of the service.
        options: options of `Browser.new_context`.
    """
    watch = Watch(origin)
    context = browser.new_context(**({"viewport": DESKTOP, "reduced_motion": "reduce"} | options))
    try:
        watch.attach(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        yield page, watch
    finally:
        context.close()
    problems = watch.unexpected()
    assert not problems, "\n".join(problems)
