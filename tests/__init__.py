"""The tests, and the environment in which they and all processes that they start run.

It is set here because this module is imported before any other of them, and so before PyTorch and Prefect, which read
it when they are imported.
"""

import os
import sys
import tempfile
from pathlib import Path

# One thread for PyTorch and NumPy. The promise of equal bytes needs the same number of threads in every process, and
# workers of pytest-xdist must not compete for the cores. Benchmarks use `tests.support` too, and shall use all cores.
if "pytest" in sys.modules:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Prefect, Matplotlib and the demo model keep files in the home folder. Where it cannot be written, the tests bring one.
# Workers of pytest-xdist inherit it from the process that starts them, which removes it in the end.
if not os.access(Path.home(), os.W_OK):
    _home = tempfile.TemporaryDirectory(prefix="home-")
    os.environ["HOME"] = _home.name
