"""Uploaded images lie in a private folder of bounded size, under the digest of their content."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from rasterembed.errors import StoreError
from rasterembed.explorer.asking.images import ImageFolder, WrongImageError
from rasterembed.explorer.problems import ProblemError


def picture(kind: str, *, mode: str = "RGB", width: int = 4, height: int = 3, **options: object) -> bytes:
    """Return a picture whose pixels all differ."""
    channels = len(mode)
    pixels = np.arange(width * height * channels, dtype=np.uint8).reshape(height, width, channels)
    data = io.BytesIO()
    Image.fromarray(pixels, mode).save(data, kind, **options)
    return data.getvalue()


def keep(folder: ImageFolder, data: bytes) -> str:
    with folder.new_image(data) as (digest, _):
        pass
    return digest


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_an_image_lies_under_its_digest_and_only_this_user_reads_it(tmp_path: Path, kind: str) -> None:
    images, data = ImageFolder(tmp_path / "images"), picture(kind)
    digest = keep(images, data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert images.path(digest).read_bytes() == data
    assert stat.S_IMODE(images.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(images.path(digest).stat().st_mode) == 0o600
    assert keep(images, data) == digest
    assert os.listdir(images.folder) == [digest]
    # Another object, as after a restart of the service, finds the image.
    assert ImageFolder(tmp_path / "images").path(digest).is_file()


def test_the_default_folder_is_in_the_cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ImageFolder().folder == tmp_path / "rasterembed/explorer/images"


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_webp_image_is_kept_as_png_with_the_same_pixels(tmp_path: Path, mode: str) -> None:
    data = picture("WEBP", mode=mode, lossless=True, exact=True)
    images = ImageFolder(tmp_path)
    digest = keep(images, data)
    assert digest == hashlib.sha256(data).hexdigest()
    with Image.open(images.path(digest)) as kept, Image.open(io.BytesIO(data)) as given:
        assert kept.format == "PNG"
        assert kept.mode == given.mode == mode
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(given))


def test_a_webp_photo_is_kept_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = picture("WEBP", lossless=True, exact=True, exif=exif)
    images = ImageFolder(tmp_path)
    with Image.open(images.path(keep(images, data))) as kept, Image.open(io.BytesIO(data)) as given:
        # 6 means: the first row of the stored picture is its right side.
        np.testing.assert_array_equal(np.asarray(kept), np.rot90(np.asarray(given), -1))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is not an image"),
        (b"GIF89a" + bytes(20), "is not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image"),
        (b"<VRTDataset><SourceFilename>/etc/passwd</SourceFilename></VRTDataset>", "is not an image"),
        (b"RIFF\x10\0\0\0WEBP" + bytes(20), "WebP image cannot be read"),
    ],
)
def test_bytes_that_are_no_image_are_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(WrongImageError, match=problem):
        keep(ImageFolder(tmp_path / "images"), data)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(("side", "problem"), [(5000, "too large, 5000x5000 px"), (16_384, "too large")])
def test_a_webp_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, side: int, problem: str
) -> None:
    # The header of a lossless WebP image. Nothing follows it, so no pixel can be decoded.
    stream = b"\x2f" + struct.pack("<I", (side - 1 << 14) | (side - 1)) + bytes(8)
    chunk = b"VP8L" + struct.pack("<I", len(stream)) + stream + bytes(len(stream) % 2)
    data = b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk
    with pytest.raises(WrongImageError, match=problem):
        keep(ImageFolder(tmp_path), data)


def test_an_image_that_the_block_refuses_is_not_kept(tmp_path: Path) -> None:
    images, data = ImageFolder(tmp_path), picture("PNG")

    def refuse(path: Path) -> None:
        assert path.read_bytes() == data
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), images.new_image(data) as (_, path):
        refuse(path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ProblemError, match="send the image again"):
        images.path(hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("bound", [{"max_files": 2}, {"max_bytes": 2000}])
def test_the_images_that_were_not_used_for_the_longest_time_are_deleted(tmp_path: Path, bound: dict[str, int]) -> None:
    images = ImageFolder(tmp_path, **bound)
    digests = []
    for number in range(2):
        digests.append(keep(images, picture("PNG") + bytes([number]) * 800))
        os.utime(images.folder / digests[-1], (number, number))
    images.path(digests[0])  # It is used now, so the other one goes first.
    digests.append(keep(images, picture("PNG") + b"3" * 800))
    assert set(os.listdir(tmp_path)) == {digests[0], digests[2]}
    with pytest.raises(ProblemError):
        images.path(digests[1])


def test_a_cache_that_cannot_be_written_is_a_problem_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "file").touch()
    for folder, reason in ((tmp_path / "file/images", "Not a directory"), (tmp_path, "No space left on device")):
        with pytest.raises(ProblemError, match=f"cannot keep the image.*{reason}.*XDG_CACHE_HOME") as error:
            keep(ImageFolder(folder), picture("PNG"))
        assert error.value.status == 507
        monkeypatch.setattr(Path, "write_bytes", full)
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="not a folder of this user"):
        keep(ImageFolder(tmp_path / "images"), picture("PNG"))
    assert os.listdir(tmp_path / "elsewhere") == []
