"""Read header fields of requests."""

from __future__ import annotations


def has_etag(known: str, etag: str) -> bool:
    """Return whether the header If-None-Match has an ETag (RFC 9110, section 13.1.2).

    Example:
        >>> has_etag('W/"a", "b"', '"a"')
        True
    """
    tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags


def accepted_encodings(header: str) -> dict[str, float]:
    """Return the weights of the encodings that a header Accept-Encoding names (RFC 9110, section 12.5.3).

    Example:
        >>> accepted_encodings("gzip, br;q=0")
        {'gzip': 1.0, 'br': 0.0}
    """
    weights = {}
    for part in header.lower().split(","):
        name, _, parameter = part.strip().partition(";")
        key, _, value = parameter.strip().partition("=")
        try:
            weight = float(value) if key.strip() == "q" else 1.0
        except ValueError:
            weight = 0.0
        if name.strip():
            weights[name.strip()] = weight
    return weights
