"""A flow that only another flow starts: it is not a command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def explain(arguments: Sequence[str], text: str) -> NoReturn:
    """Print how runs of a flow are started, and end the process. The flow itself is not a command.

    Args:
        arguments: arguments of the command.
        text: the explanation.

    Raises:
        SystemExit: with status 0 after `--help`, and 2 otherwise.
    """
    help_wanted = not {"--help", "-h"}.isdisjoint(arguments)
    print(text, file=sys.stdout if help_wanted else sys.stderr)
    sys.exit(0 if help_wanted else 2)
