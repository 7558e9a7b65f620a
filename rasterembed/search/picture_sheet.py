"""Sheets of pictures: a heading, and sections of thumbnails with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from rasterembed.escape import escape_terminal

THUMB = 208
"""Width and height of a thumbnail, px."""

# Sizes on the sheet, in px.
_GAP, _MARGIN, _FRAME = 18, 32, 5
_HEAD, _LINE = 28, 17
_HEADING, _SECTION = 78, 34

_SMALL = 150
"""Below thumbnails of at most this width, in px, the letters are smaller. A tile's id then has room."""

_PAPER, _INK, _SOFT, _RULE = "#ffffff", "#1d2329", "#6a737d", "#d0d7de"


@dataclass(frozen=True)
class CaptionedPicture:
    """A thumbnail with its caption."""

    image: Image.Image
    head: str
    """First line of the caption."""
    lines: tuple[str, ...]
    """Further lines of the caption, in smaller letters."""
    frame: str | None = None
    """Colour of the frame and of the caption's first line. None means no frame."""


@dataclass(frozen=True)
class Section:
    """Pictures with a title above them."""

    title: str
    pictures: Sequence[CaptionedPicture]
    colour: str | None = None
    """Colour of a square before the title. None means no square."""


def draw_sheet(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    columns: int,
    *,
    lines: int,
    thumb: int = THUMB,
    above: Image.Image | None = None,
) -> Image.Image:
    """Draw a heading and then the sections, one below the other.

    Args:
        title: first line of the heading.
        subtitle: second line of the heading, in smaller letters.
        sections: the sections. A section with more than `columns` pictures has several rows.
        columns: number of pictures side by side.
        lines: number of lines of a caption below its first line.
        thumb: width and height of a thumbnail, px. The pictures have this size.
        above: picture to draw between the heading and the sections. The sheet is at least as wide as this picture.
    """
    cell = thumb + _HEAD + _LINE * lines + _GAP
    rows = [-(-len(section.pictures) // columns) for section in sections]
    width = 2 * _MARGIN + columns * thumb + (columns - 1) * _GAP
    height = 2 * _MARGIN + _HEADING + sum(_SECTION + count * cell for count in rows) - _GAP
    if above is not None:
        width, height = max(width, 2 * _MARGIN + above.width), height + above.height + _GAP
    room = width - 2 * _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _MARGIN
    _text(draw, (_MARGIN, y), title, 24, _INK, room)
    _text(draw, (_MARGIN, y + 36), subtitle, 14, _SOFT, room)
    y += _HEADING
    if above is not None:
        sheet.paste(above, (_MARGIN, y))
        y += above.height + _GAP
    for section, count in zip(sections, rows, strict=True):
        draw.line([(_MARGIN, y), (width - _MARGIN, y)], fill=_RULE)
        indent = 0
        if section.colour is not None:
            draw.rectangle([_MARGIN, y + 10, _MARGIN + 13, y + 23], fill=section.colour)
            indent = 22
        _text(draw, (_MARGIN + indent, y + 8), section.title, 14, _SOFT, room - indent)
        y += _SECTION
        for i, picture in enumerate(section.pictures):
            corner = _MARGIN + (i % columns) * (thumb + _GAP), y + (i // columns) * cell
            _draw_picture(sheet, draw, picture, corner, thumb)
        y += count * cell
    return sheet


def _draw_picture(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: CaptionedPicture, corner: tuple[int, int], thumb: int
) -> None:
    x, y = corner
    sheet.paste(picture.image, corner)
    if picture.frame:
        draw.rectangle([x, y, x + thumb - 1, y + thumb - 1], outline=picture.frame, width=_FRAME)
    _text(draw, (x, y + thumb + 6), picture.head, 16, picture.frame or _INK, thumb)
    for i, line in enumerate(picture.lines):
        _text(draw, (x, y + thumb + 27 + _LINE * i), line, 13 if thumb > _SMALL else 11, _SOFT, thumb)


def _text(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, size: int, colour: str, room: int) -> None:
    """Draw one line of text. If the line is wider than `room` px, it is cut and ends with three dots."""
    font = ImageFont.load_default(size)
    text = escape_terminal(text)  # A line break in the text would start a second line.
    if draw.textlength(text, font=font) > room:
        while text and draw.textlength(f"{text}...", font=font) > room:
            text = text[:-1]
        text += "..."
    draw.text(corner, text, font=font, fill=colour)
