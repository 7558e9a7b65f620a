"""The folder for unfinished files in the system's temporary folder, where other users may put things too."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rasterembed.store import local_cache
from rasterembed.store.local_cache import scratch_folder, temporary_folder, without_local_folders


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the system's temporary folder of a test."""
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    local_cache._random_folder.cache_clear()
    return folder


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700


def test_the_folder_is_private_and_found_again(shared: Path) -> None:
    folder = scratch_folder()
    assert folder == shared / f"rasterembed-{os.getuid()}"
    assert _is_private(folder)
    assert scratch_folder() == folder


def test_a_folder_of_0_1_that_others_could_only_read_becomes_private(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = shared / f"rasterembed-{os.getuid()}"
    old.mkdir()
    old.chmod(0o755)
    assert scratch_folder() == old
    assert _is_private(old)
    assert caplog.text == ""


def _open_to_all(path: Path, _tmp_path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def _writable_by_the_group(path: Path, _tmp_path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


def _link_to_a_private_folder(path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    path.symlink_to(tmp_path / "mine")


def _link_to_nothing(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "nothing")


def _file(path: Path, _tmp_path: Path) -> None:
    path.write_text("planted")


def _folder_of_another_user(path: Path, _tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    path.mkdir(mode=0o700)
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize(
    "plant",
    [_open_to_all, _writable_by_the_group, _link_to_a_private_folder, _link_to_nothing, _file, _folder_of_another_user],
    ids=lambda plant: plant.__name__.strip("_"),
)
def test_what_others_planted_is_not_used(
    shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, plant: Callable[[Path, Path], None]
) -> None:
    planted = shared / f"rasterembed-{os.getuid()}"
    plant(planted, tmp_path)
    folder = scratch_folder()
    assert folder.parent == shared
    assert folder != planted
    assert _is_private(folder)
    assert scratch_folder() == folder
    assert not (tmp_path / "nothing").exists()
    (warning,) = caplog.messages
    assert str(planted) in warning


def test_the_temporary_folder_of_a_killed_process_is_removed_and_that_of_a_running_one_is_not(shared: Path) -> None:
    code = (
        "from rasterembed.store.local_cache import temporary_folder\n"
        "with temporary_folder('table') as folder:\n"
        "    (folder / 'rows').write_bytes(b'rows')\n"
        "    print(folder, flush=True)\n"
        "    input()\n"
    )
    environment = os.environ | {"TMPDIR": str(shared)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with temporary_folder("table") as folder:
            assert (left / "rows").read_bytes() == b"rows"
            assert folder != left
        process.kill()
        process.wait()
    assert left.is_dir()
    with temporary_folder("other"):
        assert left.is_dir()
    with temporary_folder("table") as folder:
        assert not left.exists()
    assert not folder.exists()


def test_texts_for_others_have_no_path_of_local_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with temporary_folder("table") as folder:
        text = f"{folder}/a and {tmp_path}/cache/rasterembed/b and {tmp_path}/store"
        assert without_local_folders(text) == (
            f"<temporary folder>/{folder.name}/a and <cache folder>/b and {tmp_path}/store"
        )
