"""Small HTML pages of the service itself: the sign-in, and problems that a person meets outside of the page."""

from __future__ import annotations

from fastapi import Response

STYLE_SHEET = "small-page.css"
"""Address of the style sheet. It is a file, because the security policy allows no style in the page."""

STYLE = """\
:root { color-scheme: light dark; --bg: #f5f6f8; --surface: #fff; --line: #c3cad3; --text: #14181f; --accent: #2f57d0;
  --on-accent: #fff; --bad: #b42a24; font: 14px/1.5 Inter, "Segoe UI", system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #0e1116; --surface: #161a20; --line: #434d5b; --text: #e9ecf1; --accent: #8ba8ff; --on-accent: #0d1220;
    --bad: #ff8a80; }
}
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--bg); color: var(--text); }
main { width: min(22rem, 90vw); padding: 1.5rem; border: 1px solid var(--line); border-radius: 12px;
  background: var(--surface); }
h1 { font-size: 1.2rem; margin: 0 0 1rem; }
p { margin: 0 0 1rem; }
label { display: block; margin-bottom: 0.4rem; }
input, button { font: inherit; width: 100%; min-height: 38px; padding: 0 0.75rem; border-radius: 6px; }
input { border: 1px solid var(--line); background: var(--surface); color: var(--text); }
button { margin-top: 1rem; border: 0; background: var(--accent); color: var(--on-accent); font-weight: 600;
  cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.problem { color: var(--bad); margin: 0.6rem 0 0; }
"""
"""Content of the style sheet."""

_DOCUMENT = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="{home}{style_sheet}">
</head>
<body>
<main>
<h1>{title}</h1>
{content}
</main>
</body>
</html>
"""


def small_page(title: str, content: str, status: int, home: str = "") -> Response:
    """Return a small page.

    Args:
        title: title of the page, as HTML.
        content: content of the page, as HTML.
        status: status of the answer.
        home: relative address of the service's first page, such as `../`. It is empty if this page lies beside it.
    """
    document = _DOCUMENT.format(title=title, content=content, home=home, style_sheet=STYLE_SHEET)
    return Response(document, status, media_type="text/html; charset=utf-8")
