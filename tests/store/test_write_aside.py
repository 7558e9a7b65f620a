"""Files and folders appear under their names whole, or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.write_aside import new_file, new_folder, remove_folder, write_once


def _write_half(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def test_a_new_file_replaces_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with new_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.name.endswith(".part")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), new_file(path) as part:
        _write_half(part)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_a_name_that_is_too_long_for_any_addition_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    with new_file(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"


def test_a_new_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    with new_folder(folder) as part:
        (part / "file").write_text("content")
        assert not folder.exists()
    assert (folder / "file").read_text() == "content"
    assert list(folder.parent.iterdir()) == [folder]


def test_of_two_new_folders_the_first_to_finish_counts(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with new_folder(folder) as late:
        (late / "file").write_text("late")
        with new_folder(folder) as early:
            (early / "file").write_text("early")
    assert (folder / "file").read_text() == "early"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError), new_folder(tmp_path / "file" / "folder"):
        pass


def test_a_removed_folder_is_gone_and_its_open_files_are_still_read(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("content")
    with (folder / "file").open() as handle:
        remove_folder(folder)
        assert handle.read() == "content"
    assert list(tmp_path.iterdir()) == []
    remove_folder(folder)  # A folder that does not exist is no error.


def test_of_sixteen_writers_one_counts_and_all_learn_its_text(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    with ThreadPoolExecutor(16) as pool:
        contents = set(pool.map(lambda number: write_once(path, str(number)), range(16)))
    assert contents == {path.read_text()}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("replace", [True, False])
def test_a_local_file_becomes_an_object(tmp_path: Path, replace: bool) -> None:
    store = ObjectStore(root=str(tmp_path))
    for text in ("first", "second"):
        with local_file(store, "folder/key", replace=replace) as file:
            file.path.write_text(text)
    assert store.read("folder/key") == (b"second" if replace else b"first")
    assert file.created is replace
    assert file.size == 6
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["key"]


def test_a_local_file_that_fails_becomes_no_object(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path))
    with pytest.raises(ZeroDivisionError), local_file(store, "folder/key", replace=True) as file:
        _write_half(file.path)
    assert store.read("folder/key") is None
    assert list((tmp_path / "folder").iterdir()) == []
