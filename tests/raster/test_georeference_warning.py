"""rasterio's warning about a raster without a georeference is hidden only where this library opens a raster."""

from __future__ import annotations

import re
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from rasterembed.raster.drivers import open_raster
from rasterembed.raster.georeference_warning import georeference_warning_hidden
from rasterembed.store.object_store import ObjectStore


@pytest.fixture
def unplaced(tmp_path: Path) -> Path:
    path = tmp_path / "r.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8") as file:
            file.write(np.ones((1, 8, 8), np.uint8))
    return path


def test_another_thread_still_gets_the_warning(unplaced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While this library opens a raster, a thread of the program opens another one."""
    open_, store = rasterio.open, ObjectStore(root=str(tmp_path / "store"))

    def open_beside(*args: Any, **options: Any) -> Any:
        thread = threading.Thread(target=lambda: open_(unplaced).close())
        thread.start()
        thread.join()
        return open_(*args, **options)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with monkeypatch.context() as patch:
            patch.setattr(rasterio, "open", open_beside)
            with open_raster(store, str(unplaced)):
                pass
        assert [each.category for each in caught] == [NotGeoreferencedWarning]
        with rasterio.open(unplaced):
            pass
        assert len(caught) == 2


def filters_of_the_program() -> list[Any]:
    return [each for each in warnings.filters if each[1] is None or isinstance(each[1], re.Pattern | str)]


@pytest.mark.parametrize("action", ["error", "default", "always"])
def test_the_filters_of_a_program_stay_and_do_not_stop_a_raster(unplaced: Path, tmp_path: Path, action: Any) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    with warnings.catch_warnings():
        for _ in range(3):
            warnings.simplefilter(action, NotGeoreferencedWarning)
            warnings.filterwarnings("ignore", "some text")
            before = filters_of_the_program()
            with open_raster(store, str(unplaced)):
                pass
            assert filters_of_the_program() == before
            assert len(warnings.filters) == len(before) + 1


def test_the_block_may_end_with_an_error() -> None:
    def fail() -> None:
        with georeference_warning_hidden():
            warnings.warn("hidden", NotGeoreferencedWarning, stacklevel=1)
            warnings.warn("another", UserWarning, stacklevel=1)
            raise KeyError

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(KeyError):
            fail()
        warnings.warn("shown", NotGeoreferencedWarning, stacklevel=1)
    assert [str(each.message) for each in caught] == ["another", "shown"]
