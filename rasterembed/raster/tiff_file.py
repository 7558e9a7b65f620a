"""Check the structure of a TIFF file before GDAL opens it: is the file complete, and is the work to read it limited?

GDAL trusts the header. A file that was cut off by an interrupted upload still has its header. GDAL's fastest way of
reading then returns old memory for the missing pixels, without an error. The format is described in TIFF 6.0
(Adobe, 1992) and, for BigTIFF, in the documentation of libtiff.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from rasterembed.errors import DataError

MAX_BLOCK_BYTES = 2**30
"""Largest size of a decoded block, in bytes. A block is decoded as a whole. A larger block, such as a single compressed
strip for the whole raster, would take too much memory."""

_MAX_IMAGES = 256
"""Largest number of images in one file: the raster, its overviews and their masks. Each image costs GDAL time and
memory."""

_MAX_TAGS = 4096
"""Largest number of tags of an image. libtiff has the same limit."""

_CHUNK = 2**18
"""Number of blocks whose positions are held in memory at a time."""

_MAX_SHARED_BYTES = 2**30
"""Largest decoded size, in bytes, of all blocks of an image whose blocks overlap in the file. Without this limit, a
small file could name the same bytes for any number of blocks."""

_UNCOMPRESSED, _YCBCR, _SEPARATE = 1, 6, 2
"""Values of the tags Compression, PhotometricInterpretation and PlanarConfiguration."""

_REDUCED, _MASK = 1, 4
"""Bits of the tag NewSubfileType that mark an overview and a mask."""

_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Format character of the module `struct` for each TIFF type that holds whole numbers."""

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Size in bytes of one value of each TIFF type."""

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _STRIP_ROWS, _STRIP_SIZES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_GEO_TEXT = 34737

_NEEDED = (320, 347, 33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
"""Tags whose values must lie inside the file: colours, JPEG tables, georeferencing, GDAL's metadata and nodata."""


@dataclass(frozen=True)
class TiffFile:
    """Facts from the structure of a TIFF file."""

    pages: int
    """Number of images that are neither overviews nor masks."""
    has_data: bool
    """Whether at least one block of the first image has data."""
    geo_text: bytes = b""
    """Text of the first image's GeoTIFF keys, such as the names of its CRS."""


def check_tiff(file: IO[bytes], size: int, uri: str) -> TiffFile | None:
    """Refuse a TIFF file that is cut off, or that would take too much time or memory to read.

    Only the header and the index of blocks are read. A block without a position is no error. It has no data, as in
    sparse files.

    Args:
        file: the file, opened in binary mode.
        size: size of the file, in bytes.
        uri: address of the file, for errors.

    Returns:
        Facts from the structure, or None if the file is not a TIFF.

    Raises:
        DataError: if a block, an index or a tag lies beyond the end of the file; if a block is too large to decode; or
            if the file has too many images, or too many blocks at the same place.
    """
    reader = _Reader(file, size, uri)
    if not reader.is_tiff:
        return None
    pages, found, geo_text = 0, [], b""
    for number, image in enumerate(reader.images()):
        if number >= _MAX_IMAGES:
            raise DataError(f"{uri}: it has more than {_MAX_IMAGES} images: write it anew (gdal_translate -of COG)")
        if not image.kind & (_REDUCED | _MASK):
            pages += 1
            if number > 0:
                continue  # GDAL does not read the blocks of further pages.
        _check_block_size(image, uri, first=number == 0)
        found.append(_check_blocks(reader, image, uri))
        if number == 0 and _GEO_TEXT in image.tags:
            tag = image.tags[_GEO_TEXT]
            geo_text = reader.read(tag.position, reader.end(tag) - tag.position)
    # If the file is cut off, the block that crosses the end of the file is the last block in the file. If another block
    # begins after it, the index holds a wrong position or size. GDAL reports that when it decodes the block.
    start, end = max((blocks.crossing for blocks in found), default=(0, 0))
    if end and start >= max(blocks.last for blocks in found):
        raise reader.cut_off(end)
    return TiffFile(pages, has_data=bool(found) and found[0].present > 0, geo_text=geo_text)


@dataclass(frozen=True)
class _Blocks:
    """Facts about the blocks of one image that have data and begin inside the file."""

    present: int
    """Number of these blocks."""
    last: int
    """Largest position where a block begins, in bytes."""
    crossing: tuple[int, int]
    """Start and end, in bytes, of the last compressed block that ends beyond the end of the file; else zeros."""


@dataclass(frozen=True)
class _Tag:
    kind: int
    """Number of the TIFF type of the values."""
    count: int
    """Number of values."""
    position: int
    """Position of the values in the file, in bytes."""


