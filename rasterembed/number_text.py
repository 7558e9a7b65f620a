"""Numbers as texts for people: with enough digits to tell them apart, and with words that agree with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

_LONGEST = 15
"""Most zeros between the decimal point and the digits of a number without a power of ten. Also the most digits before
the point."""


def number_text(value: float) -> str:
    """Return the shortest text that gives exactly this number. Use it for a number that a person gave.

    Example:
        >>> number_text(0.05), number_text(3.0), number_text(1_000_001), number_text(4.5e-07)
        ('0.05', '3', '1000001', '0.00000045')
    """
    return _plain(repr(float(value) + 0.0)).removesuffix(".0")  # The sum makes 0 of -0.


def significant_text(value: float, digits: int) -> str:
    """Return a computed number with its first digits. All digits before the decimal point stay.

    Args:
        value: the number.
        digits: number of digits.

    Example:
        >>> significant_text(0.99137, 4), significant_text(4.5e-07, 3), significant_text(12345.678, 3)
        ('0.9914', '0.00000045', '12346')
    """
    return _plain(f"{value + 0.0:.{max(digits, min(_exponent(value), _LONGEST) + 1)}g}")


def _plain(text: str) -> str:
    """Return a number without a power of ten, so that numbers in one table look alike. A huge one keeps its power."""
    if "e" not in text or not -_LONGEST <= int(text.partition("e")[2]) <= _LONGEST:
        return text
    return f"{Decimal(text):f}"


def rounded_text(value: float, span: float) -> str:
    """Return a computed number without the digits that do not matter.

    At least six digits stay, all digits of a whole number, and as many as tell apart two numbers whose difference is a
    ten-thousandth of the span.

    Args:
        value: the number.
        span: length of the range that the number is the end of.

    Example:
        >>> rounded_text(213.019999, 974), rounded_text(1_000_001, 1e6), rounded_text(0.3558, 0.3558)
        ('213.02', '1000001', '0.3558')
        >>> rounded_text(7_000_000.125, 0.5), rounded_text(7_000_000.125, 50_000)
        ('7000000.125', '7000000')
    """
    digits = [5 - _exponent(value), 4 - _exponent(span), 0]
    return number_text(round(float(value), max(digits)))


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    Args:
        count: the number.
        one: the noun for the number 1.
        many: the noun for any other number. The default is `one` with an s.

    Example:
        >>> counted(1, "scene"), counted(2000, "scene"), counted(1, "copy", "copies")
        ('1 scene', '2,000 scenes', '1 copy')
    """
    return f"{count:,} {agreeing(count, one, many or f'{one}s')}"


def agreeing(count: int, one: str, many: str) -> str:
    """Return the word that agrees with a number, such as a verb.

    Example:
        >>> f"1 of 4 scenes {agreeing(1, 'has', 'have')} no date"
        '1 of 4 scenes has no date'
    """
    return one if count == 1 else many


def part_of(part: int, whole: int, noun: str, is_: str = "is", are: str = "are") -> str:
    """Return a number of things, the number of all of them, and the verb that agrees with the noun.

    Args:
        part: the number of things that do it.
        whole: the number of all things.
        noun: the noun for one thing.
        is_: the verb if one of the two numbers is 1.
        are: the verb for other numbers.

    Example:
        >>> part_of(1, 4, "shard") + " written", part_of(0, 1, "scene", "has", "have") + " no date"
        ('1 of 4 shards is written', '0 of 1 scene has no date')
    """
    return f"{part:,} of {counted(whole, noun)} {is_ if 1 in (part, whole) else are}"


def first_names(names: Sequence[str], shown: int) -> str:
    """Return the first names, separated by commas, and the number of the others. Empty if there are no names.

    Args:
        names: all names.
        shown: largest number of names in the text.

    Example:
        >>> first_names(["a", "b", "c"], 3), first_names(["a", "b", "c"], 2)
        ('a, b, c', 'a, b and 1 more')
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{more}"


def _exponent(value: float) -> int:
    """Return the power of ten of the first digit of a number. 0 for 0, and for a number that is not finite."""
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
