"""Run the console command: `python -m rasterembed` is `rasterembed`."""

from rasterembed.commands.main import main

main()