class _Reader:
    """Reads values of a TIFF file. If a value lies beyond the end of the file, the DataError of `cut_off` is raised."""

    def __init__(self, file: IO[bytes], size: int, uri: str) -> None:
        self._file = file
        self.size = size
        self._uri = uri
        self._index_bytes = 0
        head = file.read(16)
        self._order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(f"{self._order}H", head[2:4])[0] if self._order and len(head) >= 4 else 0
        self._big = version == 43
        self._word = "Q" if self._big else "I"
        self.is_tiff = version in (42, 43)

    def cut_off(self, needed: int) -> DataError:
        """Return the error for a file that has fewer than the `needed` bytes."""
        return DataError(
            f"{self._uri}: the file is cut off: it has {self.size} bytes and needs at least {needed}: upload it again"
        )

    def read(self, position: int, length: int) -> bytes:
        """Return `length` bytes that begin at `position`."""
        if position + length > self.size:
            raise self.cut_off(position + length)
        self._file.seek(position)
        parts, missing = [], length
        while missing:
            part = self._file.read(missing)
            if not part:
                raise self.cut_off(position + length)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def images(self) -> Iterator[_Image]:
        """Yield each image of the file. Each image names the position of the next. Stop if an image comes twice."""
        at = 8 if self._big else 4
        position = struct.unpack(f"{self._order}{self._word}", self.read(at, struct.calcsize(f"={self._word}")))[0]
        seen: set[int] = set()
        while position and position not in seen:
            seen.add(position)
            counter = f"{self._order}{'Q' if self._big else 'H'}"
            count = struct.unpack(counter, self.read(position, struct.calcsize(counter)))[0]
            if count > _MAX_TAGS:
                return  # Ignore this image and the images after it, as libtiff does.
            entry = struct.Struct(f"{self._order}HH{self._word}{self._word}")
            word = struct.calcsize(f"={self._word}")
            start = position + struct.calcsize(counter)
            data = self.read(start, count * entry.size + word)
            tags: dict[int, _Tag] = {}
            for i in range(count):
                code, kind, number, place = entry.unpack_from(data, i * entry.size)
                if number * _TYPE_BYTES.get(kind, 1) <= word:
                    place = start + (i + 1) * entry.size - word  # A short value is stored in the tag itself.
                tags.setdefault(code, _Tag(kind, number, place))
            yield _Image(self, tags)
            position = struct.unpack_from(f"{self._order}{self._word}", data, count * entry.size)[0]

    def numbers(self, tag: _Tag, start: int, stop: int) -> NDArray[np.uint64]:
        """Return values `start` to `stop` of a tag that holds whole numbers."""
        kind = _INTEGERS.get(tag.kind)
        if kind is None:
            raise DataError(f"{self._uri}: a tag of its TIFF header has no numbers: the file is damaged")
        size = struct.calcsize(f"={kind}")
        dtype = np.dtype(f"{self._order}u{size}")
        if tag.position + tag.count * size > self.size:
            raise self.cut_off(tag.position + tag.count * size)
        # Limit the bytes that are read. Otherwise many images could name the same long index, and each image would read
        # it again.
        self._index_bytes += (stop - start) * size
        if self._index_bytes > 2 * self.size + 2**20:
            raise DataError(f"{self._uri}: its images share one index of blocks: the file is damaged")
        return np.frombuffer(self.read(tag.position + start * size, (stop - start) * size), dtype).astype(np.uint64)

    def end(self, tag: _Tag) -> int:
        """Return the position after the values of a tag."""
        return tag.position + tag.count * _TYPE_BYTES.get(tag.kind, 1)


