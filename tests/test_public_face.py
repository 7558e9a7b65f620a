"""The names that `import rasterembed` gives."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rasterembed


def test_every_public_name_is_there() -> None:
    for name in rasterembed.__all__:
        assert getattr(rasterembed, name).__name__ == name
    assert set(rasterembed.__all__) <= set(dir(rasterembed))


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'rasterembed' has no attribute 'nothing'"):
        rasterembed.nothing  # noqa: B018


def test_the_import_brings_no_other_package() -> None:
    script = "import sys; before = set(sys.modules); import rasterembed; print(*sorted(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    packages = {name.partition(".")[0] for name in run.stdout.split()}
    assert packages - sys.stdlib_module_names == {"rasterembed"}
