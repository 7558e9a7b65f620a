"""Show text that came from a file, a bucket or a form. Each medium has one function.

Such text is data: the name of a raster, a CRS or a band can hold anything. A control character moves a terminal's
cursor or changes its title. Markdown and HTML load pictures from other hosts and hide links.

| medium | function |
|---|---|
| terminal, log, exception | `escape_terminal` |
| Markdown | `escape_markdown`, or `markdown_code` for keys, URIs and other names |
| HTML | `escape_html` |
| link to a path or `s3://` URI | `href_of` |
"""

from __future__ import annotations

import html
import re
import unicodedata
from urllib.parse import quote

_HIDDEN = frozenset("\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
"""Characters without a glyph that change the order of the text around them, or make equal-looking names differ."""

_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories that are never shown: control characters, lone surrogates, and separators of lines."""

_MARKDOWN = re.compile(
    r"([`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])|^[#+=-])|([&<>|\\@]|(?<=\w):(?=//)|(?<=www)\.)", re.IGNORECASE
)
"""Characters that can begin a construct of Markdown, a tag, an entity, or a link made from a bare URL.

Those of the first group get a backslash. Those of the second group become an entity of HTML: in a table, a bar with a
backslash would still end the cell if another backslash is before it.
"""


def escape_terminal(text: object) -> str:
    r"""Return a text in one line, with every control character as a visible code.

    The function is also for logs and exceptions. It changes no text twice, because its codes hold no control character.

    Args:
        text: anything that has a text, such as a string or a path.

    Example:
        >>> escape_terminal("a\x1b[2J\nb")
        'a\\x1b[2J\\nb'
    """
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    return "".join(map(_visible, plain))


def escape_lines(text: object) -> str:
    r"""Return a text of several lines for a terminal. Each line is escaped by `escape_terminal`.

    Example:
        >>> escape_lines("a\x1b[2J\nb")
        'a\\x1b[2J\nb'
    """
    return "\n".join(escape_terminal(line) for line in str(text).split("\n"))


def escape_markdown(text: object) -> str:
    r"""Return a text that Markdown shows letter by letter, also in a table.

    Example:
        >>> escape_markdown("![x](http://host/y.png) <b>|")
        '!\\[x\\](http&#58;//host/y.png) &#60;b&#62;&#124;'
    """
    return _MARKDOWN.sub(_markdown_character, escape_terminal(text).strip())


def markdown_code(text: object) -> str:
    r"""Return a text as code in Markdown, also in a table.

    A code span cannot hold every text: a backtick ends the span, and a vertical bar ends the cell of a table, also in a
    code span (GitHub Flavored Markdown, section 4.10). Such a text gets the tags of HTML.

    Example:
        >>> markdown_code("s3://bucket/key.tif")
        '`s3://bucket/key.tif`'
        >>> markdown_code("a`b|c")
        '<code>a\\`b&#124;c</code>'
    """
    plain = escape_terminal(text).strip()
    if plain and not re.search(r"[`|]", plain):
        return f"`{plain}`"
    return f"<code>{escape_markdown(plain)}</code>"


def escape_html(text: object) -> str:
    """Return a text that HTML shows letter by letter, also as the value of an attribute in quotes.

    Example:
        >>> escape_html('<img src="x">')
        '&lt;img src=&quot;x&quot;&gt;'
    """
    return html.escape(escape_terminal(text), quote=True)


_NOT_IN_PATHS = re.compile(r"[^!$&'()*+,;=:@/~\w.-]|[\x80-\x9f]")
"""Characters that are percent-encoded in a link.

RFC 3987 allows all others in a path. Letters outside ASCII stay, because many readers of STAC open an href as a path.
"""


def href_of(uri: str) -> str:
    """Return a link to a file or an object, as RFC 3987 defines it.

    In a link, `#` and `?` end the path, and `%` begins a code. A reader gets the path back by
    `urllib.parse.unquote(urllib.parse.urlsplit(href).path)`.

    Args:
        uri: an absolute path, a path relative to the file with the link, or s3://bucket/key.

    Example:
        >>> href_of("/data/50% #1.tif")
        '/data/50%25%20%231.tif'
    """
    if uri.startswith("//"):  # In a link, a host would follow.
        uri = f"/{uri.lstrip('/')}"
    return _NOT_IN_PATHS.sub(lambda match: quote(match[0]), uri)


def _visible(character: str) -> str:
    """Return a character, or its code in Python's notation if the character must not be shown."""
    if character in _HIDDEN or unicodedata.category(character) in _CATEGORIES:
        return repr(character)[1:-1] if not character.isprintable() else f"\\u{ord(character):04x}"
    return character


def _markdown_character(match: re.Match[str]) -> str:
    character = match[0]
    return f"\\{character}" if match[1] else f"&#{ord(character)};"
