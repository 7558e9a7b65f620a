"""Ways to damage a file. All chance comes from the given generator, so a seed repeats a case."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

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
