"""Escape text that came from a file, a bucket or a form, before people see it. Each medium has one function.

The name of a raster, a CRS or a band can hold any characters. On a terminal, a control character can move the cursor or
change the window's title. In Markdown and HTML, a name can load a picture from another host, or hide where a link goes.

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
"""Invisible characters. Some change the order of the text around them. Others make two different names look equal."""

_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that are shown as codes: control characters, lone surrogates, and separators of
lines and paragraphs."""

_MARKDOWN = re.compile(
    r"([`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])|^[#+=-])|([&<>|\\@]|(?<=\w):(?=//)|(?<=www)\.)", re.IGNORECASE
)
"""Characters that can begin a construct of Markdown, a tag, an entity, or a link made from a bare URL.

A character of the regular expression's first group gets a backslash. A character of the second group becomes an HTML
entity. The vertical bar is in the second group, because a backslash is not enough for it: in a table, the bar would
still end the cell if the text itself has a backslash before the bar.
"""


def escape_terminal(text: object) -> str:
    r"""Return a text in one line, with every control character as a visible code.

    Use this function for logs and exceptions too. A second call changes nothing, because the codes hold no control
    character.

    Args:
        text: a string, or an object that `str` turns into a string, such as a path.

    Example:
        >>> escape_terminal("a\x1b[2J\nb")
        'a\\x1b[2J\\nb'
    """
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    return "".join(map(_visible, plain))


def cut(text: str, length: int) -> str:
    """Return a text of at most `length` characters. A longer text is cut, and ends in an ellipsis.

    Example:
        >>> cut("sentinel-2", 5)
        'sent…'
    """
    return text if len(text) <= length else f"{text[: length - 1]}…"


def escape_lines(text: object) -> str:
    r"""Return a text of several lines for a terminal. Each line is escaped by `escape_terminal`.

    Example:
        >>> escape_lines("a\x1b[2J\nb")
        'a\\x1b[2J\nb'
    """
    return "\n".join(escape_terminal(line) for line in str(text).split("\n"))


def escape_markdown(text: object) -> str:
    r"""Escape a text, so that Markdown shows exactly this text. The result is also safe in a cell of a table.

    Example:
        >>> escape_markdown("![x](http://host/y.png) <b>|")
        '!\\[x\\](http&#58;//host/y.png) &#60;b&#62;&#124;'
    """
    return _MARKDOWN.sub(_markdown_character, escape_terminal(text).strip())


def markdown_code(text: object) -> str:
    r"""Return a text as code in Markdown. The result is also safe in a cell of a table.

    A code span cannot hold every text: a backtick ends the span, and a vertical bar ends the cell of a table, even
    inside a code span (GitHub Flavored Markdown, section 4.10). A text with one of these two characters is put between
    HTML's `<code>` tags.

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
    """Escape a text, so that HTML shows exactly this text. The result is also safe as the value of a quoted attribute.

    Example:
        >>> escape_html('<img src="x">')
        '&lt;img src=&quot;x&quot;&gt;'
    """
    return html.escape(escape_terminal(text), quote=True)


_NOT_IN_PATHS = re.compile(r"[^!$&'()*+,;=:@/~\w.-]|[\x80-\x9f]")
"""Characters that are percent-encoded in a link.

RFC 3987 allows every other character in a path. Letters outside ASCII are not encoded, because many STAC readers open
an href as if it were a path.
"""


def href_of(uri: str) -> str:
    """Return a link to a file or an object, as RFC 3987 defines it.

    In a link, `#` and `?` end the path, and `%` begins a code. A reader gets the path back by
    `urllib.parse.unquote(urllib.parse.urlsplit(href).path)`.

    Args:
        uri: an absolute path, a path relative to the file with the link, s3://bucket/key, or an https:// address in the
            form that `canonical_url` gives it.

    Example:
        >>> href_of("/data/50% #1.tif")
        '/data/50%25%20%231.tif'
    """
    if uri.startswith("https://"):
        return uri  # Such an address is percent-encoded already.
    if uri.startswith("//"):  # A link that starts with // would begin with the name of a host.
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