class _Image:
    """One image of a TIFF file: its size, and how its blocks are laid out."""

    def __init__(self, reader: _Reader, tags: dict[int, _Tag]) -> None:
        self.tags = tags

        def number(code: int, default: int) -> int:
            tag = tags.get(code)
            return (
                int(reader.numbers(tag, 0, 1)[0])
                if tag is not None and tag.count and tag.kind in _INTEGERS
                else default
            )

        self.kind = number(_SUBFILE, 0)
        self.width, self.height = number(_WIDTH, 0), number(_HEIGHT, 0)
        self.samples = number(_SAMPLES, 1)
        self.bits = number(_BITS, 1)
        self.compressed = number(_COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED
        self.subsampled = number(_PHOTOMETRIC, 0) == _YCBCR
        self.separate = number(_PLANAR, 1) == _SEPARATE
        self.tiled = _TILE_WIDTH in tags
        if self.tiled:
            self.block_width, self.block_height = number(_TILE_WIDTH, 0), number(_TILE_HEIGHT, 0)
        else:
            self.block_width, self.block_height = self.width, min(number(_STRIP_ROWS, self.height), self.height)
        self.offsets = tags.get(_TILE_OFFSETS) or tags.get(_STRIP_OFFSETS)
        self.sizes = tags.get(_TILE_SIZES) or tags.get(_STRIP_SIZES)

    @property
    def blocks_per_plane(self) -> int:
        """Number of blocks of one band if bands are stored apart. Otherwise number of blocks of the image."""
        down = -(-self.height // max(self.block_height, 1))
        return down * -(-self.width // max(self.block_width, 1))

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.blocks_per_plane * (self.samples if self.separate else 1)

    @property
    def row_bits(self) -> int:
        """Size in bits of one row of a block that is stored without compression."""
        return self.block_width * self.bits * (1 if self.separate else self.samples)

    def decoded_bytes(self, rows: int) -> int:
        """Return the size in bytes of `rows` rows of a decoded block. GDAL uses at least one byte for each sample."""
        return rows * self.block_width * (1 if self.separate else self.samples) * max(1, -(-self.bits // 8))


def _check_block_size(image: _Image, uri: str, *, first: bool) -> None:
    """Refuse an image whose decoded blocks take too much memory, even if no block has data."""
    # GDAL reads uncompressed strips row by row, and some compressed strips too. The compressed strips of the raster
    # itself are checked later, in `rasterembed.raster.profile`.
    by_row = not image.tiled and (first or not image.compressed)
    rows = 1 if by_row else image.block_height
    size = image.decoded_bytes(rows)
    if size <= MAX_BLOCK_BYTES:
        return
    part = "" if first else " of its mask" if image.kind & _MASK else " of its overview"
    raise DataError(
        f"{uri}: one block{part} is {image.block_width}x{rows} px ({size / 2**30:.1f} GiB) and cannot be read in "
        "parts: convert it to a tiled GeoTIFF (gdal_translate -of COG)"
    )


def _check_blocks(reader: _Reader, image: _Image, uri: str) -> _Blocks:
    """Refuse an image with blocks beyond the end of the file. Return facts about its blocks."""
    for code in _NEEDED:
        if code in image.tags and reader.end(image.tags[code]) > reader.size:
            raise reader.cut_off(reader.end(image.tags[code]))
    offsets, sizes, blocks = image.offsets, image.sizes, image.blocks
    if offsets is None or offsets.count == 0:
        return _Blocks(0, 0, (0, 0))  # A sparse file may have no block with data, and then needs no index.
    if offsets.count < blocks:
        raise DataError(
            f"{uri}: the header declares {image.width}x{image.height} px in {blocks} blocks, but the file has an index "
            f"of {offsets.count} blocks only: the file is damaged"
        )
    present, total, last, needed, crossing = 0, 0, 0, 0, (0, 0)
    for start in range(0, blocks, _CHUNK):
        stop = min(start + _CHUNK, blocks)
        begin = reader.numbers(offsets, start, stop)
        if sizes is not None and sizes.count >= blocks:
            length = reader.numbers(sizes, start, stop)
        else:
            length = np.ones_like(begin)  # The sizes are missing. libtiff guesses them, so any size above 0 is right.
        here = (begin > 0) & (length > 0)
        if not image.compressed and not image.subsampled:
            # Ignore the declared sizes, because some writers declare wrong ones. GDAL reads as many bytes as an
            # uncompressed block must have.
            length = _stored_bytes(image, start, stop)
        begin, length = begin[here], length[here]
        present += len(begin)
        total += int(length.sum(dtype=np.float64))
        inside = begin < reader.size
        last = max(last, int(begin[inside].max(initial=0)))
        for i in np.flatnonzero(inside & (length > reader.size - np.minimum(begin, reader.size))):
            crossing = max(crossing, (int(begin[i]), int(begin[i]) + int(length[i])))
        if not inside.all():
            i = np.argmax(begin)
            needed = max(needed, int(begin[i]) + int(length[i]))
    if crossing[1] and not image.compressed:
        needed = max(needed, crossing[1])  # GDAL copies uncompressed blocks, and would not notice the missing bytes.
    if needed:
        raise reader.cut_off(needed)
    decoded = present * image.decoded_bytes(image.block_height)
    if total > 2 * reader.size and decoded > _MAX_SHARED_BYTES:
        raise DataError(
            f"{uri}: its {present} blocks of {total} bytes together lie at the same places of a file of {reader.size} "
            "bytes: the file is damaged"
        )
    return _Blocks(present, last, crossing)


def _stored_bytes(image: _Image, start: int, stop: int) -> NDArray[np.uint64]:
    """Return the size in bytes of uncompressed blocks `start` to `stop`. The last strip may have fewer rows."""
    row = math.ceil(image.row_bits / 8)
    rows = np.full(stop - start, image.block_height, np.uint64)
    if not image.tiled:
        last = np.arange(start, stop) % image.blocks_per_plane == image.blocks_per_plane - 1
        rows[last] = image.height - (image.blocks_per_plane - 1) * image.block_height
    return rows * np.uint64(row)
