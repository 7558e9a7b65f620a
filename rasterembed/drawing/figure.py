"""Figures: size, colours, title and caption are the same in all pictures."""

from __future__ import annotations

import io
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text

from rasterembed.escape import cut

_DPI = 110
WIDTH_IN = 8.6
"""Width of a figure, in inches."""
_LEFT = 0.012
"""Margin at the left and at the right of the texts, as a share of the width."""

# The palette of Okabe and Ito. People with colour blindness can distinguish its colours.
INK, SOFT, PAPER, _ALARM = "#1d2329", "#5b6570", "#eef0f2", "#a32a00"


@dataclass(frozen=True)
class Heading:
    """The text at the top of every picture."""

    name: str
    """Id of the dataset or the collection."""
    model: str
    """Id of the model, or `demo (untrained)`."""
    untrained: bool
    """Whether the model is the untrained demo model. The model's name is then drawn in a warning colour."""


def new_figure(heading: Heading, title: str, height: float, caption: str) -> Figure:
    """Return a figure with a title at the top and a caption at the bottom.

    Args:
        heading: text at the top.
        title: first words of the title.
        height: height of the figure in inches. The width is `WIDTH_IN`.
        caption: sentences that tell people how to read the picture.
    """
    figure = Figure(figsize=(WIDTH_IN, height), dpi=_DPI, facecolor="white")
    top = 1 - 0.12 / height
    figure.text(_LEFT, top, f"{title}: {cut(heading.name, 50)}", va="top", fontsize=12.5, color=INK, weight="bold")
    figure.text(
        1 - _LEFT,
        top,
        f"model: {cut(heading.model, 40)}",
        ha="right",
        va="top",
        fontsize=9.5,
        color=_ALARM if heading.untrained else SOFT,
        weight="bold" if heading.untrained else "normal",
    )
    lines = textwrap.wrap(caption, 128)
    figure.text(_LEFT, 0.1 / height, "\n".join(lines), va="bottom", fontsize=8.5, color=SOFT, linespacing=1.35)
    return figure


def add_legend(figure: Figure, handles: Sequence[Artist], top: float, columns: int, **spacing: float) -> None:
    """Add a legend at the left below the title.

    Args:
        figure: figure from `new_figure`.
        handles: entries of the legend.
        top: upper edge of the legend, as a share of the figure's height.
        columns: number of columns.
        **spacing: widths for `Figure.legend`, such as `handlelength`.
    """
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(_LEFT, top),
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderaxespad=0,
        borderpad=0,
        **spacing,
    )


def style_axes(axes: Axes) -> None:
    """Draw the frame and the numbers of axes in a soft colour."""
    axes.tick_params(colors=SOFT, labelsize=8)
    for side in axes.spines.values():
        side.set_color(SOFT)


def _literal(text: Text) -> None:
    """Make matplotlib draw a text without reading formulas in it.

    Names of models, CRSs and units come from files. Matplotlib would read `$...$` in such a name as a formula, and
    raise an error if the formula is wrong. Control characters, and letters that the font lacks, are replaced by a
    replacement character. Matplotlib would warn about them.
    """
    text.set_parse_math(False)
    text.set_usetex(False)
    font = get_font(findfont(text.get_fontproperties()))
    shown = "".join(
        letter
        if letter == "\n" or (font.get_char_index(ord(letter)) and unicodedata.category(letter)[0] != "C")
        else "�"
        for letter in text.get_text()
    )
    if shown != text.get_text():
        text.set_text(shown)


def to_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file. Texts are drawn letter by letter, without formulas."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        _literal(text)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()
