"""Images that people dropped on the page. They lie in a private folder under the digest of their content."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import Access, DataError, StoreError, UsageError, os_errors
from rasterembed.explorer.problems import ProblemError, ProblemType
from rasterembed.search.chip import MAX_SIDE, CheckedChip, check_chip
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.write_aside import part_file

_MAX_FILES, _MAX_BYTES = 500, 10**9
"""Largest number of images in the folder, and their largest size together in bytes. The oldest are deleted."""


IMAGE_NAME = "the dropped image"
"""Words that stand for the path of an image in errors. A person on the page does not know the service's own files."""


class WrongImageError(UsageError):
    """The uploaded bytes are not an image that can be an example."""


class ImageKind(Enum):
    """Formats of uploaded images, recognised by the first bytes. The name of a file is never looked at."""

    PNG = "PNG"
    JPEG = "JPEG"
    TIFF = "TIFF"
    WEBP = "WebP"

    @classmethod
    def of(cls, data: bytes) -> ImageKind:
        """Return the format of an image.

        Args:
            data: the first bytes of the image, at least 12.

        Raises:
            WrongImageError: if it is another format, or no image.
        """
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return cls.PNG
        if data.startswith(b"\xff\xd8\xff"):
            return cls.JPEG
        if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            return cls.TIFF
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return cls.WEBP
        raise WrongImageError("the file is not an image that can be searched for: give a PNG, JPEG, TIFF or WebP image")


def _default_folder() -> Path:
    return cache_folder() / "explorer" / "images"


@dataclass(frozen=True)
class ImageFolder:
    """The folder of the uploaded images. Several threads and processes may use it at the same time."""

    folder: Path = field(default_factory=_default_folder)
    """The folder. It is created when the first image is kept."""
    max_files: int = _MAX_FILES
    """Largest number of images."""
    max_bytes: int = _MAX_BYTES
    """Largest size of all images together, bytes."""

    def path(self, digest: str) -> Path:
        """Return the path of an image, and mark the image as used now, so that it is not the next to be deleted.

        Args:
            digest: SHA-256 digest of the uploaded bytes, in hexadecimal.

        Raises:
            ProblemError: with status 404, if the folder does not have the image. It was uploaded to another service,
                or it was deleted since.
        """
        path = self.folder / digest
        try:
            os.utime(path, follow_symlinks=False)
        except OSError as error:
            raise ProblemError(
                404,
                ProblemType.UNKNOWN_IMAGE,
                f"this service does not have the image {digest[:12]} any more: send the image again",
            ) from error
        return path

    @contextmanager
    def new_image(self, data: bytes) -> Iterator[tuple[str, Path]]:
        """Yield the digest of an uploaded image and the path of a file with it. Keep the file if the block succeeds.

        The block reads the file and raises an error if the image cannot be an example. A WebP image is kept as PNG,
        because the library's reader of rasters does not read WebP.

        Args:
            data: the uploaded bytes.

        Raises:
            WrongImageError: if the bytes are not an image in a known format.
            StoreError: if the folder is not private to this user.
            ProblemError: with status 507, if the folder cannot be written.
        """
        kind = ImageKind.of(data)
        digest = hashlib.sha256(data).hexdigest()
        kept = _png_of_webp(data) if kind is ImageKind.WEBP else data
        with _own_folder():
            self._make_private_folder()
        with os_errors(str(self.folder), Access.WRITE):
            with part_file(self.folder) as part:
                with _own_folder():
                    part.write_bytes(kept)
                    part.chmod(0o600)
                yield digest, part
                part.replace(self.folder / digest)
            self._delete_oldest()

    def _make_private_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise StoreError(f"{self.folder}: it is not a folder of this user: remove it, or set XDG_CACHE_HOME")
        self.folder.chmod(0o700)

    def _delete_oldest(self) -> None:
        """Delete the images that were not used for the longest time, until the folder is within its bounds.

        Unfinished files of killed processes count as images here, so they are deleted in their turn.
        """
        found = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):  # Another process deleted it.
                info = entry.stat(follow_symlinks=False)
                found.append((info.st_mtime_ns, info.st_size, entry.path))
        count, size = len(found), sum(bytes_ for _, bytes_, _ in found)
        for _, bytes_, path in sorted(found):
            if count <= self.max_files and size <= self.max_bytes:
                return
            with suppress(FileNotFoundError):
                os.unlink(path)
            count, size = count - 1, size - bytes_


@contextmanager
def _own_folder() -> Iterator[None]:
    """Turn an error of the operating system into a problem that does not speak of the store.

    A home that is read-only or full cannot keep images. Everything else of the service works there.
    """
    try:
        yield
    except OSError as error:
        raise ProblemError(
            507,
            ProblemType.NO_SPACE,
            f"the service cannot keep the image in its cache folder ({error.strerror or error}): set XDG_CACHE_HOME to "
            "a folder that can be written and has space, and start the service again",
        ) from error


def keep_image(images: ImageFolder, dataset: Dataset, data: bytes) -> tuple[str, CheckedChip]:
    """Keep an uploaded image, if it can be the example of a search of a dataset.

    Args:
        images: folder of the uploaded images.
        dataset: the dataset whose radiometry and tile size the image is read with.
        data: the uploaded bytes.

    Returns:
        The digest of the uploaded bytes, and facts about the image.

    Raises:
        WrongImageError: if the bytes are not an image, have too many pixels, or have values of unknown meaning.
        StoreError: if the image cannot be kept.
    """
    with images.new_image(data) as (digest, path):
        try:
            return digest, check_chip(dataset.store, dataset.plan, str(path))
        except StoreError:
            raise
        except DataError as error:
            raise WrongImageError(str(error).replace(str(path), IMAGE_NAME)) from error


def _png_of_webp(data: bytes) -> bytes:
    """Return the first frame of a WebP image, upright, as PNG.

    Raises:
        WrongImageError: if the image is damaged, or has too many pixels. This is known before a pixel is decoded.
    """
    from PIL import Image, ImageOps  # Pillow takes long to import.

    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            if max(image.size) > MAX_SIDE:
                raise _too_large(f", {image.width}x{image.height} px")
            has_alpha = image.has_transparency_data
            upright = ImageOps.exif_transpose(image).convert("RGBA" if has_alpha else "RGB")
    except WrongImageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow does not open an image of that many pixels.
        raise _too_large() from error
    except Exception as error:  # For damaged data, Pillow raises errors of many classes.
        raise WrongImageError("the WebP image cannot be read: it is damaged") from error
    png = io.BytesIO()
    upright.save(png, "PNG", compress_level=1)
    return png.getvalue()


def _too_large(size: str = "") -> WrongImageError:
    return WrongImageError(f"the image is too large{size} (at most {MAX_SIDE} px a side): cut out the part to look for")
