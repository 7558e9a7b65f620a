"""Ways to damage a file. All chance comes from the given generator, so a seed repeats a case."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

HEADER = 512
"""Number of bytes at the start of a file in which most formats keep what describes the image."""

_NUMBERS = {1: (0, 1, 0x7F, 0x80, 0xFF), 2: (0, 1, 0x7FFF, 0x8000, 0xFFFF), 4: (0, 1, 2**31 - 1, 2**31, 2**32 - 1)}
"""Values at the borders of unsigned and signed integers, by their size in bytes."""

_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 1e308, float("nan"), float("inf"), "", "../x", "/etc/hostname", "\x1b[31m",
    "\ud800", [], {}, [[]], [1, [2, [3]]], "9" * 400, {"type": "Polygon"},
)  # fmt: skip


def _flip_bits(data: bytearray, random: Random) -> bytes:
    for _ in range(random.randint(1, 32)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def _flip_header(data: bytearray, random: Random) -> bytes:
    for _ in range(random.randint(1, 8)):
        data[random.randrange(min(HEADER, len(data)))] ^= 1 << random.randrange(8)
    return bytes(data)


def _put_number(data: bytearray, random: Random) -> bytes:
    for _ in range(random.randint(1, 3)):
        size = random.choice(list(_NUMBERS))
        place = random.randrange(min(HEADER, len(data)) // size) * size
        order = random.choice("<>")
        data[place : place + size] = struct.pack(order + {1: "B", 2: "H", 4: "I"}[size], random.choice(_NUMBERS[size]))
    return bytes(data)


def _swap_fields(data: bytearray, random: Random) -> bytes:
    size = random.choice((2, 4, 8, 12))  # 12 bytes are an entry of a TIFF directory.
    first, second = (random.randrange(max(1, min(HEADER, len(data)) - size)) // 2 * 2 for _ in range(2))
    one, other = bytes(data[first : first + size]), bytes(data[second : second + size])
    data[first : first + size], data[second : second + size] = other, one
    return bytes(data)


def _cut(data: bytearray, random: Random) -> bytes:
    return bytes(data[: random.randrange(len(data))])


def _insert(data: bytearray, random: Random) -> bytes:
    place = random.randrange(len(data) + 1)
    block = random.choice((bytes(64), b"\xff" * 64, random.randbytes(random.randint(1, 4096)), bytes(data[:256])))
    return bytes(data[:place]) + block + bytes(data[place:])


def _remove(data: bytearray, random: Random) -> bytes:
    place = random.randrange(len(data))
    return bytes(data[:place] + data[place + random.randint(1, 256) :])


_BYTES: tuple[Callable[[bytearray, Random], bytes], ...] = (
    _flip_bits, _flip_bits, _flip_header, _flip_header, _put_number, _put_number, _swap_fields, _cut, _insert, _remove,
)  # fmt: skip


def damage_bytes(data: bytes, random: Random) -> bytes:
    """Return the bytes with one or two kinds of damage. Most of it is near the start of the file."""
    for _ in range(random.choice((1, 1, 1, 2))):
        data = random.choice(_BYTES)(bytearray(data or b"\0"), random)
    return data


def damage_json(data: bytes, random: Random) -> bytes:
    """Return a JSON text in which some values are others, or are missing, or whose bytes are damaged."""
    way = random.random()
    if way < 0.2:
        return damage_bytes(data, random)
    content = json.loads(data)
    for _ in range(random.randint(1, 3)):
        places = list(_places(content))
        if not places:
            break
        holder, key = random.choice(places)
        if random.random() < 0.2:
            del holder[key]
        elif isinstance(holder, dict) and random.random() < 0.1:
            holder[str(random.choice(_VALUES))] = holder[key]
        else:
            holder[key] = deepcopy(random.choice(_VALUES))  # A later step may damage the inside of the value.
    text = json.dumps(content)
    if way < 0.25:  # deeper than a parser that calls itself can go
        text = text.replace("null", "[" * 100_000 + "]" * 100_000, 1)
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    """Yield the holder and key of every value inside of a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


_TIMES = (2**63 - 1, -(2**63) + 1, -62_135_596_800_000_001, 253_402_300_800_000_000, 0)
"""Microseconds since 1970 at the borders of what 64 bits and Python's dates can hold."""

_TEXTS = (
    "", "../../x", "/etc/passwd", "a\0<script>", "\x1b[31m\u202e", "x" * 100_000, "https://evil.example/a.tif", "{",
    "[1e999]", "[" * 50_000, "a\nb",
)  # fmt: skip

_SHAPES = (
    b"", b"\x01", b"\x01\x03\0\0\0\xff\xff\xff\xff" + bytes(50), b"\x01\x07\0\0\0\x01\0\0\0" * 500,
    shapely.to_wkb(shapely.box(-1e300, -1e300, 1e300, 1e300)), shapely.to_wkb(shapely.box(500, 100, 700, 200)),
    shapely.to_wkb(shapely.Point(1, 2)), shapely.to_wkb(shapely.Polygon()),
    struct.pack("<BIII8d", 1, 3, 1, 4, *([float("nan")] * 8)),
)  # fmt: skip


def damage_parquet(data: bytes, random: Random) -> bytes:
    """Return a Parquet file with other values, columns, types or rows, or whose bytes are damaged."""
    way = random.random()
    if way < 0.25:
        return damage_bytes(data, random)
    if way < 0.4:  # The end of the file describes its content.
        return data[: -len(data) // 4] + damage_bytes(data[-len(data) // 4 :], random)
    table = pq.read_table(io.BytesIO(data), use_threads=False)
    for _ in range(random.randint(1, 2)):
        number = random.randrange(table.num_columns)
        field = table.schema.field(number)
        match random.randrange(8):
            case 0:
                table = table.remove_column(number)
            case 1:
                table = table.append_column(random.choice([field.name, "other"]), table[number])
            case 2:
                table = table.set_column(number, field.name, pa.array([random.choice(_TEXTS)] * len(table)))
            case 3:
                table = table.slice(random.randrange(len(table) + 1), random.randrange(3))
            case 4:
                table = pa.concat_tables([table] * random.choice([2, 3, 1000]))
            case _:
                values = random.choices(_hostile_values(field.type), k=len(table))
                column = pa.array(values, field.type) if values else pa.nulls(len(table), field.type)
                table = table.set_column(number, field.with_nullable(True), column)
        if not len(table):
            break
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _hostile_values(kind: pa.DataType) -> tuple[Any, ...]:
    """Return values of a type that no sound file has. None stands for a missing value."""
    if pa.types.is_timestamp(kind):
        return tuple(pa.scalar(time, pa.int64()).cast(kind) for time in _TIMES)
    if pa.types.is_floating(kind):
        return (None, float("nan"), float("inf"), -1e30, 1e30, -1.0)
    if pa.types.is_integer(kind):
        most = 2 ** (kind.bit_width - 1) - 1
        return (None, -1, 0, min(10**7, most), most, -most)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return (None, *_TEXTS)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return (None, *_SHAPES)
    return (None,)
