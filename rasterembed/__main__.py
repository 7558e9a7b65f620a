"""Run the console command: `python -m rasterembed` is `rasterembed`."""

from __future__ import annotations

from typing import NoReturn

from rasterembed.command_line.quick_stop import stop_at_once


def main() -> NoReturn:
    """Run the command that is named in the arguments of this process. See `rasterembed.commands.main.main`."""
    stop_at_once()  # The next import takes a while.
    from rasterembed.commands.main import main as run_command

    run_command()


if __name__ == "__main__":
    main()
