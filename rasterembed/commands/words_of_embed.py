"""Settings in a text of a command that has no options for them."""

from __future__ import annotations

from rasterembed.command_line.wrong_options import name_marked_options, option_names


def in_words_of_embed(text: str) -> str:
    """Return a text of the library with the options of `collection embed`, which gives a collection its settings.

    Commands in the text stay. `in_command_words` writes them as a person types them.

    Args:
        text: an error or a reason.
    """
    from rasterembed.commands.collection_embed import app  # A text without settings does not need its slow imports.

    return name_marked_options(text, option_names(app.assemble_argument_collection()))
