"""What a person runs: one module a flow."""

import gc

# What Prefect's import makes stays as long as the process. To look through it for garbage, again and again while it is
# made and once more at the end, would take a quarter of the time that a flow's help takes.
_collecting = gc.isenabled()
gc.disable()
import prefect.main  # noqa: E402, F401  (all of it: the package alone imports its parts when they are asked for)

gc.freeze()
if _collecting:
    gc.enable()
